"""The curves of a training run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simmat.errors import DataError
from simmat.report.curves import plot_curves

TRAIN = [{"kind": "train", "step": step, "loss": 2 / (1 + step), "lr": 1e-3} for step in range(1, 60)]
VAL = [{"kind": "val", "step": step, "miou_object": 0.5 + step / 200} for step in (20, 40)]


def svg(path: Path, records: list[dict[str, object]]) -> str:
    return plot_curves(records, path / "curves.svg").read_text()


def test_curves_come_as_a_picture_one_can_open(tmp_path: Path) -> None:
    """The run folder's curves.png must be a real PNG, and nothing else may lie beside it."""
    out = plot_curves([*TRAIN, *VAL], tmp_path / "run" / "curves.png")
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
    assert [file.name for file in out.parent.iterdir()] == ["curves.png"]


def test_the_best_validation_is_written(tmp_path: Path) -> None:
    """A reader wants the figure, not to measure it off the axis."""
    text = svg(tmp_path, [*TRAIN, *VAL, {"kind": "val", "step": 60, "miou_object": 0.6}])
    assert "best 0.700 at step 40" in text


@pytest.mark.parametrize("records", [[], TRAIN[:1], VAL[:1]])
def test_a_run_that_only_began_is_drawn(tmp_path: Path, records: list[dict[str, object]]) -> None:
    """Training draws after its first validation, and a run stopped at once has no record at all."""
    text = svg(tmp_path, records)
    assert ("no training step logged yet" in text) == (not any(r["kind"] == "train" for r in records))
    assert ("no validation yet" in text) == (not any(r["kind"] == "val" for r in records))


def test_a_resumed_run_counts_each_step_once(tmp_path: Path) -> None:
    """Steps logged before a kill and again after it must not fold the curve back."""
    again = [{"kind": "val", "step": 40, "miou_object": 0.55}]
    assert svg(tmp_path, [*VAL, *again]) == svg(tmp_path, [VAL[0], *again])


def test_a_loss_that_is_no_number_does_not_break_the_picture(tmp_path: Path) -> None:
    """The picture is wanted most when a run went wrong."""
    broken = [*TRAIN, {"kind": "train", "step": 60, "loss": math.nan}, {"kind": "train", "step": 61, "loss": math.inf}]
    assert svg(tmp_path, [*broken, *VAL]) == svg(tmp_path, [*TRAIN, *VAL])


def test_equal_records_give_equal_files(tmp_path: Path) -> None:
    """No date and no random id, so that a page made twice is the same page."""
    first = plot_curves([*TRAIN, *VAL], tmp_path / "a.svg").read_bytes()
    assert plot_curves([*TRAIN, *VAL], tmp_path / "b.svg").read_bytes() == first


def test_the_dark_picture_is_dark(tmp_path: Path) -> None:
    """On a dark page a white picture dazzles."""
    light, dark = (
        np.asarray(Image.open(plot_curves(VAL, tmp_path / f"{name}.png", dark=name == "dark")).convert("L")).mean()
        for name in ("light", "dark")
    )
    assert light > 200 > 60 > dark


def test_another_ending_is_refused(tmp_path: Path) -> None:
    """The name says what the file is."""
    with pytest.raises(DataError, match=r"\.png or \.svg"):
        plot_curves(VAL, tmp_path / "curves.jpg")
