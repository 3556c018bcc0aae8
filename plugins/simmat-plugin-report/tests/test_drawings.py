"""The curves of a training run, and pictures of predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from simmat_plugin_report.pictures import (
    FALSE_ALARM,
    HIT,
    MISS,
    describe_display,
    draw_comparison,
)
from simmat_plugin_report.plots import curves_figure, figure_bytes

from simmat.types import Channel

TRAIN = [
    {"kind": "train", "step": step, "loss": 2 / (1 + step), "lr": 1e-3}
    for step in range(1, 60)
]
VAL = [
    {"kind": "val", "step": step, "miou_object": 0.5 + step / 200} for step in (20, 40)
]


def written(runs: dict[str, list[dict[str, object]]], **options: Any) -> str:
    """All texts of a figure that can be drawn."""
    figure = curves_figure(runs, **options)
    assert figure_bytes(figure)
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def png(records: list[dict[str, object]]) -> bytes:
    return figure_bytes(curves_figure({"run": records}))


@pytest.mark.parametrize("records", [[], TRAIN[:1], VAL[:1]])
def test_a_run_of_few_steps_is_drawn(records: list[dict[str, object]]) -> None:
    """Training draws after its first validation, and a run stopped at once has no record at all."""
    text = written({"run": records})
    assert ("no training step logged yet" in text) == (
        not any(r["kind"] == "train" for r in records)
    )
    assert ("no validation yet" in text) == (
        not any(r["kind"] == "val" for r in records)
    )


def test_a_resumed_run_counts_each_step_once() -> None:
    """Steps logged before a kill and again after it must not fold the curve back."""
    again = [{"kind": "val", "step": 40, "miou_object": 0.55}]
    assert png([*VAL, *again]) == png([VAL[0], *again])


def test_a_loss_that_is_not_a_number_does_not_break_the_picture() -> None:
    """The picture is wanted most when a run went wrong."""
    broken = [
        *TRAIN,
        {"kind": "train", "step": 60, "loss": math.nan},
        {"kind": "train", "step": 61, "loss": math.inf},
    ]
    assert png([*broken, *VAL]) == png([*TRAIN, *VAL])


def test_the_untuned_model_is_a_line() -> None:
    """Training is worth what its best validation adds to it."""
    run = {"run": [*TRAIN, *VAL, {"kind": "val", "step": 60, "miou_object": 0.6}]}
    text = written(run, zero_shot=[0.412])
    assert "zero-shot 0.412" in text
    assert "best 0.700 at step 40" in text
    assert "zero-shot" not in written(run)


def test_several_runs_are_named() -> None:
    """Whatever their names hold: a dollar sign is no mathematics, and a line feed no second line."""
    text = written(
        {name: [*TRAIN, *VAL] for name in ("a", "b $x_1$ <b>", "c\nd", "_hidden")}
    )
    for name in ("a", r"b \$x_1\$ <b>", "c?d", "hidden"):
        assert f"\n{name}: best 0.700" in text


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 100, dtype=np.uint8)


def square(height: int, width: int, y0: int, x0: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


def test_the_comparison_colours_hit_miss_and_false_alarm() -> None:
    """The three must be told apart, and everything else must be grey so that the colours mean something."""
    picture = grey(600, 600)
    picture[...] = (200, 60, 20)
    truth, found = square(600, 600, 100, 100, 200), square(600, 600, 200, 200, 200)
    drawn = np.asarray(draw_comparison(picture, truth, found))
    ground = drawn[50, 50]
    assert ground[0] == ground[1] == ground[2]
    for at, colour in (
        ((250, 250), HIT),
        ((150, 150), MISS),
        ((350, 350), FALSE_ALARM),
    ):
        expected = ground * 0.4 + np.asarray(colour) * 0.6
        assert np.abs(drawn[at] - expected).max() <= 1


def test_what_is_not_scored_is_not_coloured() -> None:
    """A false alarm where there is no ground truth is none."""
    nothing, everything = np.zeros((600, 600), np.bool_), np.ones((600, 600), np.bool_)
    ignore = square(600, 600, 0, 0, 300)
    drawn = np.asarray(
        draw_comparison(grey(600, 600), nothing, everything, ignore=ignore)
    )
    assert drawn[100, 100].tolist() == [100, 100, 100]
    assert drawn[500, 500].tolist() != [100, 100, 100]


def test_what_is_shown_is_said() -> None:
    """A false colour means nothing to a reader who is not told which channel is which colour."""
    wavelengths = {"green": 0.56, "nir": 0.84, "red": 0.66}
    channels = [
        Channel(name, "reflectance", "1", wavelength_um=um)
        for name, um in wavelengths.items()
    ]
    assert describe_display(channels) == "nir, red, green as R, G, B"
