"""Curves of training and of clicks, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simmat.errors import DataError
from simmat.io.files import atomic_path
from simmat.types import is_finite_number

DPI = 160

LIGHT = {"ground": "#ffffff", "text": "#24292f", "faint": "#6b7280", "line": "#0072b2", "best": "#d55e00"}
DARK = {"ground": "#101216", "text": "#e6e8ec", "faint": "#9aa1ad", "line": "#56b4e9", "best": "#e69f00"}


def new_figure(size_inch: tuple[float, float], colours: Mapping[str, str]) -> Figure:
    """Return an empty figure that needs no display."""
    figure = Figure(figsize=size_inch, facecolor=colours["ground"], layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def picture_kind(out: Path, what: str) -> Literal["png", "svg"]:
    """Return the format that a file's ending names.

    Args:
        out: the file.
        what: what will be drawn, for the message.

    Raises:
        DataError: the ending is neither .png nor .svg.
    """
    match out.suffix.lower():
        case ".png":
            return "png"
        case ".svg":
            return "svg"
    raise DataError(f"cannot draw {what} as {out.name!r}; end the name in .png or .svg")


def save_figure(figure: Figure, out: Path, kind: Literal["png", "svg"]) -> Path:
    """Write a figure as a whole or not at all; equal figures give equal bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    # without a salt, the ids in an SVG are random
    with atomic_path(out) as temporary, matplotlib.rc_context({"svg.hashsalt": "simmat"}):
        figure.savefig(temporary, format=kind, dpi=DPI, metadata=metadata)
    return out


def style_axes(axes: Axes, colours: Mapping[str, str]) -> None:
    """Set the colours of axes, and draw horizontal grid lines."""
    axes.set_facecolor(colours["ground"])
    axes.tick_params(colors=colours["faint"], labelsize=9, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(colours["faint"])
    axes.grid(axis="y", color=colours["faint"], alpha=0.18, lw=0.8)
    axes.set_axisbelow(True)


Points = list[tuple[float, float]]

SMOOTHED_FROM = 40
"""From this number of losses on, a running mean is drawn over the single ones."""

LABEL_DISTANCE = 0.05
"""Smallest distance between two labels of the click curve, in mIoU."""


def plot_curves(records: Sequence[Mapping[str, Any]], out: Path | str, *, dark: bool = False) -> Path:
    """Draw the loss of every logged step and the mIoU of every validation, one above the other.

    Args:
        records: as `RunFolder.records` gives them: `{"kind": "train", "step": 50, "loss": 0.8}` and
            `{"kind": "val", "step": 50, "miou_object": 0.4}`; other keys are ignored. Of two records of one kind and
            step, as after a resumed run, the later one counts.
        out: a file ending in .png or .svg; written as a whole or not at all.
        dark: light text on a dark ground.

    Returns:
        `out` as a path.

    Raises:
        DataError: another ending.
        OutputError: the file cannot be written.
    """
    out = Path(out)
    kind, colours = picture_kind(out, "curves"), DARK if dark else LIGHT
    figure = new_figure((5.4, 4.6), colours)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.15))
    _draw_loss(top, _series(records, "train", "loss"), colours)
    _draw_miou(bottom, _series(records, "val", "miou_object"), colours)
    bottom.set_xlabel("step", color=colours["faint"])
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10]))
    bottom.set_xlim(left=0)
    for axes in (top, bottom):
        style_axes(axes, colours)
    figure.align_ylabels()
    return save_figure(figure, out, kind)


def _series(records: Sequence[Mapping[str, Any]], kind: str, key: str) -> Points:
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
        return _write_empty(axes, "no training step logged yet", colours)
    steps, losses = zip(*points, strict=True)
    smooth = len(points) >= SMOOTHED_FROM
    width, alpha = (0.8, 0.35) if smooth else (1.6, 1)
    marker = "o" if len(points) == 1 else None
    axes.plot(steps, losses, color=colours["line"], lw=width, alpha=alpha, marker=marker)
    if smooth:
        axes.plot(steps, _running_mean(losses, len(losses) // 20), color=colours["line"], lw=1.8)
    axes.set_ylim(bottom=0 if min(losses) >= 0 else None)


def _draw_miou(axes: Axes, points: Points, colours: Mapping[str, str]) -> None:
    axes.set_title("validation mIoU", loc="left", fontsize=10, color=colours["text"])
    if not points:
        return _write_empty(axes, "no validation yet", colours)
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, color=colours["line"], lw=1.6, marker="o", ms=3.5, clip_on=False, zorder=3)
    step, best = max(points, key=lambda point: (point[1], -point[0]))
    axes.plot([step], [best], marker="o", ms=7, mfc="none", mec=colours["best"], mew=1.6, clip_on=False, zorder=4)
    axes.set_ylim(0, 1)
    label = f"best {best:.3f} at step {step:.0f}"
    axes.text(1, 1.03, label, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=colours["best"])


def _write_empty(axes: Axes, text: str, colours: Mapping[str, str]) -> None:
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=colours["faint"])


def _running_mean(values: Sequence[float], half: int) -> list[float]:
    """Return the mean over `half` neighbours on each side, fewer at the ends: it neither lags nor shortens."""
    windows = [values[max(i - half, 0) : i + half + 1] for i in range(len(values))]
    return [math.fsum(window) / len(window) for window in windows]


def plot_click_curve(
    curves: Mapping[str, Sequence[float]], out: Path | str, *, targets: Sequence[float] = (), title: str
) -> Path:
    """Draw the mIoU after 1, 2, 3 … clicks, one line per model, each named at its end.

    Args:
        curves: name -> mIoU after each number of clicks; the second line is faint and dashed.
        out: a file ending in .png or .svg; written as a whole or not at all.
        targets: IoUs to be marked, such as those of NoC.
        title: above the plot.

    Returns:
        `out` as a path.

    Raises:
        DataError: there is nothing to draw, or another ending.
        OutputError: the file cannot be written.
    """
    out = Path(out)
    kind = picture_kind(out, "a click curve")
    if not curves or not all(curves.values()):
        raise DataError("a click curve needs a score for at least one number of clicks")
    figure = new_figure((5.4, 3.4), LIGHT)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10, color=LIGHT["text"])
    for target in targets:
        axes.axhline(target, color=LIGHT["faint"], lw=0.8, ls=(0, (1, 3)), zorder=1)
    looks = [(LIGHT["line"], "-"), (LIGHT["faint"], (0, (5, 3))), (LIGHT["best"], "-")]
    heights = _spread([curve[-1] for curve in curves.values()])
    for number, ((name, curve), height) in enumerate(zip(curves.items(), heights, strict=True)):
        colour, dashes = looks[number % len(looks)]
        axes.plot(range(1, len(curve) + 1), curve, color=colour, lw=1.6, ls=dashes, marker="o", ms=3.2, zorder=3)
        axes.annotate(
            f"{name} {curve[-1]:.3f}",
            (len(curve), height),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )
    most = max(len(curve) for curve in curves.values())
    tick = 1 if most <= 10 else 5 if most <= 50 else 10
    axes.set_ylim(0, 1)
    axes.set_xlim(0.5, most + 0.5)
    axes.set_xticks(sorted({1, *range(tick, most + 1, tick)}))
    axes.set_xlabel("clicks", color=LIGHT["faint"])
    style_axes(axes, LIGHT)
    return save_figure(figure, out, kind)


def _spread(heights: Sequence[float]) -> list[float]:
    """Move labels up so that no two overlap, keeping their order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for lower, upper in pairwise(order):
        placed[upper] = max(placed[upper], placed[lower] + LABEL_DISTANCE)
    return placed
