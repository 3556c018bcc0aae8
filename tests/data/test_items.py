"""A data set as torch's DataLoader takes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import simmat
from simmat.errors import DataError


def made() -> simmat.Dataset:
    images = [np.full((20, 30), 10 * number, np.uint8) for number in range(1, 5)]
    masks = [np.zeros((20, 30), np.uint8) for _ in images]
    for mask in masks:
        mask[2:6, 3:9], mask[10:15, 20:25], mask[0] = 1, 2, 255
    return simmat.Dataset.from_arrays(
        images, masks, split={"train": 2, "val": 1, "test": 1}, ignore=255
    )


def test_a_loader_of_torch_takes_it() -> None:
    """Whoever has a training loop reads sensor files by this package all the same."""
    data = made()
    assert len(data) == 4
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch["image"].shape == batch["valid"].shape == (2, 1, 20, 30)
    assert batch["image"].dtype == torch.float32
    assert batch["image"][1].unique().tolist() == [20.0]
    objects = batch["objects"][0]
    assert sorted(objects.unique().tolist()) == [-1, 0, 1, 2]
    assert objects[0].unique().tolist() == [-1]
    assert (objects[2:6, 3:9] == 1).all()
    assert batch["classes"].unique().tolist() == [-1, 0, 1]
    assert len(set(batch["id"])) == 2


def test_a_split_is_a_data_set() -> None:
    """Training and validation have loaders of their own."""
    data = made()
    assert [len(data.subset(name)) for name in ("train", "val", "test")] == [2, 1, 1]
    assert data.subset("val")[0]["image"].max() == 30
    with pytest.raises(DataError, match="the val split is empty"):
        data.subset("train").subset("val")
    with pytest.raises(IndexError):
        data[4]


def test_workers_read_the_same() -> None:
    """A process of a loader gets the data set by pickle or fork."""
    data = made()
    alone, shared = (list(DataLoader(data, num_workers=count)) for count in (0, 1))
    assert all(
        torch.equal(a["objects"], b["objects"])
        for a, b in zip(alone, shared, strict=True)
    )
