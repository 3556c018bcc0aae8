"""The tables of docs/bad-input.md: read, run row by row, and written anew.

`python tests/bad_input_page.py` puts what is answered today into the page; look at the difference before you keep it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "bad-input.md"
BY_HAND = " †"
"""Ends the title of a row that no test can run everywhere."""
DOTS = "--modality gray --foundation sam_vit_tiny --image-size 64 --steps 1 --data data --out out"
"""What `…` in a command stands for; the page says so."""
LONG = "o" * 300
"""A name that is too long; the page shows three letters of it."""


@dataclass(frozen=True)
class Row:
    """A row of a table with a command.

    Attributes:
        section: the heading above it.
        title: what is wrong.
        command: as the page shows it.
        answer: lines that the page shows.
        line: number of the page's line, from 0.
    """

    section: str
    title: str
    command: str
    answer: str
    line: int

    @property
    def key(self) -> str:
        """What its place is called."""
        return f"{self.section}/{self.title}"

    @property
    def arguments(self) -> list[str]:
        """The command as a shell would hand it over, without the program's name."""
        return shlex.split(self.command.replace("ooo…", LONG).replace("…", DOTS, 1))[1:]


def cells() -> Iterator[tuple[str, int, list[str]]]:
    """Read (section, line, cells) of every row of every table, heads left out."""
    section, before = "", ""
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines()):
        if line.startswith("## "):
            section = line.removeprefix("## ")
        if line.startswith("| ") and before.startswith("|"):
            yield section, number, [cell.strip() for cell in line.strip("|").split(" | ")]
        before = line


def rows() -> list[Row]:
    """Read all rows that have a command."""
    return [
        Row(section, parts[0], parts[1].strip("`"), _lines(parts[2]), number)
        for section, number, parts in cells()
        if len(parts) == 3
    ]


def reasons() -> dict[str, str]:
    """Read the table of broken plugins: title -> why it failed."""
    return {parts[0]: parts[1].strip("`") for _, _, parts in cells() if len(parts) == 2}


def _lines(cell: str) -> str:
    return "\n".join(part.strip("`") for part in cell.split("<br>"))


def shown(text: str, place: Path) -> str:
    """Bring what a command says into the words of the page.

    Folders in front of a path go, the home folder is `~`, backticks are quotes, and what hangs on the machine or on the
    version of a library is `…`.
    """
    for folder, name in ((f"{place}/home", "~"), (f"{place}/", ""), (str(place), ".")):
        text = text.replace(folder, name)
    text = text.replace("`", "'").replace(LONG, "ooo…")
    text = re.sub(r"shows all \d+", "shows all …", text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


def answer(row: Row, place: Path) -> tuple[int, str]:
    """Run a row's command in its place; return the exit code and what it says, as the page has it."""
    from simmat.cli import run

    said, told = io.StringIO(), io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
        code = run(row.arguments)
    text = said.getvalue()
    text = text[text.index("error:") :] if "error:" in text else told.getvalue()
    return code, shown(text[text.index("Problems (") :] if "Problems (" in text else text, place)


def as_cell(text: str) -> str:
    """Write an answer as the page shows it."""
    return "<br>".join(f"`{line}`" for line in text.splitlines())


def _rewrite() -> None:
    import tempfile

    from bad_input_places import Places

    lines = PAGE.read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder))
        for row in rows():
            if row.title.endswith(BY_HAND):
                continue
            with places.made(row) as place:
                code, text = answer(row, place)
            if code != 2:
                print(f"{row.key}: exit code {code}: {text[-300:]}")
            elif text != row.answer:
                print(f"{row.key}:\n  - {row.answer}\n  + {text}")
                lines[row.line] = f"| {row.title} | `{row.command}` | {as_cell(text)} |"
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    _rewrite()
