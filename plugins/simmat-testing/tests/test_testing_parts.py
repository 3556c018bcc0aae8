"""The contracts of result formats, losses and metrics: each rule fails for what breaks it, and for nothing good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from simmat_testing.checks import PartCase, run_check
from simmat_testing.find_parts import LOSS_CHECKS, METRIC_CHECKS, RESULT_FORMAT_CHECKS
from torch import Tensor

from simmat.inference import ImageResult
from simmat.nn.losses import Batch, Loss, Outputs
from simmat.plugin_specs import LossSpec, MetricResult, MetricSpec, ResultFormat
from simmat.plugins.builtin import LOSSES, METRICS, RESULT_FORMATS

ENDINGS = ("_count.txt", "_{kind}.txt")


def write_good(result: ImageResult, folder: Path) -> str:
    (folder / f"{result.name}_count.txt").write_text("2")
    return f"{result.name}_count.txt"


def write_undeclared(result: ImageResult, folder: Path) -> str:
    (folder / "other.txt").write_text("2")
    return "other.txt"


def write_two(result: ImageResult, folder: Path) -> str:
    (folder / "other.txt").write_text("2")
    return write_good(result, folder)


@pytest.mark.parametrize(
    ("writer", "status"),
    [(write_good, "ok"), (write_undeclared, "failed"), (write_two, "failed")],
)
def test_a_format_writes_the_one_file_that_it_declares(
    writer: Callable[..., str], status: str, tmp_path: Path
) -> None:
    """What a format leaves beside its file, or names in its own way, is in the way of the next call."""
    spec = ResultFormat(
        "count", "number of objects", f"{__name__}:{writer.__name__}", ENDINGS
    )
    result = run_check(
        RESULT_FORMAT_CHECKS["format-writes-what-it-declares"],
        PartCase(spec, tmp_path),
    )
    assert result.status == status, result.why


class Certainty(Loss):
    """The mean size of the logits; what is wrong stands in `fault`."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        each = outputs.masks[0].logits.square().flatten(1).mean(1)
        if self.fault == "shape":
            return {"loss": each}
        if self.fault == "detached":
            return {"loss": each.mean().detach()}
        if self.fault == "infinite":
            return {"loss": each.mean() / 0}
        if self.fault == "term":
            return {"loss": each.mean(), "size": each.mean()}
        return {"loss": each.mean(), "size": each.mean().detach()}


FAULTS = ("shape", "detached", "infinite", "term")
for fault in ("good", *FAULTS):
    globals()[f"build_{fault}"] = lambda data, fault=fault: Certainty(fault)


@pytest.mark.parametrize("fault", ["good", *FAULTS])
def test_a_loss_must_be_a_scalar_that_trains(fault: str, tmp_path: Path) -> None:
    """What nothing can be trained with is found before a training."""
    spec = LossSpec("certainty", "size of the logits", f"{__name__}:build_{fault}")
    result = run_check(
        LOSS_CHECKS["loss-reaches-the-network"], PartCase(spec, tmp_path)
    )
    assert result.status == ("ok" if fault == "good" else "failed"), result.why


def count(*given: Any) -> float:
    return 1.0


def divide(mask: Any, truth: Any, scored: Any) -> float:
    return float(truth.crop.sum() / mask.area)


def nan(*given: Any) -> float:
    return float("nan")


def draw(*given: Any) -> float:
    return float(torch.rand(()))


def clear(mask: Any, truth: Any, scored: Any) -> float:
    figure = float(scored.sum())
    scored[:] = False
    return figure


@pytest.mark.parametrize(
    ("check", "function", "status"),
    [
        ("metric-scores-every-result", count, "ok"),
        ("metric-scores-every-result", divide, "failed"),
        ("metric-scores-every-result", nan, "failed"),
        ("metric-leaves-its-input-alone", count, "ok"),
        ("metric-leaves-its-input-alone", draw, "failed"),
        ("metric-leaves-its-input-alone", clear, "failed"),
    ],
)
def test_a_metric_gives_a_figure_of_anything_and_the_same_again(
    check: str, function: Callable[..., float], status: str, tmp_path: Path
) -> None:
    """An empty mask at the end of an evaluation must not end it."""
    spec = MetricSpec("figure", "a figure", f"{__name__}:{function.__name__}")
    result = run_check(METRIC_CHECKS[check], PartCase(spec, tmp_path))
    assert result.status == status, result.why


@pytest.mark.parametrize("result", ["objects", "classes"])
def test_a_metric_of_what_is_found_without_prompts_gets_that(
    result: MetricResult, tmp_path: Path
) -> None:
    """A list of images, or the pixels by class."""
    spec = MetricSpec("number", "number of parts", "builtins:len", result)
    for check in METRIC_CHECKS.values():
        assert run_check(check, PartCase(spec, tmp_path)).status == "ok"


@pytest.mark.parametrize(
    "spec", [*RESULT_FORMATS, *LOSSES, *METRICS], ids=lambda spec: spec.name
)
def test_our_own_formats_losses_and_metrics_keep_their_contract(
    spec: Any, tmp_path: Path
) -> None:
    """The rules are those that our own parts keep."""
    checks = METRIC_CHECKS
    if isinstance(spec, ResultFormat):
        checks = RESULT_FORMAT_CHECKS
    elif isinstance(spec, LossSpec):
        checks = LOSS_CHECKS
    for check in checks.values():
        result = run_check(check, PartCase(spec, tmp_path))
        assert result.status != "failed", result.why
