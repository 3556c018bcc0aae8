"""`simmat annotate`: label sensor images in the browser."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugins.hooks import hookimpl
from simmat_plugin_annotate.command import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `annotate`."""
    return [command]
