"""A run with a dense head: what it trains is in the bundle, and finds objects without prompts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import config, gray_set, registry

import simmat
from simmat import cli, training
from simmat.bundle import load_bundle
from simmat.config import load_config
from simmat.errors import ConfigError, DataError
from simmat.evaluation import EvalRequest, evaluate_bundle
from simmat.predictor.objects import EverythingSettings
from simmat.training.plan import plan_run


@pytest.fixture
def run(dense_bundle: Path) -> Path:
    """A run of two steps with both heads, beside its data set."""
    return dense_bundle.parent


def test_objects_are_found_without_prompts(run: Path) -> None:
    """Every object has a mask, a score and the click that found it."""
    model = simmat.load(run, device="cpu")
    image = model.set_image(
        next(iter(sorted((run.parent / "set" / "images").iterdir())))
    )
    assert (
        model.segment_everything(EverythingSettings(peak=1.0, peak_window=99)) == []
    )  # no peak, and no part of 99² pixels
    found = model.segment_everything(
        EverythingSettings(peak=0.0, min_score=0.0, objectness=0.0)
    )
    assert found
    assert all(0 <= one.score <= 1 and one.instance.area >= 1 for one in found)
    assert [one.score for one in found] == sorted(
        (one.score for one in found), reverse=True
    )
    classes = model.segment_semantic()
    assert classes.labels.shape == image.size_hw
    assert set(np.unique(classes.labels)) <= {
        0,
        *(value or 1 for value in load_bundle(run, registry()).spec.dense.classes),
    }
    assert (classes.probability > 0).all()


def test_validation_scores_it_and_chooses_by_all_scores(run: Path) -> None:
    """A bundle that answers clicks well and finds nothing is not the best one."""
    records = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    found = [record for record in records if record["kind"] == "val"]
    for record in found:
        assert 0 <= record["semantic"]["miou"] <= 1
        every = (
            record["miou_object"],
            record["everything"]["ap50"],
            record["semantic"]["miou"],
        )
        assert record["score"] == pytest.approx(sum(every) / 3)
    best = max(found, key=lambda record: (record["score"], -record["step"]))
    assert load_bundle(run, registry()).spec.metrics["step"] == best["step"]


def test_eval_scores_masks_without_prompts(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Python and on the command line, beside the scores of clicks."""
    report = simmat.evaluate(
        run, run.parent / "set", everything=True, semantic=True, device="cpu"
    )
    assert report["tuned"]["everything"]["clicks"] == "peaks of the dense head"
    assert report["class_names"] == {"0": "background", "1": "object"}
    assert set(report["cost"]["tuned"]) == {
        "encode_ms",
        "decode_ms",
        "everything_ms",
        "semantic_ms",
    }
    plain = simmat.evaluate(run, run.parent / "set", device="cpu")
    assert (
        set(report["tuned"].pop("confidence"))
        > set(plain["tuned"].pop("confidence"))
        == {"click"}
    )
    blocks = ("everything", "semantic")
    assert {
        name: value for name, value in report["tuned"].items() if name not in blocks
    } == plain["tuned"]
    options = [
        "--data",
        str(run.parent / "set"),
        "--everything",
        "--semantic",
        "--device",
        "cpu",
    ]
    assert cli.run(["eval", str(run), *options]) == 0
    said = capsys.readouterr().out
    assert all(
        row in said
        for row in (
            "AP50",
            "PQ",
            "F1",
            "class map: mIoU",
            "IoU of class 0 (background)",
        )
    )


def test_images_with_unmarked_objects_are_refused(tmp_path: Path) -> None:
    """Their background would be learned as such."""
    settings = config(
        gray_set(tmp_path / "set"),
        tmp_path / "run",
        heads="prompt,dense",
        zero_means="unlabelled",
    )
    with pytest.raises(ConfigError, match="unlabelled"):
        training.train(settings, registry())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "heads"),
    [
        ({}, "prompt,dense"),
        ({"zero_means": "unlabelled"}, "prompt"),
        ({"protocol": "simmat-compat"}, "prompt"),
    ],
)
def test_the_card_chooses_the_heads(
    run: Path, tmp_path: Path, changes: dict[str, str], heads: str
) -> None:
    """A dense head is trained where every object is marked, so that everything can be found without an option."""
    settings = config(run.parent / "set", tmp_path / "run", **changes).model_dump(
        exclude_none=True
    )
    del settings["heads"]
    chosen = load_config(None, settings)
    assert plan_run(chosen, registry()).config.heads == heads


def test_a_clicked_mask_has_the_class_that_the_map_gives_its_pixels(
    tmp_path: Path,
) -> None:
    """Who clicks on an object wants to know what it is."""
    settings = config(
        gray_set(tmp_path / "set"),
        tmp_path / "run",
        heads="prompt,dense",
        steps=1,
        pictures=False,
        regions="classes",
    )
    training.train(settings, registry())
    model = simmat.load(tmp_path / "run", device="cpu", registry=registry())
    assert model.dense is not None
    assert model.model.dense is not None
    model.set_image(
        tmp_path
        / "set/images"
        / min(path.name for path in (tmp_path / "set/images").iterdir())
    )
    for place, value in enumerate(model.dense.classes, start=1):
        with torch.no_grad():
            model.model.dense.classes.weight.zero_()
            model.model.dense.classes.bias.zero_()
            model.model.dense.classes.bias[place] = 2.0
        model.set_image(model.image)
        found = model.predict([(20, 20)])
        assert found.class_id == value
        assert found.class_probability is not None


HEIGHT, WIDTH = 80, 120
TRAIN, VAL, TEST = 4, 2, 2


def squares(rng: np.random.Generator, values: list[int], side: int) -> Any:
    """A mask of squares, one for each value."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for value in values:
        y, x = rng.integers(HEIGHT - side), rng.integers(WIDTH - side)
        mask[y : y + side, x : x + side] = value
    return mask


def labelled(root: Path, mask: Callable[[int, np.random.Generator], Any]) -> Path:
    """A data set with a mask for each image, by its number; the first are of train, the last of test."""
    data = gray_set(root, train=TRAIN, val=VAL, test=TEST, size_hw=(HEIGHT, WIDTH))
    for number in range(TRAIN + VAL + TEST):
        rng = np.random.default_rng(number)
        values = mask(number, rng)
        Image.fromarray(values).save(data / f"masks/s{number}.png")
        image = rng.normal(60, 10, values.shape) + 80 * (values > 0)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
            data / f"images/s{number}.png"
        )
    return data


def numbers(value: Any) -> Iterator[float]:
    """Every number in json values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, int | float):
        yield value


def in_test_only(number: int, rng: np.random.Generator) -> Any:
    return squares(rng, [1, 2] if number >= TRAIN + VAL else [1], 12)


def one_pixel(number: int, rng: np.random.Generator) -> Any:
    return squares(rng, [1, 2, 3], 1)


def forty_classes(number: int, rng: np.random.Generator) -> Any:
    return squares(rng, rng.permutation(np.arange(1, 41))[:9].tolist(), 9)


def val_almost_empty(number: int, rng: np.random.Generator) -> Any:
    return squares(rng, [] if number == TRAIN else [1], 12)


def one_label(number: int, rng: np.random.Generator) -> Any:
    return np.full((HEIGHT, WIDTH), 3, np.uint8)


@pytest.mark.parametrize(
    ("mask", "regions", "crop"),
    [
        (in_test_only, "components", 0),
        (one_pixel, "instances", 0),
        (forty_classes, "components", 0),
        (val_almost_empty, "components", 0),
        (one_label, "classes", 64),
    ],
)
def test_a_training_has_finite_numbers(
    tmp_path: Path,
    mask: Callable[[int, np.random.Generator], Any],
    regions: str,
    crop: int,
) -> None:
    """A loss over no pixel, or over a class without any, must not spoil the weights."""
    data = labelled(tmp_path / "data", mask)
    settings = config(
        data,
        tmp_path / "run",
        heads="prompt,dense",
        regions=regions,
        crop=crop,
        steps=3,
        val_every=3,
        pictures=False,
    )
    bundle = training.train(settings, registry())
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        assert all(map(math.isfinite, numbers(json.loads(line))))
    model = simmat.load(bundle, device="cpu", registry=registry())
    for name, tensor in model.model.state_dict().items():
        assert tensor.isfinite().all(), name
    for split in ("val", "test"):
        scores, _ = evaluate_bundle(
            model.bundle,
            data,
            split,
            request=EvalRequest(everything=True, semantic=True),
        )
        assert scores.objects
        assert scores.unprompted is not None
        found = json.loads(json.dumps(scores.unprompted.summary()))
        assert all(map(math.isfinite, numbers(found)))


def test_no_object_in_training_is_an_error(tmp_path: Path) -> None:
    """There is nothing to learn."""
    data = labelled(
        tmp_path / "data", lambda number, rng: squares(rng, [1] * (number >= TRAIN), 12)
    )
    with pytest.raises(DataError, match="no training sample has a region"):
        training.train(config(data, tmp_path / "run"), registry())
    assert not (tmp_path / "run").exists()
