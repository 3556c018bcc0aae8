"""Models for Label Studio: `simmat labelstudio`, an ML backend, and the result format `label-studio`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat import hookimpl
from simmat.plugin_specs import ResultFormat
from simmat_plugin_labelstudio.command import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `labelstudio`."""
    return [command]


@hookimpl
def simmat_result_formats() -> Iterable[ResultFormat]:
    """Return `label-studio`."""
    return [
        ResultFormat(
            "label-studio",
            "the objects of all images as tasks of Label Studio, with predictions",
            "simmat_plugin_labelstudio.results:write_tasks",
            ("label-studio.json",),
            kinds=("objects",),
            check="simmat_plugin_labelstudio.results:check_size",
            one_file=True,
        )
    ]
