"""Scores that say what they are worth: maps, thresholds, and what a calibrated bundle gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import change_json, tiny_bundle
from PIL import Image
from runs import config, gray_set, registry

import simmat
from simmat import training
from simmat.bundle import read_bundle_spec
from simmat.calibration import (
    Calibration,
    MonotonicMap,
    ScoredPredictions,
    calibrated_pairs,
    calibration_error,
    fit_calibration,
    no_auto_reason,
    tempered,
)
from simmat.cli import run
from simmat.model_spec import DenseSpec

DENSE = DenseSpec(background=True, classes=(1, 2))


def too_sure(count: int, seed: int) -> ScoredPredictions:
    """IoUs of a network that predicts them 0.15 too high, in images of eight objects."""
    rng = np.random.default_rng(seed)
    true = 0.85 * rng.beta(4, 2, count)
    predicted = np.clip(true + 0.15 + rng.normal(0, 0.08, count), 0, 1)
    return ScoredPredictions.of(
        zip(np.arange(count) // 8, predicted, true, strict=True)
    )


@pytest.mark.parametrize("count", [40, 800])
def test_a_map_makes_the_error_of_new_objects_a_third_and_keeps_their_order(
    count: int,
) -> None:
    """A score of 0.8 is only of use if such objects have an IoU of 0.8; a list by score must stay the same."""
    found, new = fit_calibration({"object": too_sure(count, 0)}), too_sure(4000, 1)
    assert found is not None
    assert found.object is not None
    after = calibrated_pairs(found, "object", new)
    assert calibration_error(after) < calibration_error(new) / 3
    order = np.argsort(new.predicted, kind="stable")
    assert (np.diff(after.predicted[order]) >= 0).all()
    assert len(np.unique(after.predicted)) == len(np.unique(new.predicted))


def test_of_what_auto_keeps_the_promised_share_is_right() -> None:
    """The share of wrong objects among new ones, over many validation splits, is the one that was asked for."""
    shares = []
    for seed in range(40):
        found, new = (
            fit_calibration({"object": too_sure(200, seed)}),
            too_sure(2000, 1000 + seed),
        )
        assert found is not None
        assert found.object is not None
        least = found.thresholds[9]
        assert least is not None
        kept = calibrated_pairs(found, "object", new).predicted >= least
        shares.append(float((new.true[kept] < 0.5).mean()))
    assert np.mean(shares) == pytest.approx(0.1, abs=0.015)


def of_three_classes(count: int, seed: int, sharpness: float) -> ScoredPredictions:
    """Classes drawn from known probabilities p, for which a network says p^sharpness, divided by their sum."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet([0.7, 0.7, 0.7], count)
    shown = tempered(true, 1 / sharpness)
    drawn = (rng.random((count, 1)) > true.cumsum(1)[:, :2]).sum(1)
    return ScoredPredictions.of_classes(
        (number // 8, index, *row)
        for number, (index, row) in enumerate(zip(drawn, shown, strict=True))
    )


def test_a_calibration_that_is_no_map_is_refused_with_each_reason() -> None:
    """A bundle that was edited by hand would give scores in another order."""
    fitted = {"objects": 9, "ece": 0.1, "ece_calibrated": None}
    calibration = Calibration(
        click=MonotonicMap(predicted=(0, 0.5), true=(0, 1), **fitted),
        box=MonotonicMap(predicted=(0, 1), true=(1, 0), **fitted),
        thresholds=(0.5, 2.0),
    )
    thresholds, click, box = calibration.problems()
    assert "from 0 to 1, or null" in thresholds
    assert click == "click: predicted must go from 0 to 1"
    assert box.startswith("box: predicted and true must have equally many numbers")


@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_a_temperature_makes_class_probabilities_say_how_often_a_class_is_right(
    sharpness: float,
) -> None:
    """Whether the network is too sure or too timid; the class that it names stays the same."""
    found, new = (
        fit_calibration({"class_probability": of_three_classes(300, 0, sharpness)}),
        of_three_classes(4000, 1, sharpness),
    )
    after = calibrated_pairs(found, "class_probability", new)
    assert calibration_error(after) < calibration_error(new) / 3
    assert after.probabilities is not None
    assert new.probabilities is not None
    assert (after.probabilities.argmax(1) == new.probabilities.argmax(1)).all()


CURVE = MonotonicMap(
    predicted=(0.0, 0.5, 1.0),
    true=(0.0, 0.1, 1.0),
    objects=40,
    ece=0.2,
    ece_calibrated=0.05,
)


def images_in(folder: Path) -> Path:
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 200, (40, 56), np.uint8)).save(
        folder / "a.png"
    )
    return folder


def test_a_bundle_gives_calibrated_scores_everywhere(tmp_path: Path) -> None:
    """Prompts and found objects speak in the terms that `--min-score` and a person take."""
    every = Calibration(click=CURVE, box=CURVE, object=CURVE, temperature=0.1)
    bundles = [
        tiny_bundle(tmp_path / str(one is None), dense=DENSE, calibration=one)
        for one in (None, every)
    ]
    raw, own = (
        simmat.load(bundle, registry=registry(), device="cpu") for bundle in bundles
    )

    def powers(probabilities: Mapping[int, float]) -> dict[int, Any]:
        total = sum(one**10 for one in probabilities.values())
        return {
            value: pytest.approx(one**10 / total)
            for value, one in probabilities.items()
        }

    settings = simmat.predictor.EverythingSettings(
        peak=0.0, min_score=0.0, objectness=0.0
    )
    for one in (raw, own):
        one.set_image(images_in(tmp_path / f"images {id(one)}") / "a.png")
    for asked in ({"points": [(20, 20)]}, {"box": (4, 4, 30, 30)}):
        ours, theirs = raw.predict(**asked), own.predict(**asked)
        assert theirs.score == pytest.approx(CURVE(ours.score))
        assert ours.class_probabilities is not None
        assert theirs.class_probabilities == powers(ours.class_probabilities)
    before, after = (one.segment_everything(settings) for one in (raw, own))
    assert [one.score for one in after] == pytest.approx(
        [CURVE(one.score) for one in before]
    )
    for found, other in zip(after, before, strict=True):
        assert other.class_probabilities is not None
        assert found.class_probabilities == powers(other.class_probabilities)
        assert found.instance.class_id == other.instance.class_id
    assert before


def test_why_there_is_no_threshold_is_said_with_numbers() -> None:
    """Nine of nine objects are too few for a map; ten of which five are wrong are too few for 10 %."""

    def reason(count: int, wrong: int) -> str | None:
        true = [0.9] * (count - wrong) + [0.1] * wrong
        rows = zip(range(count), np.linspace(0.9, 0.3, count), true, strict=True)
        found = fit_calibration({"object": ScoredPredictions.of(rows)})
        return no_auto_reason(found, count, 30)

    few = reason(9, 0)
    assert few is not None
    assert "needs 10 objects" in few
    assert "found 9 " in few
    assert "30 labelled" in few
    assert reason(10, 0) is None
    wrong = reason(12, 5)
    assert wrong is not None
    assert "10 % wrong objects it needs at least 9 right" in wrong
    assert "found 12 " in wrong


def test_auto_takes_the_threshold_of_the_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It replaces a number that nobody can know; where validation could not give it, the refusal says so."""
    table = Calibration(object=CURVE, thresholds=(None, 0.9, *[0.0] * 48))
    bundle, images = (
        tiny_bundle(tmp_path / "bundle", dense=DENSE, calibration=table),
        images_in(tmp_path / "images"),
    )
    call = [
        "predict",
        str(bundle),
        str(images),
        "--everything",
        "--min-score",
        "auto",
        "--format",
        "labels",
    ]
    for share, least in (("0.02", "0.900"), ("0.1", "0.000")):
        assert (
            run(
                [
                    *call,
                    "--max-error-rate",
                    share,
                    "--out",
                    str(tmp_path / share),
                    "--device",
                    "cpu",
                ]
            )
            == 0
        )
        assert f"--min-score auto: {least}" in capsys.readouterr().err
    assert run([*call, "--max-error-rate", "0.01", "--out", str(tmp_path / "no")]) == 2
    assert "0.02" in capsys.readouterr().err
    change_json(bundle, calibration=None)
    assert run([*call, "--out", str(tmp_path / "no")]) == 2
    assert f"--min-score auto: {bundle} has no calibration" in capsys.readouterr().err
    assert (
        run([*call[:-4], "--max-error-rate", "0.1", "--out", str(tmp_path / "no")]) == 2
    )
    assert "--min-score auto" in capsys.readouterr().err


def test_training_calibrates_by_its_validation(tmp_path: Path) -> None:
    """Who trains gets calibrated scores without asking; nothing is fitted to fewer than ten objects."""
    data = gray_set(tmp_path / "set", val=12)
    training.train(config(data, tmp_path / "run", steps=1, pictures=False), registry())
    found = read_bundle_spec(tmp_path / "run/bundle.safetensors")
    assert found.calibration is not None
    assert found.calibration.click is not None
    assert found.calibration.click.objects == found.metrics["val"]["objects"] >= 10  # type: ignore[index,call-overload]
    assert found.calibration.object is None
    report = simmat.evaluate(
        simmat.load(
            tmp_path / "run/bundle.safetensors", registry=registry(), device="cpu"
        ),
        data,
        split="val",
        zero_shot=False,
    )
    figures = report["tuned"]["confidence"]["click"]
    assert figures["ece_uncalibrated"] == pytest.approx(found.calibration.click.ece)
    assert figures["ece"] < figures["ece_uncalibrated"]


def test_the_uncertainty_is_that_of_flipped_and_shifted_views(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written beside the mask, in pixels of the image: high where the mask depends on how the image lies."""
    import tifffile

    bundle, images, out = (
        tiny_bundle(tmp_path / "bundle"),
        images_in(tmp_path / "images"),
        tmp_path / "out",
    )
    call = [
        "predict",
        str(bundle),
        str(images / "a.png"),
        "--uncertainty",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert run([*call, "--point", "20,12"]) == 0
    assert f"{out / 'a_uncertainty.tif'}  probability" in capsys.readouterr().out
    mean, std = tifffile.imread(out / "a_uncertainty.tif", key=slice(0, 2))
    assert mean.shape == std.shape == (40, 56)
    assert "a_uncertainty.tif" in json.loads((out / "a.json").read_text())["written"]
    model = simmat.load(bundle, registry=registry(), device="cpu")
    model.set_image(images / "a.png")
    probabilities = []
    for flip in (lambda plane: plane, np.fliplr, np.flipud):
        point = np.argwhere(flip(np.pad([[1]], ((12, 27), (20, 35)))))[0][::-1].tolist()
        model.set_image(flip(np.asarray(Image.open(images / "a.png"))).copy())
        probabilities.append(flip(1 / (1 + np.exp(-model.predict([point]).logits))))
    model.set_image(np.asarray(Image.open(images / "a.png"))[1:, 2:].copy())
    cut = 1 / (1 + np.exp(-model.predict([(18, 11)]).logits))
    model.set_image(np.asarray(Image.open(images / "a.png"))[:-1, :-2].copy())
    other = 1 / (1 + np.exp(-model.predict([(20, 12)]).logits))
    inner = slice(1, -1), slice(2, -2)
    stack = np.stack(
        [*(one[inner] for one in probabilities), cut[:-1, :-2], other[1:, 2:]]
    )
    np.testing.assert_allclose(mean[inner], stack.mean(0), atol=1e-5)
    np.testing.assert_allclose(std[inner], stack.std(0), atol=1e-5)
    assert std.max() > 0
    assert run([*call[:4], "--everything", *call[4:]]) == 2
