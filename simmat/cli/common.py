"""What commands share: tables, the registry, progress bars."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from simmat.plugins.hooks import PROJECT
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.terminal import escape, escape_json, say

if TYPE_CHECKING:
    from tqdm import tqdm


Command = TypeVar("Command", bound=Callable[..., Any])


class PathType(click.Path):
    """A path as a pathlib.Path; an empty one, as an unset shell variable leaves it, would mean the current folder."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Refuse an empty text."""
        if value == "":
            self.fail("the path is empty; name a file or folder, . for the current one", param, ctx)
        return super().convert(value, param, ctx)


PATH = PathType(path_type=Path)
"""Type of every option and argument that names a file or folder."""


def json_option(command: Command) -> Command:
    """Decorate a command with --json; its parameter is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print json.")(command)


def load_registry() -> Registry:
    """Load the plugins; what failed or is slow is named on standard error, so that nobody searches in vain.

    The parts built in are left out of it: nobody can do without them, and a busy machine slows them down too.
    """
    registry = load_plugins()
    if failed := [report.name for report in registry.reports if report.error]:
        say(f"warning: failed to load: {', '.join(failed)}; see simmat plugins list", err=True)
    for report in registry.reports:
        if report.slow and report.distribution != PROJECT:
            say(f"warning: plugin {report.name!r} took {report.seconds:.1f} s to load", err=True)
    return registry


def print_json(value: Any) -> None:
    """Print a value as indented json."""
    say(escape_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head; the last column is wrapped to the terminal's width and may hold line feeds."""
    table = [[*(escape(cell, keep="") for cell in row[:-1]), escape(row[-1])] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(head) - 1)]
    indent = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size((100, 24)).columns - indent, 30)
    for row in table:
        # A name is copied from here: it must not be cut at its hyphens.
        wrap = textwrap.TextWrapper(room, break_on_hyphens=False).wrap
        lines = [line for part in row[-1].splitlines() for line in wrap(part)] or [""]
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        say((start + lines[0]).rstrip())
        for line in lines[1:]:
            say(" " * indent + line)


_SIZE = (80, 24)
"""Columns and lines of a terminal that does not know its own."""


@contextmanager
def progress_bar(label: str, unit: str, *, total: int | None = None, shown: bool = True) -> Iterator[tqdm[Any]]:
    """Give a bar that is cleared at the end; where standard error is no terminal it draws nothing, to fill no log.

    Args:
        label: what is being done.
        unit: one of what is counted.
        total: how many; None where that is found out later.
        shown: False draws nothing anywhere, as in all processes but the first.
    """
    from tqdm import tqdm

    disable = None if shown else True  # None asks whether it is a terminal
    columns, lines = _size()
    with tqdm(
        total=total, desc=escape(label), unit=unit, leave=False, disable=disable, ncols=columns, nrows=lines
    ) as bar:
        yield bar


def _size() -> tuple[int, int] | tuple[None, None]:
    """Return the size of a terminal that states 0, as that of a container may: tqdm would draw nothing on it.

    None leaves the size to tqdm.
    """
    try:
        stated = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return None, None
    return (None, None) if all(stated) else _SIZE
