"""The commands that the pages name exist, with their options."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from installed import need_plugins

from simmat.cli import group

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
COMMAND = re.compile(r"(?:^\$ |^|`)(simmat [a-z][^`\n]*)", re.MULTILINE)


def _unknown(text: str) -> list[str]:
    """Return the words of a command line that are neither commands nor options of the command before them."""
    command: click.Command = group
    context = click.Context(group, info_name="simmat")
    words = text.partition(" #")[0].split()[1:]
    while words and isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            return [name]
        command, context = found, click.Context(found, parent=context, info_name=name)
    options = {
        "--help",
        *(
            option
            for param in command.params
            for option in (*param.opts, *param.secondary_opts)
        ),
    }
    return [
        word
        for word in words
        if re.match("--[a-z]", word) and word.partition("=")[0] not in options
    ]


@pytest.mark.parametrize(
    "page", PAGES, ids=[f"{page.parent.name}/{page.name}" for page in PAGES]
)
def test_a_page_names_only_what_exists(page: Path) -> None:
    """A command that was renamed leaves the reader with an error."""
    need_plugins(
        "aims",
        "align",
        "annotate",
        "bench",
        "convert",
        "distill",
        "export",
        "labelstudio",
        "report",
        "scenes",
    )
    wrong = {
        line: bad
        for line in COMMAND.findall(page.read_text(encoding="utf-8"))
        if (bad := _unknown(line))
    }
    assert wrong == {}
