"""Reports on data sets and runs: `simmat data check`, `stats`, `preview`, `report`, `forecast`, `doctor`, run pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from simmat.plugins.hooks import hookimpl
from simmat_plugin_report import commands

if TYPE_CHECKING:
    from simmat.callbacks import Callback
    from simmat.config import TrainConfig
    from simmat.plugins.registry import Registry


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `doctor`, `report`, `forecast`, `data check`, `data stats` and `data preview`."""
    return [
        commands.doctor,
        commands.report,
        commands.forecast,
        commands.check,
        commands.stats,
        commands.preview,
    ]


@hookimpl
def simmat_callbacks(config: TrainConfig, registry: Registry) -> Iterable[Callback]:
    """Return the callback that writes the page of a run, unless it is turned off."""
    if not config.pictures:
        return []
    from simmat_plugin_report.callback import ReportCallback

    return [ReportCallback(config, registry)]
