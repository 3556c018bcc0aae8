"""Matplotlib figures in the style of SimMAT: colours for light and dark backgrounds, axes, legends, files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simmat.io.files import atomic_write_bytes

DPI = 160

LIGHT = {"ground": "#ffffff", "text": "#24292f", "faint": "#6b7280", "line": "#0072b2", "best": "#d55e00"}
DARK = {"ground": "#101216", "text": "#e6e8ec", "faint": "#9aa1ad", "line": "#56b4e9", "best": "#e69f00"}

PALETTES = (
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f3fbf", "#8c564b"),
    ("#56b4e9", "#e69f00", "#2fd1a3", "#e59bc4", "#f0e442", "#8fd3ff", "#b794f6", "#d2a48c"),
)
"""Colours of lines on a light and on a dark background."""

DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
"""Styles of lines; the next one is used when all colours are."""


def new_figure(size_inch: tuple[float, float], colours: Mapping[str, str]) -> Figure:
    """Return an empty figure that needs no display."""
    figure = Figure(figsize=size_inch, facecolor=colours["ground"], layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure_bytes(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """Return a figure as a file; equal figures give equal bytes."""
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "simmat"}):  # without a salt, the ids in an SVG are random
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def save_figure(figure: Figure, out: Path, kind: Literal["png", "svg"]) -> Path:
    """Write a figure completely or not at all, see `figure_bytes`.

    Raises:
        OutputError: the file cannot be written.
    """
    atomic_write_bytes(out, figure_bytes(figure, kind))
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


def line_style(index: int, *, dark: bool) -> dict[str, Any]:
    """Return colour and style of a line by its index."""
    palette = PALETTES[dark]
    return {"color": palette[index % len(palette)], "ls": DASHES[index // len(palette) % len(DASHES)]}


def legend_below(figure: Figure, axes: Axes, colours: Mapping[str, str]) -> None:
    """Draw a legend below a figure, one name per row, because names of runs are long."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower left", ncols=1, fontsize=8.5, frameon=False)
    for text in legend.get_texts():
        text.set_color(colours["text"])


def plain(text: str) -> str:
    """Escape a text for matplotlib: no mathematics and no control characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.replace("$", r"\$").lstrip("_") or "?"
