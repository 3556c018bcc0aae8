"""A trained model as ONNX files that run without torch: `simmat export`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugin_specs import FunctionSpec
from simmat.plugins.hooks import hookimpl
from simmat_plugin_export.command import FORMAT, command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `export`."""
    return [command]


@hookimpl
def simmat_model_formats() -> Iterable[FunctionSpec]:
    """Return what `export` writes."""
    return [FORMAT]
