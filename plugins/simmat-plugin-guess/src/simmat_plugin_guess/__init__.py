"""`simmat modalities guess`: say which installed sensor reads the files of a folder."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat import hookimpl
from simmat_plugin_guess.command import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `modalities guess`."""
    return [command]
