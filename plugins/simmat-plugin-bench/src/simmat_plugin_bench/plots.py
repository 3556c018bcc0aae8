"""Plot a bench: learning curves, few labelled images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from simmat_plugin_report.plots import (
    COLOURS,
    figure_bytes,
    legend_below,
    line_style,
    new_figure,
    style_axes,
)

from simmat.io.files import atomic_write_bytes
from simmat_plugin_bench.grid import Arm
from simmat_plugin_bench.results import ArmRow, Results, SeedScores
from simmat_plugin_bench.settings import DataSet

COLUMNS = 3
"""Panels per row."""

_MARKS = "osD^vPX<>"

Styles = Mapping[str, Mapping[str, Any]]
"""Family of arms -> colour, line style and marker, the same in every plot and for every number of training images."""


def draw_plots(results: Results, folder: Path) -> dict[str, Path]:
    """Draw the plots that have data into a folder, and remove the others; return name -> picture."""
    plots = {"curves": curves_figure, "few": _subset_sizes}
    drawn: dict[str, Path] = {}
    for name, draw in plots.items():
        path = folder / f"{name}.png"
        if (figure := draw(results, arm_styles(results))) is not None:
            atomic_write_bytes(path, figure_bytes(figure))
            drawn[name] = path
        else:
            path.unlink(missing_ok=True)
    return drawn


def arm_styles(results: Results) -> Styles:
    """Return the style of each family of arms that are trained."""
    families = dict.fromkeys(
        family(arm) for arm in results.bench.arms if arm.kind == "train"
    )
    return {
        name: {**line_style(i), "marker": _MARKS[i % len(_MARKS)]}
        for i, name in enumerate(families)
    }


def family(arm: Arm) -> str:
    """Return a key that is equal for arms that differ only in the number of training images."""
    options = sorted(
        (key, value)
        for key, value in arm.options.items()
        if key not in ("train_images", "train_share")
    )
    return repr((arm.foundation, arm.kind, arm.steps_factor, arm.rates, options))


def _figure(
    results: Results,
    sets: Sequence[DataSet],
    draw: Callable[[Axes, DataSet], None],
    xlabel: str,
    ylabel: str,
) -> Figure | None:
    """Draw a panel for each data set, in rows of `COLUMNS`, and one legend below them; None without a data set."""
    if not sets:
        return None
    columns = min(COLUMNS, len(sets))
    rows = math.ceil(len(sets) / columns)
    figure = new_figure(
        (
            max(3.6 * columns, 5.2),
            2.9 * rows + 0.19 * math.ceil(len(results.bench.arms) / 3),
        )
    )
    every: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    panels = every[: len(sets)]
    for unused in every[len(sets) :]:
        unused.set_visible(False)
    for axes, data in zip(panels, sets, strict=True):
        axes.set_title(data.name, loc="left", fontsize=10, color=COLOURS["text"])
        draw(axes, data)
        style_axes(axes)
    for axes in panels[-COLUMNS:]:
        axes.set_xlabel(xlabel, color=COLOURS["faint"], fontsize=9)
    for axes in panels[::COLUMNS]:
        axes.set_ylabel(ylabel, color=COLOURS["faint"], fontsize=9)
    legend_below(figure, panels, 3)
    return figure


def _draw_level(axes: Axes, level: float, label: str) -> None:
    axes.axhline(level, color=COLOURS["faint"], lw=1.3, ls=(0, (5, 3)), label=label)


def curves_figure(results: Results, styles: Styles) -> Figure | None:
    """Plot validation score against step: mean and standard deviation over seeds; zero-shot is dashed."""

    def draw(axes: Axes, data: DataSet) -> None:
        for row in _full(results.of(data)):
            if row.arm.kind == "train":
                _draw_curve(axes, row, results.label(row.arm), styles[family(row.arm)])
            elif row.val is not None:
                _draw_level(axes, row.val, results.label(row.arm))
        _scale_steps(axes, _full(results.of(data)))

    every = results.bench.settings.data
    sets = [
        data for data in every if any(row.curves for row in _full(results.of(data)))
    ]
    return _figure(results, sets, draw, "step", "validation mIoU")


def _scale_steps(axes: Axes, rows: Sequence[ArmRow]) -> None:
    """Scale the step axis: linear, or logarithmic from the first validation on if a run has over twice the steps."""
    curves = [list(curve) for row in rows for curve in row.curves]
    lengths = [steps[-1] for steps in curves]
    axes.set_xlim(left=0)
    if min(lengths) > 0 and max(lengths) > 2 * min(lengths):
        first = min(step for steps in curves for step in steps if step > 0)
        axes.set_xscale("symlog", base=2, linthresh=first)
        ticks = [
            0,
            *(
                first * 2**k
                for k in range(math.ceil(math.log2(max(lengths) / first)) + 1)
            ),
        ]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))


def _draw_curve(axes: Axes, row: ArmRow, label: str, style: Mapping[str, Any]) -> None:
    runs = row.curves
    if not runs:
        return
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    spreads = [SeedScores(tuple(run[step] for run in runs)) for step in steps]
    means = [spread.mean for spread in spreads]
    axes.plot(steps, means, **{**style, "marker": "."}, ms=4, lw=1.6, label=label)
    if len(runs) > 1:
        deviations = [spread.std or 0.0 for spread in spreads]
        low = [
            mean - deviation for mean, deviation in zip(means, deviations, strict=True)
        ]
        high = [
            mean + deviation for mean, deviation in zip(means, deviations, strict=True)
        ]
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.15, lw=0)


def _subset_sizes(results: Results, styles: Styles) -> Figure | None:
    """Plot score against the number of training images, for arms that were trained on several numbers of them."""

    def draw(axes: Axes, data: DataSet) -> None:
        for row in results.of(data):
            if row.arm.kind != "train" and row.score is not None:
                _draw_level(axes, row.score.mean, results.label(row.arm))
        for rows in _families(results, data):
            last = rows[-1].arm
            axes.errorbar(
                [row.samples for row in rows],
                [row.score.mean if row.score else math.nan for row in rows],
                yerr=[(row.score.std if row.score else None) or 0.0 for row in rows],
                **styles[family(last)],
                lw=1.6,
                ms=5,
                capsize=3,
                label=results.label(last).split(" @ ")[0],
            )
        axes.set_xscale("log")
        numbers = sorted(
            {
                row.samples
                for rows in _families(results, data)
                for row in rows
                if row.samples
            }
        )
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.xaxis.set_minor_formatter(NullFormatter())

    sets = [data for data in results.bench.settings.data if _families(results, data)]
    return _figure(
        results, sets, draw, "training images", _short(results.bench.settings.score)
    )


def _families(results: Results, data: DataSet) -> list[list[ArmRow]]:
    """Return the rows of each arm that was trained on several numbers of images, fewest images first."""
    groups: dict[str, list[ArmRow]] = {}
    for row in results.of(data):
        if row.arm.kind == "train" and row.score is not None and row.samples:
            groups.setdefault(family(row.arm), []).append(row)
    several = [sorted(rows, key=lambda row: row.samples) for rows in groups.values()]
    return [rows for rows in several if len({row.samples for row in rows}) > 1]


def _full(rows: Sequence[ArmRow]) -> list[ArmRow]:
    """Return the rows of arms trained on all images."""
    return [row for row in rows if row.arm.subset == (None, None)]


def _short(score: str) -> str:
    return {
        "miou_object": "test mIoU by object",
        "miou_image": "test mIoU by image",
        "everything.ap50": "test AP50 of every object",
        "semantic.miou": "test mIoU of the class map",
    }.get(score, score)
