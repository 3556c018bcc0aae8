"""How our plots look: two grounds, few colours, files that are equal where the data are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simmat.errors import DataError
from simmat.files import atomic_path

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
