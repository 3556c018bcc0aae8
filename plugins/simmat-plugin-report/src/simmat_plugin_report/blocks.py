"""Parts shared by the page of one run and the page of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Plot

from simmat_plugin_report.curves import curves_figure
from simmat_plugin_report.documents import Analysis
from simmat_plugin_report.figures import figure_bytes
from simmat_plugin_report.object_scores import Objects, common, miou
from simmat_plugin_report.page import Block, Figure, Text
from simmat_plugin_report.plots import BINS, calibration_figure
from simmat_plugin_report.run_view import RunView


def both(draw: Callable[[bool], Plot], alt: str, caption: str = "") -> Figure:
    """Draw a plot for a light page and for a dark one."""
    light, dark = (figure_bytes(draw(dark), "png") for dark in (False, True))
    return Figure(light, alt, caption, dark)


def curves(runs: Mapping[str, RunView]) -> Figure:
    """Draw the curves of runs, with the zero-shot scores of their validation splits."""
    zero = [
        miou(found.zero_shot)
        for run in runs.values()
        for found in (run.trained, *run.analyses)
        if found
        and found.zero_shot
        and run.is_own(found)
        and len(common(found.scores, found.zero_shot)) == len(found.scores)
    ]
    logs = {name: run.records for name, run in runs.items()}
    return both(
        lambda dark: curves_figure(logs, zero_shot=zero, dark=dark), "Training loss and validation mIoU by step"
    )


def calibration(models: Mapping[str, Objects]) -> Iterator[Block]:
    """Yield the calibration plot, true IoU by predicted IoU, and its summary."""
    points = {
        name: (np.asarray([s.predicted_iou for s in scores]), np.asarray([s.iou for s in scores]))
        for name, scores in models.items()
        if scores
    }
    if not points:
        return
    yield both(
        lambda dark: calibration_figure(points, dark=dark),
        f"True IoU by predicted IoU, in {BINS} bins",
        "On the dashed line the predicted IoU is correct; above it, masks are better than predicted. Larger dots are "
        "more objects.",
    )
    for name, (predicted, true) in points.items():
        bias = float(np.mean(predicted - true))
        way = "too high" if bias > 0 else "too low"
        start = f"{name}: the" if len(points) > 1 else "The"
        yield Text(f"{start} predicted IoU is {abs(bias):.3f} {way} on average.", faint=True)


def place_of(found: Analysis) -> str:
    """Describe the scored images: "40 images of the val split of set"."""
    some = "" if found.images == found.available else f" of {found.available}, spread evenly,"
    return f"{counted(found.images, 'image')}{some} of the {found.split} split of {Path(found.data).name}"


def setting(value: Any) -> str:
    """Return the value of a setting as text."""
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {setting(item)}" for key, item in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def counted(number: int, what: str) -> str:
    """Return a number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Return a duration as text, in a suitable unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
