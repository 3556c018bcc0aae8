"""`simmat bench`: run a grid of trainings and report on it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugins.hooks import hookimpl
from simmat_plugin_bench.command import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `bench`."""
    return [command]
