"""Teach a sensor's model by a model of another sensor, from registered pairs without labels: `simmat distill`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugin_specs import LossSpec
from simmat.plugins.hooks import hookimpl
from simmat_plugin_distill.command import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `distill`."""
    return [command]


@hookimpl
def simmat_losses() -> Iterable[LossSpec]:
    """Return the loss of embeddings."""
    line = "error of embeddings beside those of a teacher, which simmat distill makes"
    return [
        LossSpec(
            "teacher-embeddings", line, "simmat_plugin_distill.matching:saved_loss"
        )
    ]
