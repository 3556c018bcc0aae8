"""Plot a bench: learning curves, few labelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from simmat_plugin_report.plots import COLOURS, DASHES, PALETTE, new_figure, save_figure, style_axes

from simmat_plugin_bench.grid import Arm
from simmat_plugin_bench.results import Results, Row, Spread
from simmat_plugin_bench.settings import DataSet

COLUMNS = 3
"""Panels per row."""

_MARKS = "osD^vPX<>"


def draw_plots(results: Results, folder: Path) -> dict[str, Path]:
    """Draw the plots that have data into a folder, and remove the others; return name -> picture."""
    plots = {"curves": curves_figure, "few": _subset_sizes}
    drawn: dict[str, Path] = {}
    for name, draw in plots.items():
        path = folder / f"{name}.png"
        if (figure := draw(results, ArmStyles(results))) is not None:
            drawn[name] = save_figure(figure, path, "png")
        else:
            path.unlink(missing_ok=True)
    return drawn


class ArmStyles:
    """The colour, marker and dash of each arm, the same in every plot and for every number of training images."""

    def __init__(self, results: Results) -> None:
        self._order = list(dict.fromkeys(family(arm) for arm in results.bench.arms if arm.kind == "train"))

    def colour(self, arm: Arm) -> str:
        """Return an arm's colour; zero-shot is grey."""
        return PALETTE[self._index(arm) % len(PALETTE)] if arm.kind == "train" else COLOURS["faint"]

    def mark(self, arm: Arm) -> str:
        """Return an arm's marker."""
        return _MARKS[self._index(arm) % len(_MARKS)] if arm.kind == "train" else "|"

    def dash(self, arm: Arm) -> str | tuple[float, tuple[float, ...]]:
        """Return an arm's line style."""
        return DASHES[self._index(arm) // len(PALETTE) % len(DASHES)]

    def _index(self, arm: Arm) -> int:
        return self._order.index(family(arm)) if family(arm) in self._order else 0

    def panels(self, count: int, *, height: float, width: float = 3.6, labels: int = 0) -> tuple[Figure, list[Axes]]:
        """Return a figure with panels in rows of `COLUMNS`, and space for a legend of `labels` entries below them."""
        columns = min(COLUMNS, count)
        rows = math.ceil(count / columns)
        figure = new_figure((max(width * columns, 5.2), height * rows + 0.19 * math.ceil(labels / 3)))
        grid = figure.subplots(rows, columns, squeeze=False)
        axes = [axes for row in grid for axes in row]
        for unused in axes[count:]:
            unused.set_visible(False)
        return figure, axes[:count]

    def title(self, axes: Axes, text: str) -> None:
        """Set a panel's title."""
        axes.set_title(text, loc="left", fontsize=10, color=COLOURS["text"])

    def legend(self, figure: Figure, axes: Sequence[Axes]) -> None:
        """Draw one legend for all panels below them."""
        found = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
        legend = figure.legend(
            list(found.values()), list(found), loc="outside lower left", ncols=3, fontsize=8.5, frameon=False
        )
        for text in legend.get_texts():
            text.set_color(COLOURS["text"])


def family(arm: Arm) -> str:
    """Return a key that is equal for arms that differ only in the number of training images."""
    options = sorted((key, value) for key, value in arm.options.items() if key not in ("train_images", "train_share"))
    return repr((arm.foundation, arm.kind, arm.steps_factor, arm.rates, options))


def curves_figure(results: Results, styles: ArmStyles) -> Figure | None:
    """Plot validation score against step: mean and standard deviation over seeds; zero-shot is dashed."""
    sets = [
        data for data in results.bench.settings.data if any(any(row.curves.values()) for row in _full(results.of(data)))
    ]
    if not sets:
        return None
    figure, panels = styles.panels(len(sets), height=2.9, labels=len(results.bench.arms))
    for axes, data in zip(panels, sets, strict=True):
        styles.title(axes, data.name)
        for row in _full(results.of(data)):
            if row.arm.kind != "train" and row.val is not None:
                axes.axhline(row.val, color=COLOURS["faint"], lw=1.3, ls=(0, (5, 3)), label=results.label(row.arm))
            else:
                _draw_curve(axes, row, results, styles)
        _scale_steps(axes, _full(results.of(data)))
        style_axes(axes)
    for axes in panels[-COLUMNS:]:
        axes.set_xlabel("step", color=COLOURS["faint"], fontsize=9)
    for axes in panels[::COLUMNS]:
        axes.set_ylabel("validation mIoU", color=COLOURS["faint"], fontsize=9)
    styles.legend(figure, panels)
    return figure


def _scale_steps(axes: Axes, rows: Sequence[Row]) -> None:
    """Scale the step axis: linear, or logarithmic from the first validation on if a run has over twice the steps."""
    curves = [[step for step, _ in curve] for row in rows for curve in row.curves.values() if curve]
    lengths = [steps[-1] for steps in curves]
    axes.set_xlim(left=0)
    if min(lengths) > 0 and max(lengths) > 2 * min(lengths):
        first = min(step for steps in curves for step in steps if step > 0)
        axes.set_xscale("symlog", base=2, linthresh=first)
        ticks = [0, *(first * 2**k for k in range(math.ceil(math.log2(max(lengths) / first)) + 1))]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))


def _draw_curve(axes: Axes, row: Row, results: Results, styles: ArmStyles) -> None:
    runs = [dict(curve) for curve in row.curves.values() if curve]
    if not runs:
        return
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    spreads = [Spread(tuple(run[step] for run in runs)) for step in steps]
    means = [spread.mean for spread in spreads]
    colour, dash = styles.colour(row.arm), styles.dash(row.arm)
    axes.plot(steps, means, ".", color=colour, ms=4)
    axes.plot(steps, means, color=colour, ls=dash, lw=1.6, label=results.label(row.arm))
    if len(runs) > 1:
        deviations = [spread.std or 0.0 for spread in spreads]
        low = [mean - deviation for mean, deviation in zip(means, deviations, strict=True)]
        high = [mean + deviation for mean, deviation in zip(means, deviations, strict=True)]
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)


def _subset_sizes(results: Results, styles: ArmStyles) -> Figure | None:
    """Plot score against the number of training images, for arms that were trained on several numbers of them."""
    sets = [data for data in results.bench.settings.data if _families(results, data)]
    if not sets:
        return None
    figure, panels = styles.panels(len(sets), height=2.9, labels=len(results.bench.arms))
    for axes, data in zip(panels, sets, strict=True):
        styles.title(axes, data.name)
        for row in results.of(data):
            if row.arm.kind != "train" and row.score is not None:
                axes.axhline(
                    row.score.mean, color=COLOURS["faint"], lw=1.3, ls=(0, (5, 3)), label=results.label(row.arm)
                )
        for rows in _families(results, data):
            last = rows[-1]
            axes.errorbar(
                [row.samples or 0 for row in rows],
                [row.score.mean if row.score else math.nan for row in rows],
                yerr=[(row.score.std if row.score else None) or 0.0 for row in rows],
                fmt=styles.mark(last.arm),
                color=styles.colour(last.arm),
                ls=styles.dash(last.arm),
                lw=1.6,
                ms=5,
                capsize=3,
                label=results.label(last.arm).split(" @ ")[0],
            )
        axes.set_xscale("log")
        numbers = sorted({row.samples for rows in _families(results, data) for row in rows if row.samples})
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.xaxis.set_minor_formatter(NullFormatter())
        style_axes(axes)
    for axes in panels[-COLUMNS:]:
        axes.set_xlabel("training images", color=COLOURS["faint"], fontsize=9)
    for axes in panels[::COLUMNS]:
        axes.set_ylabel(_short(results.bench.settings.score), color=COLOURS["faint"], fontsize=9)
    styles.legend(figure, panels)
    return figure


def _families(results: Results, data: DataSet) -> list[list[Row]]:
    """Return the rows of each arm that was trained on several numbers of images, fewest images first."""
    groups: dict[str, list[Row]] = {}
    for row in results.of(data):
        if row.arm.kind == "train" and row.score is not None and row.samples:
            groups.setdefault(family(row.arm), []).append(row)
    several = [sorted(rows, key=lambda row: row.samples or 0) for rows in groups.values()]
    return [rows for rows in several if len({row.samples for row in rows}) > 1]


def _full(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of arms trained on all images."""
    return [row for row in rows if row.arm.subset == (None, None)]


def _short(score: str) -> str:
    return {
        "miou_object": "test mIoU by object",
        "miou_image": "test mIoU by image",
        "everything.ap50": "test AP50 of every object",
        "semantic.miou": "test mIoU of the class map",
    }.get(score, score)
