"""What more labels would bring, by the trainings of a folder, as a document for the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from simmat.errors import SimMATError

_POINTS = 40
"""Points of the curve."""
_NO_TRAINING = (
    "A forecast comes with the second training, if it has more labels than the first."
)


def forecast_document(root: Path) -> dict[str, Any]:
    """Return what `simmat forecast` says of the newest training of a folder and those of the same network.

    Returns:
        "left_out": why trainings are not used. "message": why there is no forecast, "" if there is one. Then "labels":
        training images of the newest model; "rows": what more bring; "enough": training images from which on `step`
        more bring less than `gain`, or null; "curve": (images, low, median, high) of mIoU; "scores": (images, mIoU).
    """
    from simmat_plugin_report.commands import GAIN, MORE
    from simmat_plugin_report.forecast import (
        forecast_runs,
        readable_runs,
        runs_like_newest,
    )

    found, reasons = readable_runs(root)
    left_out = [reason.removeprefix(f"{root}{os.sep}") for reason in reasons]
    if not found:
        return {"message": _NO_TRAINING, "left_out": left_out}
    runs = runs_like_newest(found)
    others = len(found) - len(runs)
    if others:
        left_out.append(f"{others} of another network or image size")
    try:
        forecast, curves = forecast_runs(runs, MORE, GAIN)
    except SimMATError as error:
        message = str(error).removeprefix(f"{root}{os.sep}")
        return {"message": message[:1].upper() + message[1:], "left_out": left_out}
    first = min(labels for labels, _, _ in forecast.scores)
    last = forecast.rows[-1].labels
    curve = []
    for labels in np.geomspace(max(first, 1), last, _POINTS).tolist():
        estimate = curves["iou"].error_at(labels)
        points = [labels, 1 - estimate.high, 1 - estimate.median, 1 - estimate.low]
        curve.append([round(value, 4) for value in points])
    document = forecast.model_dump(
        mode="json", include={"labels", "rows", "enough", "gain", "step", "most"}
    )
    return {
        **document,
        "message": "",
        "left_out": left_out,
        "curve": curve,
        "scores": [[labels, round(miou, 4)] for labels, miou, _ in forecast.scores],
    }
