"""Teach a sensor's model by a model of another sensor, from registered pairs without labels: `simmat distill`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugins.hooks import hookimpl
from simmat_plugin_distill.command import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `distill`."""
    return [command]
