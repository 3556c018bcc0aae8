"""A data set: its images, its labels, and the checks between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import Planes, folder_of, one_square, open_planes, save_image, save_mask
from torch.utils.data import DataLoader

import simmat
from simmat.errors import ConfigError, DataError
from simmat.types import SensorImage


class Celsius(Planes):
    """A sensor whose transform changes channels and validity."""

    def transform(self, image: SensorImage) -> SensorImage:
        """To °C; below 0 °C is invalid."""
        channels = tuple(replace(channel, unit="degC") for channel in image.channels)
        return replace(
            image,
            data=image.data - np.float32(273.15),
            valid=image.data > 273.15,
            channels=channels,
        )


def test_folder_opens_and_gives_images_and_labels(tmp_path: Path) -> None:
    """The way every job begins."""
    dataset = open_planes(folder_of(tmp_path, 4))
    sample = dataset.split("train")[0]
    image = dataset.image(sample)
    label = dataset.label(sample, image)
    assert image.data.shape == (2, 8, 8)
    assert np.array_equal(label.regions[0].mask(label.size_hw), one_square() > 0)
    assert not label.ignore.any()


def test_missing_folder_and_file_are_distinguished(tmp_path: Path) -> None:
    """A typing mistake in --data is the most frequent error of all."""
    with pytest.raises(DataError, match="no such folder"):
        open_planes(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="a file"):
        open_planes(tmp_path / "file")


def test_empty_and_unknown_splits_are_refused(tmp_path: Path) -> None:
    """An average over nothing is no score."""
    folder_of(tmp_path, 3)
    (tmp_path / "manifest.csv").write_text(
        "id,split,image,mask\nx,test,images/s1.npy,masks/s1.png\n"
    )
    dataset = open_planes(tmp_path)
    with pytest.raises(DataError, match=r"val .*test"):
        dataset.split("val")
    with pytest.raises(ConfigError, match="train, val, test"):
        dataset.split("dev")


def test_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    """Resizing it would move the truth."""
    save_mask(folder_of(tmp_path, 3) / "masks/s0.png", np.ones((4, 6)))
    dataset = open_planes(tmp_path)
    with pytest.raises(DataError, match=r"the mask is 6x4, the image .*s0\.npy is 8x8"):
        dataset.label(dataset.samples[0], dataset.image(dataset.samples[0]))


def test_image_with_other_channels_is_refused_by_name(tmp_path: Path) -> None:
    """A band more would shift all weights by one."""
    save_image(folder_of(tmp_path, 5) / "images/s1.npy", np.zeros((3, 8, 8)))
    dataset = open_planes(tmp_path)
    bad = next(sample for sample in dataset.samples if sample.id == "s1")
    with pytest.raises(
        DataError,
        match=r"s1\.npy: its channels are p0 \[K\], p1 \[K\], p2 \[K\]; those of",
    ):
        dataset.image(bad)


def test_the_first_training_image_says_which_channels_are_right(tmp_path: Path) -> None:
    """A bad test image must not make all of training look wrong."""
    save_image(folder_of(tmp_path, 3) / "images/s0.npy", np.zeros((3, 8, 8)))
    rows = [
        f"s{i},{split},images/s{i}.npy,masks/s{i}.png"
        for i, split in enumerate(("test", "train", "val"))
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(["id,split,image,mask", *rows]))
    assert len(open_planes(tmp_path).channels()) == 2


def test_pixels_without_any_measurement_are_ignored_and_others_not(
    tmp_path: Path,
) -> None:
    """A model cannot know what no channel saw; what one channel saw counts."""
    values = np.full((2, 8, 8), 300.0)
    values[:, 0, 0] = np.nan
    values[0, 7, 7] = -1
    values[:, 5, 5] = -1
    save_image(folder_of(tmp_path, 3) / "images/s0.npy", values)
    dataset = open_planes(tmp_path, nodata=-1)
    label = dataset.label(dataset.samples[0], dataset.image(dataset.samples[0]))
    assert np.argwhere(label.ignore).tolist() == [[0, 0], [5, 5]]


def test_row_override_of_zero_reaches_the_label(tmp_path: Path) -> None:
    """The manifest's zero_means column is used, not only kept."""
    folder_of(tmp_path, 3)
    text = "id,split,image,mask,zero_means\nx,test,images/s1.npy,masks/s1.png,none\n"
    (tmp_path / "manifest.csv").write_text(text)
    dataset = open_planes(tmp_path)
    assert len(dataset.label(dataset.samples[0]).regions) == 2


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
