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
    """Return the format a file's ending says.

    Args:
        out: the file.
        what: what is to be drawn, for the message.

    Raises:
        DataError: the ending is neither .png nor .svg.
    """
    kind = out.suffix.lower().removeprefix(".")
    if kind == "png":
        return "png"
    if kind == "svg":
        return "svg"
    raise DataError(f"cannot draw {what} as {out.name!r}; end the name in .png or .svg")


def save_figure(figure: Figure, out: Path, kind: Literal["png", "svg"]) -> Path:
    """Write a figure whole or not at all, the same bytes for the same drawing.

    Raises:
        OutputError: the file cannot be written.
    """
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    # Without a salt, ids in an SVG are random.
    with atomic_path(out) as temporary, matplotlib.rc_context({"svg.hashsalt": "simmat"}):
        figure.savefig(temporary, format=kind, dpi=DPI, metadata=metadata)
    return out


def style_axes(axes: Axes, colours: Mapping[str, str]) -> None:
    """Give axes our ground, faint ticks and spines, and horizontal lines to read values by."""
    axes.set_facecolor(colours["ground"])
    axes.tick_params(colors=colours["faint"], labelsize=9, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(colours["faint"])
    axes.grid(axis="y", color=colours["faint"], alpha=0.18, lw=0.8)
    axes.set_axisbelow(True)


Record = Mapping[str, Any]
Points = list[tuple[float, float]]

_LEARNING_INCH = (5.4, 4.6)
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
    figure = new_figure(_LEARNING_INCH, colours)
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


_CLICKS_INCH = (5.4, 3.4)

_APART = 0.05
"""Least distance between two labels, in mIoU."""


def plot_click_curve(
    curves: Mapping[str, Sequence[float]],
    out: Path | str,
    *,
    targets: Sequence[float] = (),
    title: str = "mIoU by clicks",
) -> Path:
    """Draw the mIoU after 1, 2, 3 … clicks, one line a model, each named at its end.

    Args:
        curves: name -> mIoU after each number of clicks; the first is drawn in colour, a second one faint and broken.
        out: a file ending in .png or .svg; written whole or not at all.
        targets: IoUs to be marked, such as those of NoC.
        title: above the plot.

    Returns:
        `out` as a path.

    Raises:
        DataError: there is nothing to draw, or the ending is another.
        OutputError: the file cannot be written.
    """
    out = Path(out)
    kind = picture_kind(out, "a click curve")
    if not curves or not all(curves.values()):
        raise DataError("a click curve needs a score for at least one number of clicks")
    colours = LIGHT
    figure = new_figure(_CLICKS_INCH, colours)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10, color=colours["text"])
    for target in targets:
        axes.axhline(target, color=colours["faint"], lw=0.8, ls=(0, (1, 3)), zorder=1)
    _draw(axes, curves, colours)
    most = max(len(curve) for curve in curves.values())
    axes.set_ylim(0, 1)
    axes.set_xlim(0.5, most + 0.5)
    axes.set_xticks(sorted({1, *range(_tick_step(most), most + 1, _tick_step(most))}))
    axes.set_xlabel("clicks", color=colours["faint"])
    style_axes(axes, colours)
    return save_figure(figure, out, kind)


def _draw(axes: Axes, curves: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> None:
    looks = [(colours["line"], "-"), (colours["faint"], (0, (5, 3))), (colours["best"], "-")]
    heights = _apart([curve[-1] for curve in curves.values()])
    for number, ((name, curve), height) in enumerate(zip(curves.items(), heights, strict=True)):
        colour, dashes = looks[number % len(looks)]
        clicks = range(1, len(curve) + 1)
        axes.plot(clicks, curve, color=colour, lw=1.6, ls=dashes, marker="o", ms=3.2, zorder=3)
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


def _tick_step(most: int) -> int:
    return 1 if most <= 10 else 5 if most <= 50 else 10


def _apart(heights: Sequence[float]) -> list[float]:
    """Move labels up or down so that no two overlap, keeping their order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for lower, upper in pairwise(order):
        placed[upper] = max(placed[upper], placed[lower] + _APART)
    return placed
