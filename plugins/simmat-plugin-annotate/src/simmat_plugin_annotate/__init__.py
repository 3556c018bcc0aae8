"""`simmat annotate` labels sensor images in the browser, `simmat serve` serves a model over HTTP."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugins.hooks import hookimpl
from simmat_plugin_annotate import commands


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `annotate` and `serve`."""
    return [commands.annotate, commands.serve]
