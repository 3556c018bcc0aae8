"""The curves of a training run."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from PIL import Image
from simmat_plugin_report.plots import curves_figure, figure_bytes

TRAIN = [{"kind": "train", "step": step, "loss": 2 / (1 + step), "lr": 1e-3} for step in range(1, 60)]
VAL = [{"kind": "val", "step": step, "miou_object": 0.5 + step / 200} for step in (20, 40)]


def svg(records: list[dict[str, object]], **options: Any) -> str:
    return figure_bytes(curves_figure({"run": records}, **options), "svg").decode()


def png(records: list[dict[str, object]], **options: Any) -> bytes:
    return figure_bytes(curves_figure({"run": records}, **options), "png")


def test_curves_come_as_a_picture_one_can_open() -> None:
    """On the page of a run."""
    with Image.open(io.BytesIO(png([*TRAIN, *VAL]))) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600


def test_the_best_validation_is_written() -> None:
    """A reader wants the figure, not to measure it off the axis."""
    text = svg([*TRAIN, *VAL, {"kind": "val", "step": 60, "miou_object": 0.6}])
    assert "best 0.700 at step 40" in text


@pytest.mark.parametrize("records", [[], TRAIN[:1], VAL[:1]])
def test_a_run_of_few_steps_is_drawn(records: list[dict[str, object]]) -> None:
    """Training draws after its first validation, and a run stopped at once has no record at all."""
    text = svg(records)
    assert ("no training step logged yet" in text) == (not any(r["kind"] == "train" for r in records))
    assert ("no validation yet" in text) == (not any(r["kind"] == "val" for r in records))


def test_a_resumed_run_counts_each_step_once() -> None:
    """Steps logged before a kill and again after it must not fold the curve back."""
    again = [{"kind": "val", "step": 40, "miou_object": 0.55}]
    assert svg([*VAL, *again]) == svg([VAL[0], *again])


def test_a_loss_that_is_not_a_number_does_not_break_the_picture() -> None:
    """The picture is wanted most when a run went wrong."""
    broken = [*TRAIN, {"kind": "train", "step": 60, "loss": math.nan}, {"kind": "train", "step": 61, "loss": math.inf}]
    assert svg([*broken, *VAL]) == svg([*TRAIN, *VAL])


def test_equal_records_give_equal_files() -> None:
    """No date and no random id, so that a page made twice is the same page."""
    assert png([*TRAIN, *VAL]) == png([*TRAIN, *VAL])
    assert svg([*TRAIN, *VAL]) == svg([*TRAIN, *VAL])


def test_the_untuned_model_is_a_line() -> None:
    """Training is worth what it adds to it."""
    assert "zero-shot 0.412" in svg([*TRAIN, *VAL], zero_shot=[0.412])
    assert "zero-shot" not in svg([*TRAIN, *VAL], zero_shot=[None])


def test_several_runs_are_named() -> None:
    """Whatever their names hold: a dollar sign is no mathematics, and a line feed no second line."""
    names = ("a", "b $x_1$ <b>", "c\nd", "_hidden")
    text = figure_bytes(curves_figure({name: [*TRAIN, *VAL] for name in names}), "svg").decode()
    for name in ("a", "b $x_1$ &lt;b&gt;", "c?d", "hidden"):
        assert f"<!-- {name}: best" in text or f"{name}: best 0.700" in text
