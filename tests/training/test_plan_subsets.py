"""Training and validating on a part of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import config, gray_set, registry

from simmat.errors import ConfigError
from simmat.training.plan import plan_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_set(tmp_path_factory.mktemp("data") / "set", train=20)


def drawn(data: Path, **changes: Any) -> list[str]:
    """Ids of the samples a run trains on."""
    setup = plan_run(config(data, data.parent / "run", **changes), registry())
    return [sample.id for sample in setup.train]


def test_a_smaller_part_lies_within_a_larger_one(data: Path) -> None:
    """A learning curve over images compares parts of one draw, not draws."""
    parts = [set(drawn(data, train_share=share)) for share in (0.05, 0.1, 0.25, 1.0)]
    assert [len(part) for part in parts] == [1, 2, 5, 20]
    assert parts[0] < parts[1] < parts[2] < parts[3]
    assert set(drawn(data, train_images=5)) == parts[2]


def test_the_seed_draws_and_the_network_does_not(data: Path) -> None:
    """Arms are compared on the same images; other seeds see others."""
    assert drawn(data, train_images=5, mat="mat", tune="full") == drawn(
        data, train_images=5
    )
    assert drawn(data, train_images=5, seed=1) != drawn(data, train_images=5)


def test_more_images_than_there_are_is_refused(data: Path) -> None:
    """A run on fewer images than it says would be reported wrongly."""
    with pytest.raises(ConfigError, match=r"--train-images 21 .* 20 "):
        drawn(data, train_images=21)


def test_validation_images_are_drawn_once_and_one_can_be_scored(tmp_path: Path) -> None:
    """Scores of two steps are compared, and a resumed run compares its own with those from before."""
    data = gray_set(tmp_path / "set", val=9)
    for number in range(5, 13):  # of s5 to s13 only the last has an object
        Image.fromarray(np.zeros((40, 56), np.uint8)).save(
            data / f"masks/s{number}.png"
        )

    def val(**changes: Any) -> list[str]:
        setup = plan_run(config(data, tmp_path / "run", **changes), registry())
        return [sample.id for sample in setup.val]

    assert val(val_images=1) == ["s13"]
    assert val(val_images=4, steps=3) == val(val_images=4, steps=900, val_every=None)
    assert set(val(val_images=4)) < set(val(val_images=5)) < set(val())
    with pytest.raises(ConfigError, match=r"--val-images 10 .* 9 "):
        val(val_images=10)
