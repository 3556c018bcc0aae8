"""Labels that a data set may have and that few have: a training ends with finite numbers, or with a clear error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import config, gray_set, registry

import simmat
from simmat import training
from simmat.errors import DataError
from simmat.evaluation import evaluate_bundle

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
            model.bundle, data, split, everything=True, semantic=True
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
