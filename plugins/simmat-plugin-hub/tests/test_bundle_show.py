"""`simmat bundle show`: what a bundle holds, for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import SPEC, tiny_bundle

from simmat.calibration import Calibration, MonotonicMap
from simmat.cli import run
from simmat.data.card import DataCard

METRICS = {
    "val": {
        "objects": 8,
        "miou_object": 0.51234,
        "miou_object_interval": [0.4, 0.6],
        "miou_class": None,
        "iou_by_class": {"3": 0.25, "4": 0.5},
        "by_size": {"small": {"objects": 2, "miou_object": 0.7}},
    },
    "step": 30,
    "protocol": "one-click",
}
CARD = DataCard(
    regions="classes",
    class_names={3: "boat", 7: "plane"},
    ignore=255,
    source="the sea",
    licence="CC0-1.0",
)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "200")
    return tiny_bundle(tmp_path / "b", card=CARD, metrics=METRICS)


def test_every_value_is_on_a_line_of_its_own(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read by a person who chooses between bundles; a Python dict is not text."""
    assert run(["bundle", "show", str(bundle)]) == 0
    said = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    for line in (
        "modality gray",
        "transfer layer mat (width = 4)",
        "gray counts count - 0 to 255 60 20 mean 60, std 20, 1,000 valid pixels",
        "regions classes, smallest 1 px",
        "ignored label value 255",
        "classes 3: boat, 7: plane",
        "source the sea",
        "licence CC0-1.0",
        "objects 8",
        "step 30",
        "protocol one-click",
        "one click: mean over objects 0.5123",
        "95 % interval (bootstrap over images) 0.4000–0.6000",
        "class 3 (boat) 0.2500",
        "class 4 0.5000",
        "small objects 0.7000",
    ):
        assert line in lines
    assert not set("{}[]") & set(said.replace(str(bundle), ""))


def test_options_of_the_sensor_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They decide which values a file has."""
    bundle = tiny_bundle(tmp_path / "b", modality_options={"gray": {"nodata": 7.0}})
    assert run(["bundle", "show", str(bundle)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "options of the sensor gray (nodata = 7.0)" in lines


def test_json_holds_the_values_as_they_are(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Programs read this, not the table."""
    assert run(["bundle", "show", str(bundle), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["metrics"] == METRICS
    assert shown["card"]["class_names"] == {"3": "boat", "7": "plane"}


def test_calibration_errors_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metrics have those of the network's own scores, which nobody sees."""
    curve = MonotonicMap(
        predicted=(0, 1), true=(0.1, 0.9), objects=40, ece=0.2, ece_calibrated=0.05
    )
    calibration = Calibration(
        click=curve, box=curve.model_copy(update={"ece_calibrated": None})
    )
    assert (
        run(
            [
                "bundle",
                "show",
                str(tiny_bundle(tmp_path / "b", calibration=calibration)),
            ]
        )
        == 0
    )
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"clicks 40 0.200 0.050", "boxes 40 0.200 -"} <= set(lines)


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"val": None},
        {"a": {"b": {"c": {"d": {"e": [{"f": True}, None]}}}}},
        {
            "val": {
                "by_size": 3,
                "iou_by_class": {"x": "y"},
                "box": {"tight": {"a": None}},
                "random_click": [True, {}],
            }
        },
    ],
)
def test_metrics_of_any_shape_are_shown(
    metrics: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle of another version, or of a stranger, may hold others."""
    assert (
        run(["bundle", "show", str(tiny_bundle(tmp_path / "b", metrics=metrics))]) == 0
    )
    assert SPEC.modality in capsys.readouterr().out
