"""The curve of mIoU by clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from simmat.errors import DataError
from simmat_plugin_report.figures import LIGHT, line_style, new_figure, plain, save_figure, style_axes

LABEL_DISTANCE = 0.05
"""Smallest distance between two labels of the click curve, in mIoU."""
_LONGEST = 40
"""Most characters of a name; longer names are cut at the beginning, to leave room for the curve."""


def picture_kind(out: Path) -> Literal["png", "svg"]:
    """Return the format that a file's ending names.

    Raises:
        DataError: the ending is neither .png nor .svg.
    """
    match out.suffix.lower():
        case ".png":
            return "png"
        case ".svg":
            return "svg"
    raise DataError(f"cannot draw a click curve as {out.name!r}; end the name in .png or .svg")


def plot_click_curve(
    curves: Mapping[str, Sequence[float]], out: Path | str, *, targets: Sequence[float] = (), title: str
) -> Path:
    """Draw the mIoU after 1, 2, 3 … clicks, one line per model, with its name at the end.

    Args:
        curves: name -> mIoU after each number of clicks; "zero-shot" is faint and dashed.
        out: a file ending in .png or .svg; written as a whole or not at all.
        targets: IoUs to mark, such as those of NoC.
        title: title of the plot.

    Returns:
        `out` as a path.

    Raises:
        DataError: there is nothing to draw, or the ending is not supported.
        OutputError: the file cannot be written.
    """
    out = Path(out)
    kind = picture_kind(out)
    if not curves or not all(curves.values()):
        raise DataError("a click curve needs a score for at least one number of clicks")
    figure = new_figure((5.4, 3.4), LIGHT)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10, color=LIGHT["text"])
    for target in targets:
        axes.axhline(target, color=LIGHT["faint"], lw=0.8, ls=(0, (1, 3)), zorder=1)
    heights = _spread([curve[-1] for curve in curves.values()])
    untuned: dict[str, Any] = {"color": LIGHT["faint"], "ls": (0, (5, 3))}
    for place, ((name, curve), height) in enumerate(zip(curves.items(), heights, strict=True)):
        style = untuned if name == "zero-shot" else line_style(place, dark=False)
        axes.plot(range(1, len(curve) + 1), curve, lw=1.6, marker="o", ms=3.2, zorder=3, **style)
        axes.annotate(
            plain(f"{name if len(name) <= _LONGEST else '…' + name[1 - _LONGEST :]} {curve[-1]:.3f}"),
            (len(curve), height),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=style["color"],
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
