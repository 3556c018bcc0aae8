"""The page of several runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from simmat_plugin_report.compare_page import untuned_models
from simmat_plugin_report.documents import Analysis

from simmat.evaluation import ObjectScore


def analysis(*zero_shot: float) -> Analysis:
    """Two objects, of which some were scored by the untuned model."""

    def scores(*ious: float) -> tuple[ObjectScore, ...]:
        numbers: dict[str, Any] = {
            "iou_best_predicted": None,
            "iou_oracle": None,
            "predicted_iou": 0.5,
        }
        return tuple(
            ObjectScore(
                sample=f"s{place}",
                region=0,
                class_id=None,
                area=9,
                click_xy=(0.0, 0.0),
                iou=iou,
                **numbers,
            )
            for place, iou in enumerate(ious)
        )

    return Analysis(
        data="d",
        split="val",
        images=2,
        available=2,
        protocol="one-click",
        scores=scores(0.5, 0.6),
        zero_shot=scores(*zero_shot) or None,
    )


def untuned(runs: dict[str, tuple[str, int, Analysis]]) -> dict[str, list[float]]:
    """Name of each row -> its IoUs, of runs of a foundation model at an input size."""
    views: Any = {
        name: SimpleNamespace(
            spec=SimpleNamespace(
                foundation=model,
                foundation_sha256=model,
                modality="gray",
                selected_channels=None,
                image_size=size,
            )
        )
        for name, (model, size, _) in runs.items()
    }
    rows = untuned_models(views, {name: found for name, (*_, found) in runs.items()})
    return {name: [score.iou for score in scores] for name, scores in rows.items()}


def test_each_different_untuned_model_has_a_row() -> None:
    """One of another foundation model or input is no reference; one scored on some objects does not compare."""
    lite, sam, some = analysis(0.1, 0.2), analysis(0.3, 0.4), analysis(0.9)
    assert untuned({"a": ("lite", 64, lite), "b": ("lite", 64, lite)}) == {
        "zero-shot of lite, as in a": [0.1, 0.2]
    }
    assert untuned({"a": ("lite", 64, some)}) == {}
    found = untuned(
        {
            "a": ("lite", 64, some),
            "b": ("lite", 64, lite),
            "c": ("sam", 64, sam),
            "d": ("lite", 96, sam),
        }
    )
    assert list(found.values()) == [[0.1, 0.2], [0.3, 0.4], [0.3, 0.4]]
    assert len({name.split(",")[0] for name in found}) == 2
