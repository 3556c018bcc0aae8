"""The k-click curve: mIoU against the number of clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes

from simmat.errors import DataError
from simmat.report.plot_style import DARK, LIGHT, new_figure, picture_kind, save_figure, style_axes

SIZE_INCH = (5.4, 3.4)

_APART = 0.05
"""Least distance between two labels, in mIoU."""


def plot_click_curve(
    curves: Mapping[str, Sequence[float]],
    out: Path | str,
    *,
    targets: Sequence[float] = (),
    title: str = "mIoU by clicks",
    dark: bool = False,
) -> Path:
    """Draw the mIoU after 1, 2, 3 … clicks, one line a model, each named at its end.

    Args:
        curves: name -> mIoU after each number of clicks; the first is drawn in colour, a second one faint and broken.
        out: a file ending in .png or .svg; written whole or not at all.
        targets: IoUs to be marked, such as those of NoC.
        title: above the plot.
        dark: light text on a dark ground.

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
    colours = DARK if dark else LIGHT
    figure = new_figure(SIZE_INCH, colours)
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
