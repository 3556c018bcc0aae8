"""`simmat align`: estimate where the images of two sensors lie on each other."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat import hookimpl
from simmat_plugin_align.command import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `align`."""
    return [command]
