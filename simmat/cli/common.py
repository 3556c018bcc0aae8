"""Shared by commands: path and json options, the registry, tables, progress bars."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from simmat.errors import shortened
from simmat.plugins.registry import Kind, Registry, installed
from simmat.terminal import echo, escape, escape_json

if TYPE_CHECKING:
    from tqdm import tqdm

    from simmat.sensors.sensor_toml import SensorDefinition
    from simmat.types import Channel


Command = TypeVar("Command", bound=Callable[..., Any])


class PathType(click.Path):
    """A pathlib.Path that is not empty: an unset shell variable would otherwise mean the current folder."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path; fail for an empty text."""
        if value == "":
            self.fail("the path is empty; name a file or folder, or . for the current folder", param, ctx)
        return super().convert(value, param, ctx)


PATH = PathType(path_type=Path)
"""Type of the options and arguments that name a file or folder."""
_MAX_CELL = 200
_MAX_LAST_CELL = 5000
"""Characters of a cell of a table, the last one of a row longer, since it is wrapped."""
LINE_SECONDS = 10.0
"""Seconds between the lines of progress where standard error is not a terminal."""


def json_option(command: Command) -> Command:
    """Decorate a command with --json; its parameter is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print json.")(command)


def load_registry() -> Registry:
    """Load the plugins; warn on standard error about those that fail."""
    registry = installed()
    failed = [report.name for report in registry.reports if report.error]
    if failed:
        echo(f"warning: failed to load: {', '.join(failed)}; see simmat plugins list", err=True)
    return registry


def print_json(value: Any) -> None:
    """Print a value as indented json."""
    echo(escape_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header; the last column is wrapped to the width of the terminal and may contain line feeds.

    Very long cells are cut: a stranger's file may hold megabytes of text, which took a minute to wrap.
    """
    table = []
    for *cells, last in [head, *rows]:
        table.append(
            [*(escape(shortened(cell, _MAX_CELL), keep="") for cell in cells), escape(shortened(last, _MAX_LAST_CELL))]
        )
    widths = []
    for i in range(len(head) - 1):
        widths.append(max(len(row[i]) for row in table))
    indent = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size((100, 24)).columns - indent, 30)
    wrap = textwrap.TextWrapper(room, break_on_hyphens=False).wrap  # users copy names, so do not break them
    for row in table:
        lines = [line for part in row[-1].splitlines() for line in wrap(part)] or [""]
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        echo((start + lines[0]).rstrip())
        for line in lines[1:]:
            echo(" " * indent + line)


def print_conflicts(registry: Registry, *kinds: Kind) -> None:
    """Warn on standard error about names of these kinds that two packages claim."""
    for (kind, name), owners in registry.conflicts().items():
        if kind in kinds:
            echo(f"warning: {kind} {name!r} is claimed by {' and '.join(owners)}: not usable", err=True)


def channel_cells(channel: Channel) -> tuple[str, ...]:
    """Return name, quantity, unit, wavelength and valid range of a channel, for a table."""
    wavelength = "-" if channel.wavelength_um is None else f"{channel.wavelength_um:g} um"
    if channel.valid_range is None:
        valid_range = "any"
    else:
        valid_range = "{:g} to {:g}".format(*channel.valid_range)
    return channel.name, channel.quantity, channel.unit, wavelength, valid_range


def print_sensor_definitions(definitions: Iterable[SensorDefinition]) -> None:
    """Print the `sensor.toml` of each sensor that is described by one."""
    import tomli_w

    for definition in definitions:
        echo(tomli_w.dumps(definition.model_dump(mode="json", exclude_defaults=True)).rstrip())


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C, so that no temporary file is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress_bar(
    label: str, unit: str, *, total: int | None = None, shown: bool = True, unit_scale: bool = False
) -> Iterator[tqdm[Any]]:
    """Show progress on standard error: a bar on a terminal, cleared at the end; else a line every `LINE_SECONDS`.

    Args:
        label: name of the work.
        unit: name of a unit.
        total: number of units; None if it is not known yet.
        shown: False shows nothing.
        unit_scale: write large numbers with a prefix, such as 1.5M.
    """
    from tqdm import tqdm

    drawn: dict[str, Any]
    if sys.stderr.isatty():
        drawn = {"ncols": 80, "nrows": 24}  # some containers report a size of 0, and tqdm would draw nothing
    else:
        form = "{desc}: {n_fmt} of {total_fmt}, {remaining} left"
        drawn = {"file": _Lines(), "bar_format": form, "ncols": 10_000, "delay": LINE_SECONDS}
        drawn |= {"mininterval": LINE_SECONDS, "miniters": 1}
    drawn |= {"unit": unit, "unit_scale": unit_scale, "leave": False, "disable": not shown}
    with tqdm(total=total, desc=escape(label), **drawn) as bar:
        yield bar


class _Lines:
    """A stream for tqdm that prints each state of a bar as a line."""

    def write(self, text: str) -> None:
        state = text.replace("\x1b[A", "").strip()
        if state:  # of a bar below another one
            echo(state, err=True)

    def flush(self) -> None:
        pass


def move_bar(bar: tqdm[Any], done: int, total: int) -> None:
    """Set a progress bar to `done` of `total` steps."""
    bar.total = total or None
    bar.update(done - bar.n)
