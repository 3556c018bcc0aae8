"""Plots of a report: calibration of the predicted IoU, and importance of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from simmat_plugin_report.figures import DARK, LIGHT, legend_below, line_style, new_figure, plain, style_axes

BINS = 10
"""Number of bins of the predicted IoU."""

Floats = npt.NDArray[np.float64]


def calibration_bins(predicted: Floats, iou: Floats) -> list[tuple[float, float, int]]:
    """Return (mean predicted IoU, mean IoU, number of objects) of each bin that has objects.

    Args:
        predicted: (N,) predicted IoU, 0..1.
        iou: (N,) true IoU.
    """
    place = np.minimum((predicted.clip(0, 1) * BINS).astype(np.int64), BINS - 1)
    return [
        (float(predicted[place == one].mean()), float(iou[place == one].mean()), int(np.count_nonzero(place == one)))
        for one in range(BINS)
        if (place == one).any()
    ]


def calibration_figure(models: Mapping[str, tuple[Floats, Floats]], *, dark: bool = False) -> Figure:
    """Draw the mean true IoU against the predicted IoU, in bins; a calibrated model is on the diagonal.

    Args:
        models: name -> (N,) predicted and (N,) true IoU.
        dark: light text on a dark background.
    """
    colours = DARK if dark else LIGHT
    figure = new_figure((5.4, 4.2 + 0.2 * len(models)), colours)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=colours["faint"], lw=1, ls=(0, (5, 3)), zorder=1)
    for place, (name, (predicted, iou)) in enumerate(models.items()):
        look: dict[str, Any] = line_style(place, dark=dark)
        bins = calibration_bins(predicted, iou)
        if len(models) == 1:
            axes.plot(predicted.clip(0, 1), iou, "o", ms=4, alpha=0.3, color=look["color"], mew=0, zorder=2)
        x, y, count = zip(*bins, strict=True)
        error = float(np.abs(predicted - iou).mean())
        axes.plot(x, y, lw=1.6, zorder=3, label=plain(f"{name}: off by {error:.3f} on average"), **look)
        areas = 18 + 160 * np.sqrt(np.asarray(count) / max(count))
        axes.scatter(x, y, s=areas, color=look["color"], alpha=0.85, zorder=4, linewidths=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("predicted IoU", color=colours["faint"])
    axes.set_ylabel("true IoU", color=colours["faint"])
    style_axes(axes, colours)
    legend_below(figure, axes, colours)
    return figure


def channels_figure(worth: Sequence[tuple[str, float, tuple[float, float] | None]], *, dark: bool = False) -> Figure:
    """Draw the change of the score without each channel, as bars with 95 % intervals.

    Args:
        worth: (name, change of mIoU, its interval or None).
        dark: light text on a dark background.
    """
    colours = DARK if dark else LIGHT
    figure = new_figure((5.4, 1.0 + 0.32 * len(worth)), colours)
    axes = figure.subplots()
    places = range(len(worth))
    colour = line_style(0, dark=dark)["color"]
    axes.barh(places, [change for _, change, _ in worth], color=colour, height=0.62, zorder=3)
    for place, (_, _, interval) in zip(places, worth, strict=True):
        if interval is not None:
            axes.plot(interval, [place, place], color=colours["text"], lw=1.2, zorder=4)
    axes.axvline(0, color=colours["faint"], lw=1)
    axes.set_yticks(places, [plain(name if len(name) < 26 else f"{name[:12]}…{name[-12:]}") for name, _, _ in worth])
    axes.set_ylim(len(worth) - 0.4, -0.6)
    axes.set_xlabel("change of mIoU without it", color=colours["faint"])
    style_axes(axes, colours)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=colours["faint"], alpha=0.18, lw=0.8)
    return figure
