"""`simmat forecast`: say what more labels would bring."""

from __future__ import annotations

from pathlib import Path

import click

from simmat.cli.options import PATH, FiniteRange, json_option
from simmat.cli.tables import print_json
from simmat.errors import OutputError
from simmat.io.files import check_writable
from simmat.terminal import echo

MORE = (20, 50, 100)
"""Numbers of more training images of which it is said what they bring, by default."""
GAIN = 0.01
"""Gain of mIoU by 20 more training images below which it is time to stop, by default."""


@click.command("forecast")
@click.argument("runs", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option(
    "--more",
    type=click.IntRange(1, 10**6),
    multiple=True,
    default=MORE,
    show_default=True,
    metavar="N",
    help="Forecast for so many more training images; repeat it for several.",
)
@click.option(
    "--gain",
    type=FiniteRange(0, 1, min_open=True),
    default=GAIN,
    show_default=True,
    help="It is time to stop when 20 more images bring less mIoU than this.",
)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE.html",
    help="Also write a page with the curve.",
)
@json_option
def forecast(
    runs: tuple[Path, ...],
    more: tuple[int, ...],
    gain: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what more labels would bring in mIoU and in missed objects, and when to stop.

    The RUNs are trainings of one network on fewer and on more labels: those of a folder that was labelled in
    `simmat annotate`, of `simmat train --init` on more and more labels, or on parts of a data set (--train-images). A
    folder of runs, or a data set that has some in runs/, stands for all of them. Nothing is computed but the curve: the
    runs recorded what their models scored on images that they did not know.
    """
    from simmat_plugin_report.forecast import forecast_lines, forecast_runs, runs_in
    from simmat_plugin_report.forecast_page import write_forecast

    if out is not None:
        if out.is_dir():
            raise OutputError(f"{out} is a folder; give the name of a file in it")
        check_writable(out.absolute().parent)
    found, curves = forecast_runs(runs_in(runs), more, gain)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        echo("\n".join(forecast_lines(found)))
    if out is not None:
        echo(f"wrote {write_forecast(out, found, curves)}", err=as_json)
