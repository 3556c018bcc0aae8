"""Objects in numbers: `simmat measure`, and what measures objects for predictions, the annotator and sequences."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat import hookimpl
from simmat.plugin_specs import FunctionSpec
from simmat_plugin_measure.command import command


@hookimpl
def simmat_measurers() -> Iterable[FunctionSpec]:
    """Return the functions that measure objects."""
    return [
        FunctionSpec(
            "objects",
            "values of each channel, contrast, area and shape",
            "simmat_plugin_measure.measuring",
        )
    ]


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `measure`."""
    return [command]
