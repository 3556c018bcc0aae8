"""Curves of a training run: loss and validation mIoU against step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simmat.report.plot_style import DARK, LIGHT, new_figure, picture_kind, save_figure, style_axes
from simmat.types import is_finite_number

Record = Mapping[str, Any]
Points = list[tuple[float, float]]

SIZE_INCH = (5.4, 4.6)
SMOOTHED_FROM = 40
"""With this many losses or more, a running mean is drawn over the single ones."""


def plot_curves(records: Sequence[Record], out: Path | str, *, dark: bool = False) -> Path:
    """Draw the loss of every logged step and the mIoU of every validation, one above the other.

    Args:
        records: as `RunFolder.records` gives them: `{"kind": "train", "step": 50, "loss": 0.8}` and
            `{"kind": "val", "step": 50, "miou_object": 0.4}`; other keys are left alone. Of two records of one kind
            and step, as after a resumed run, the later one counts.
        out: a file ending in .png or .svg; written whole or not at all.
        dark: light text on a dark ground.

    Returns:
        `out` as a path.

    Raises:
        DataError: the ending is another.
        OutputError: the file cannot be written.
    """
    out = Path(out)
    kind = picture_kind(out, "curves")
    return save_figure(_figure(records, DARK if dark else LIGHT), out, kind)


def _figure(records: Sequence[Record], colours: Mapping[str, str]) -> Figure:
    figure = new_figure(SIZE_INCH, colours)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.15))
    _draw_loss(top, _series(records, "train", "loss"), colours)
    _draw_miou(bottom, _series(records, "val", "miou_object"), colours)
    bottom.set_xlabel("step", color=colours["faint"])
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10]))
    bottom.set_xlim(left=0)
    for axes in (top, bottom):
        style_axes(axes, colours)
    figure.align_ylabels()
    return figure


def _series(records: Sequence[Record], kind: str, key: str) -> Points:
    """Return the finite (step, value) of records of one kind, in step order."""
    found = {
        float(record["step"]): float(record[key])
        for record in records
        if record.get("kind") == kind and is_finite_number(record.get(key))
    }
    return sorted(found.items())


def _draw_loss(axes: Axes, points: Points, colours: Mapping[str, str]) -> None:
    axes.set_title("training loss", loc="left", fontsize=10, color=colours["text"])
    if not points:
        return _say(axes, "no training step logged yet", colours)
    steps, losses = zip(*points, strict=True)
    smooth = len(points) >= SMOOTHED_FROM
    marker = "o" if len(points) == 1 else None
    axes.plot(
        steps, losses, color=colours["line"], lw=0.8 if smooth else 1.6, alpha=0.35 if smooth else 1, marker=marker
    )
    if smooth:
        axes.plot(steps, _running_mean(losses, len(losses) // 20), color=colours["line"], lw=1.8)
    axes.set_ylim(bottom=0 if min(losses) >= 0 else None)


def _draw_miou(axes: Axes, points: Points, colours: Mapping[str, str]) -> None:
    axes.set_title("validation mIoU", loc="left", fontsize=10, color=colours["text"])
    if not points:
        return _say(axes, "no validation yet", colours)
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, color=colours["line"], lw=1.6, marker="o", ms=3.5, clip_on=False, zorder=3)
    best_step, best = max(points, key=lambda point: (point[1], -point[0]))
    axes.plot([best_step], [best], marker="o", ms=7, mfc="none", mec=colours["best"], mew=1.6, clip_on=False, zorder=4)
    axes.set_ylim(0, 1)
    _label_above(axes, f"best {best:.3f} at step {best_step:.0f}", colours["best"])


def _label_above(axes: Axes, text: str, colour: str) -> None:
    """Write right-aligned in the title's line, where no curve can pass beneath."""
    axes.text(1.0, 1.03, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=colour)


def _say(axes: Axes, text: str, colours: Mapping[str, str]) -> None:
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=colours["faint"])


def _running_mean(values: Sequence[float], half: int) -> list[float]:
    """Mean over `half` neighbours to each side, fewer at the ends, so it neither lags nor shortens."""
    half = max(half, 1)
    windows = [values[max(i - half, 0) : i + half + 1] for i in range(len(values))]
    return [math.fsum(window) / len(window) for window in windows]
