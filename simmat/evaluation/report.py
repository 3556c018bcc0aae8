"""Return the scores of a model as json values, with settings and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from simmat.errors import DataError
from simmat.evaluation.prompts import Protocol
from simmat.evaluation.scores import SIZES, Scores, as_row
from simmat.io.reading import read_json
from simmat.model import count_parameters
from simmat.predictor import Predictor
from simmat.threads import peak_memory_bytes

FORMAT = 1


class ScoreReport(dict[str, Any]):
    """Scores as json values, which `simmat eval --json` prints, and the scores of every object."""

    def __init__(
        self, values: Mapping[str, Any], tuned: Scores | None, untuned: Scores | None
    ) -> None:
        super().__init__(values)
        self._scores = {"tuned": tuned, "zero_shot": untuned}

    @property
    def objects(self) -> Any:
        """A row for each object and model, see `ObjectScore`: a pandas DataFrame if pandas is installed, else dicts.

        The column "model" is "tuned" or "zero_shot".
        """
        rows = []
        for name, scores in self._scores.items():
            if scores is None:
                continue
            for score in scores.objects:
                rows.append({"model": name, **as_row(score)})
        try:
            from pandas import DataFrame  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            return rows
        return DataFrame(rows)


def score_report(
    predictor: Predictor,
    data: Path,
    split: str,
    protocol: Protocol,
    tuned: Scores | None,
    untuned: Scores | None,
) -> ScoreReport:
    """Return the averages of a bundle's scores (`tuned`) and of the zero-shot model's (`untuned`); one may be None.

    Only `cost` differs from run to run. "seen" counts the images that the bundle knows, see `SeenImages`, and is None
    for a bundle that does not state it. "parameters" is None for an exported model, which has none in torch. If masks
    without prompts were scored, they are the blocks "everything" and "semantic" of both; the zero-shot model has no
    class map, and None if it was not asked for every object.
    """
    spec = predictor.spec
    bundle = predictor.bundle
    seen = None
    if tuned is not None and tuned.seen is not None:
        seen = {
            "trained": len(tuned.seen.trained),
            "validated": len(tuned.seen.validated),
            "left_out": len(tuned.seen.left_out),
        }
    parameters = None
    if bundle is None or not bundle.spec.exported:
        trainable, total = count_parameters(predictor.model)
        parameters = {"trainable": trainable, "total": total}
    device = next(predictor.model.parameters()).device
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = peak_memory_bytes()
    summary = None if tuned is None else tuned.summary()
    zero = None if untuned is None else untuned.summary()
    if summary is not None and zero is not None:
        for block in ("everything", "semantic"):
            if block in summary:
                zero.setdefault(block, None)
    scored = tuned or untuned
    names = {}
    if scored is not None:
        names = {str(value): name for value, name in sorted(scored.class_names.items())}
    values = {
        "format": FORMAT,
        "bundle": None if bundle is None else str(bundle.path),
        "data": str(data),
        "split": split,
        "seen": seen,
        "modality": spec.modality,
        "foundation": spec.foundation,
        "mat": spec.mat,
        "tune": spec.tune,
        "image_size": spec.image_size,
        "protocol": asdict(protocol),
        "class_names": names,
        "sizes_px": {
            name: [low, high if math.isfinite(high) else None]
            for name, (low, high) in SIZES.items()
        },
        "parameters": parameters,
        "tuned": summary,
        "zero_shot": zero,
        "cost": {
            "device": str(device),
            "peak_memory_mib": round(memory / 2**20, 1),
            "tuned": None if tuned is None else _times(tuned),
            "zero_shot": None if untuned is None else _times(untuned),
        },
    }
    return ScoreReport(values, tuned, untuned)


def object_report(tuned: Scores, untuned: Scores | None) -> dict[str, Any]:
    """Return the scores of all objects as json values, see `ObjectScore`, and what was not scored."""
    return {
        "scores": [as_row(score) for score in tuned.objects],
        "zero_shot_scores": [as_row(score) for score in untuned.objects]
        if untuned is not None
        else None,
        "without_region": list(tuned.without_region),
        "left_out": [
            {"sample": sample, "region": region} for sample, region in tuned.left_out
        ],
        "seen_images": None if tuned.seen is None else asdict(tuned.seen),
    }


def is_score_report(path: Path) -> bool:
    """Return whether a file holds what `score_report` returned."""
    try:
        values = read_json(path)
    except DataError:
        return False
    return (
        isinstance(values, dict)
        and {"format", "protocol", "tuned", "zero_shot"} <= values.keys()
    )


def _times(scores: Scores) -> dict[str, float]:
    """Return the median milliseconds of all that was timed, see `Scores.seconds`."""
    return {
        f"{name}_ms": round(1000 * median(each), 2)
        for name, each in scores.seconds.items()
        if each
    }
