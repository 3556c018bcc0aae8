"""The page of a forecast: a picture of its curves, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot
from matplotlib.ticker import MaxNLocator

from simmat_plugin_report.forecast import Forecast, What, stop_line
from simmat_plugin_report.learning_curve import Estimate, LearningCurve
from simmat_plugin_report.page import Block, Figure, Table, write_sections
from simmat_plugin_report.plots import COLOURS, figure_bytes, new_figure, style_axes

_ABOUT = (
    "Each point is the score of a model on images that it was not trained on: on its validation images, or on newly "
    "labelled images before simmat train --init learned from them. The line is a power law, and the band its 80 % "
    "interval, in which the score of a new training lies in 8 of 10 cases if the law holds. The law knows nothing of "
    "images unlike those that are labelled so far."
)


def write_forecast(
    out: Path, found: Forecast, curves: Mapping[What, LearningCurve]
) -> Path:
    """Write the page; OutputError if that fails."""
    blocks: list[Block] = [
        Figure(figure_bytes(draw_forecast(found, curves)), "learning curve"),
        _ABOUT,
        _table(found),
    ]
    return write_sections(
        out,
        "What more labels would bring",
        f"{stop_line(found)}.".capitalize(),
        [("Forecast", blocks)],
    )


def draw_forecast(found: Forecast, curves: Mapping[What, LearningCurve]) -> Plot:
    """Draw the recorded scores and the curve with its band, and the same of missed objects if they are known."""
    figure = new_figure((6.2, 3.1 * len(curves)))
    axes = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    last = max(row.labels for row in found.rows)
    first = max(min(one[0] for one in found.scores), 1)
    counts = np.geomspace(first, max(last, first + 1), 60)
    _draw(axes[0], counts, curves["iou"], found.scores, turned=True)
    axes[0].set_title("mIoU", loc="left", fontsize=10, color=COLOURS["text"])
    if "missed" in curves:
        _draw(axes[1], counts, curves["missed"], found.missed_scores, turned=False)
        axes[1].set_title(
            "share of objects missed", loc="left", fontsize=10, color=COLOURS["text"]
        )
    axes[-1].set_xlabel("training images", color=COLOURS["faint"])
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for one in axes:
        one.axvline(found.labels, color=COLOURS["faint"], lw=1, ls=(0, (5, 3)))
        style_axes(one)
    return figure


def _draw(
    axes: Axes,
    counts: np.ndarray,
    curve: LearningCurve,
    scores: list[tuple[int, float, float]],
    *,
    turned: bool,
) -> None:
    estimates = [curve.error_at(float(count)) for count in counts]
    lows = np.array([one.low for one in estimates])
    middles = np.array([one.median for one in estimates])
    highs = np.array([one.high for one in estimates])
    if turned:
        lows, middles, highs = 1 - highs, 1 - middles, 1 - lows
    axes.fill_between(counts, lows, highs, color=COLOURS["line"], alpha=0.18, lw=0)
    axes.plot(counts, middles, color=COLOURS["line"], lw=1.8)
    labels, values, stds = zip(*scores, strict=True)
    axes.errorbar(
        labels, values, yerr=stds, fmt="o", ms=4, lw=1, color=COLOURS["best"], zorder=3
    )
    axes.set_ylim(0, 1)


def _table(found: Forecast) -> Table:
    rows = []
    for row in found.rows:
        missed = "" if row.missed is None else _percent(row.missed)
        gain = "" if not row.more else _text(row.gain, "+.3f")
        rows.append(
            [str(row.labels), str(row.more), _text(row.miou, ".3f"), gain, missed]
        )
    head = ["training images", "more", "mIoU", "gain", "objects missed, %"]
    return Table(head, rows, numbers_from=0)


def _text(figure: Estimate, form: str) -> str:
    return f"{figure.median:{form}} ({figure.low:{form}} to {figure.high:{form}})"


def _percent(figure: Estimate) -> str:
    return (
        f"{figure.median * 100:.0f} ({figure.low * 100:.0f} to {figure.high * 100:.0f})"
    )
