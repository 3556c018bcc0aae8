"""Plots of a report. A dark page inverts them, see `style.css`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simmat.types import is_finite_number

DPI = 160

COLOURS = {
    "ground": "#ffffff",
    "text": "#24292f",
    "faint": "#6b7280",
    "line": "#0072b2",
    "best": "#d55e00",
}

PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#56b4e9",
    "#7f3fbf",
    "#8c564b",
)
"""Colours of lines."""

DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (6, 2, 1, 2)),
)
"""Styles of lines; the next one is used when all colours are."""


def new_figure(size_inch: tuple[float, float]) -> Figure:
    """Return an empty figure that needs no display."""
    figure = Figure(
        figsize=size_inch, facecolor=COLOURS["ground"], layout="constrained"
    )
    FigureCanvasAgg(figure)
    return figure


def figure_bytes(figure: Figure) -> bytes:
    """Return a figure as a PNG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def style_axes(axes: Axes) -> None:
    """Set the colours of axes, and draw horizontal grid lines."""
    axes.set_facecolor(COLOURS["ground"])
    axes.tick_params(colors=COLOURS["faint"], labelsize=9, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(COLOURS["faint"])
    axes.grid(axis="y", color=COLOURS["faint"], alpha=0.18, lw=0.8)
    axes.set_axisbelow(True)


def line_style(index: int) -> dict[str, Any]:
    """Return colour and style of a line by its index."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "ls": DASHES[index // len(PALETTE) % len(DASHES)],
    }


def legend_below(figure: Figure, panels: Iterable[Axes], columns: int) -> None:
    """Draw a legend of all panels below a figure, each name once."""
    found = {
        label: handle
        for one in panels
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True)
    }
    legend = figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower left",
        ncols=columns,
        fontsize=8.5,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_color(COLOURS["text"])


def plain(text: str) -> str:
    """Escape a text for matplotlib: no mathematics and no control characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.replace("$", r"\$").lstrip("_") or "?"


Points = list[tuple[float, float]]

SMOOTHED_FROM = 40
"""Least number of losses over which a running mean is drawn."""

Records = Sequence[Mapping[str, Any]]
"""The log of a run, as `RunFolder.records` gives it: `{"kind": "train", "step": 50, "loss": 0.8}` and
`{"kind": "val", "step": 50, "miou_object": 0.4}`, with "score" if it chose the best step; other keys are ignored.

For two records of the same kind and step, as in a resumed run, the later one counts.
"""


def curves_figure(
    runs: Mapping[str, Records], *, zero_shot: Sequence[float] = ()
) -> Figure:
    """Draw the loss of every logged step and the mIoU of every validation, one above the other.

    Args:
        runs: name -> log; several are drawn in one plot, with a legend.
        zero_shot: mIoU of the untuned models, drawn as dashed lines.
    """
    several = len(runs) > 1
    figure = new_figure((5.4, 4.6 + 0.2 * len(runs) * several))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.15))
    looks = [line_style(place) for place in range(len(runs))]
    top.set_title("training loss", loc="left", fontsize=10, color=COLOURS["text"])
    _draw_losses(
        top, [_series(records, "train", "loss") for records in runs.values()], looks
    )
    lines = list(dict.fromkeys(zero_shot))
    for value in lines:
        bottom.axhline(value, color=COLOURS["faint"], lw=1.3, ls=(0, (5, 3)), zorder=2)
    title = "validation mIoU" + (
        f"; dashed: zero-shot {', '.join(f'{value:.3f}' for value in lines)}"
        * bool(lines)
    )
    bottom.set_title(title, loc="left", fontsize=10, color=COLOURS["text"])
    _draw_scores(bottom, runs, looks)
    bottom.set_xlabel("step", color=COLOURS["faint"])
    bottom.xaxis.set_major_locator(
        MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10])
    )
    bottom.set_xlim(left=0)
    for axes in (top, bottom):
        style_axes(axes)
    figure.align_ylabels()
    if several:
        legend_below(figure, [bottom], 1)  # names of runs are long
    return figure


def _series(records: Records, kind: str, key: str) -> Points:
    """Return the finite (step, value) pairs of records of one kind, in the order of steps."""
    found = {
        float(record["step"]): float(record[key])
        for record in records
        if record.get("kind") == kind and is_finite_number(record.get(key))
    }
    return sorted(found.items())


def _draw_losses(
    axes: Axes, runs: Sequence[Points], looks: Sequence[Mapping[str, Any]]
) -> None:
    if not any(runs):
        return _write_empty(axes, "no training step logged yet")
    for points, look in zip(runs, looks, strict=True):
        if not points:
            continue
        steps, losses = zip(*points, strict=True)
        smooth = len(points) >= SMOOTHED_FROM
        width, alpha = (0.8, 0.35 if len(runs) == 1 else 0.15) if smooth else (1.6, 1)
        axes.plot(
            steps,
            losses,
            lw=width,
            alpha=alpha,
            marker="o" if len(points) == 1 else None,
            **look,
        )
        if smooth:
            # neighbours on each side in the running mean, fewer at the ends
            half = len(losses) // 20
            means = [
                fmean(losses[max(i - half, 0) : i + half + 1])
                for i in range(len(losses))
            ]
            axes.plot(steps, means, lw=1.8, **look)
    axes.set_ylim(
        bottom=0 if all(loss >= 0 for points in runs for _, loss in points) else None
    )


def _draw_scores(
    axes: Axes, runs: Mapping[str, Records], looks: Sequence[Mapping[str, Any]]
) -> None:
    every = [_series(records, "val", "miou_object") for records in runs.values()]
    if not any(every):
        return _write_empty(axes, "no validation yet")
    for (name, records), points, look in zip(runs.items(), every, looks, strict=True):
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        # with a dense head
        chosen_by = dict(points) | dict(_series(records, "val", "score"))
        step, best = max(points, key=lambda point: (chosen_by[point[0]], -point[0]))
        mark = COLOURS["best"] if len(runs) == 1 else look["color"]
        label = plain(f"{name}: best {best:.3f} at step {step:.0f}")
        axes.plot(
            steps,
            values,
            lw=1.6,
            marker="o",
            ms=3.5,
            clip_on=False,
            zorder=3,
            label=label,
            **look,
        )
        axes.plot(
            [step],
            [best],
            marker="o",
            ms=7,
            mfc="none",
            mec=mark,
            mew=1.6,
            clip_on=False,
            zorder=4,
        )
        if len(runs) == 1:
            axes.text(
                1, 1.03, f"best {best:.3f} at step {step:.0f}", transform=axes.transAxes, ha="right", va="bottom",
                fontsize=9, color=mark,
            )  # fmt: skip
    axes.set_ylim(0, 1)


def _write_empty(axes: Axes, text: str) -> None:
    axes.set_yticks([])
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=COLOURS["faint"],
    )
