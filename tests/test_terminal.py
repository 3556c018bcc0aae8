"""Nothing that a stranger named or wrote steers the terminal."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from installed import need_plugins
from tqdm import tqdm

import simmat
from simmat.cli import run
from simmat.cli.tables import print_json, print_table
from simmat.terminal import EscapingStream, escape, escape_json

HOSTILE = "a\x1b[2Jb\r\x07\x9b1m\x7f\u202e\u2066\u2028\u200b\udc80c"
SHOWN = r"a\x1b[2Jb\r\x07\x9b1m\x7f\u202e\u2066\u2028\u200b\udc80c"
STEERING = set(HOSTILE) - set("abc[2J1m")
ROOT = Path(__file__).parents[1]


def test_every_character_that_steers_is_shown_and_the_layout_stays() -> None:
    """A reader must see that something odd stands there; removing it would hide an attack, or join two names."""
    assert (
        escape(f"{HOSTILE}\n\tä€ \U0001f469\u200d\U0001f52c")
        == f"{SHOWN}\n\tä€ \U0001f469\u200d\U0001f52c"
    )
    assert escape("a\nb\tc", keep="") == r"a\nb\tc"
    assert escape("\U000e0041") == r"\U000e0041"


def test_json_stays_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read it; an escape of another language would be no json."""
    value = {HOSTILE: [HOSTILE, "\U000e0041", "ä\n"]}
    print_json(value)
    said = capsys.readouterr().out
    assert not STEERING & set(said)
    assert "ä" in said
    assert json.loads(said) == value
    assert escape_json('"\U000e0041"') == r'"\udb40\udc41"'


def test_a_table_keeps_its_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An escape is longer than what it stands for; and a line feed in a name would forge a row."""
    monkeypatch.setenv("COLUMNS", "300")
    print_table(("A", "B"), [(HOSTILE, "first"), ("x\ny", f"second {HOSTILE}")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{SHOWN}  first"
    assert lines[2] == r"x\ny".ljust(len(SHOWN)) + f"  second {SHOWN}"


@pytest.mark.parametrize(
    "command",
    [
        "bundle show NAME",
        "data check NAME --modality gray --regions instances",
        "predict NAME NAME --point 1,1 --out OUT",
        "train --config NAME",
        "modalities show ./NAME",
        "NAME",
    ],
)
def test_a_hostile_name_is_answered_readably(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """File names come with downloaded data; an error that clears the screen, or turns itself around, hides itself."""
    if command.startswith("bundle"):
        need_plugins("hub")
    if command.startswith("data"):
        need_plugins("report")
    monkeypatch.chdir(tmp_path)
    assert run([word.replace("NAME", HOSTILE) for word in command.split()]) == 2
    captured = capsys.readouterr()
    assert not STEERING & set(captured.out + captured.err)
    assert r"\x1b[2J" in captured.err


CHATTY = """
import click, logging, sys, warnings
import simmat.cli
hostile = HOSTILE

@click.command()
def command():
    print(hostile)
    click.echo(hostile, color=True)
    sys.stderr.write(hostile)
    logging.getLogger("a.library").warning("%s", hostile)
    warnings.warn(hostile)
    raise ValueError(hostile)

simmat.cli.import_module = lambda name: type("Module", (), {"command": command})
before = sys.stdout, sys.stderr
code = simmat.cli.run(["train"])
assert (sys.stdout, sys.stderr) == before
sys.exit(code)
"""


def test_what_libraries_and_plugins_print_is_escaped_too() -> None:
    """They name the files they stumble over, and know nothing of our rule."""
    command = [sys.executable, "-c", CHATTY.replace("HOSTILE", ascii(HOSTILE))]
    environment = {**os.environ, "SIMMAT_DEBUG": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, capture_output=True, env=environment, timeout=60, check=False
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 1
    assert out == f"{SHOWN}\n{SHOWN}\n"
    assert not STEERING & set(err)
    # written, logged, warned of, in the traceback, in the message
    assert err.count(SHOWN) >= 5


class Terminal(io.StringIO):
    """A terminal, as far as a progress bar asks."""

    def isatty(self) -> bool:
        return True


def drawn(file: Any, label: str) -> None:
    with tqdm(
        total=2,
        desc=label,
        file=file,
        ncols=60,
        mininterval=0,
        bar_format="{desc}: {n}",
    ) as outer:
        with tqdm(
            total=1,
            desc="inner",
            file=file,
            ncols=60,
            mininterval=0,
            bar_format="{desc}: {n}",
        ) as inner:
            inner.update(1)
        outer.update(2)


def test_progress_bars_are_drawn_as_without_and_only_their_labels_are_escaped() -> None:
    """A bar goes back to the start of its line, and up over the bars below; escaped, it would fill the screen."""
    plain, guarded, hostile = Terminal(), Terminal(), Terminal()
    drawn(plain, "reading")
    drawn(EscapingStream(guarded), "reading")
    assert guarded.getvalue() == plain.getvalue()
    assert "\r" in plain.getvalue()
    assert "\x1b[A" in plain.getvalue()
    drawn(EscapingStream(hostile), HOSTILE)
    assert SHOWN in hostile.getvalue()
    assert not (STEERING - {"\r", "\x1b"}) & set(hostile.getvalue())
    assert "\x1b[2J" not in hostile.getvalue()


def test_bytes_find_no_way_past_the_guard() -> None:
    """click writes to `buffer` where the locale is ASCII."""
    inner = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    stream: Any = EscapingStream(inner)
    click.echo("ä\x1b[2J", file=stream, color=True)
    inner.flush()
    assert inner.buffer.getvalue() == rb"\xe4\x1b[2J" + b"\n"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        stream.buffer  # noqa: B018


def unescaped(path: Path) -> list[str]:
    """Return the calls in a module that print by another way than `echo`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        for call in calls
        if (name := ast.unparse(call.func)) == "print"
        or name
        in (
            "click.echo",
            "click.secho",
            "click.echo_via_pager",
            "sys.stdout.write",
            "sys.stderr.write",
        )
        or (name in ("tqdm", "tqdm.write") and not _is_safe(call))
    ]


def _is_safe(call: ast.Call) -> bool:
    """True where a bar's label, or the line written above it, is our own text or escaped."""
    text = call.args[:1] or [word.value for word in call.keywords if word.arg == "desc"]
    return all(
        isinstance(node, ast.Constant) or ast.unparse(node).startswith("escape(")
        for node in text
    )


def test_every_module_prints_through_say() -> None:
    """One function escapes; a new command that prints by itself would be the next hole."""
    folders = (Path(simmat.__file__).parent, ROOT / "plugins/simmat-plugin-bench/src")
    modules = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    modules = [
        path
        for path in modules
        if path.name != "terminal.py" and "template" not in path.parts
    ]
    assert [line for path in modules for line in unescaped(path)] == []
