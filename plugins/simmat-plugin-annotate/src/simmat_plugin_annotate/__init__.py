"""`simmat annotate` labels sensor images in the browser, `simmat serve` serves a model over HTTP."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugins.hooks import hookimpl
from simmat_plugin_annotate.command import command
from simmat_plugin_annotate.serve_command import command as serve_command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `annotate` and `serve`."""
    return [command, serve_command]
