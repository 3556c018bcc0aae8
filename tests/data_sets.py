"""Small data sets and a small sensor for the tests of `simmat.data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from simmat.data.dataset import Dataset, open_dataset
from simmat.data.instances import Annotation, Instance
from simmat.sensors.adapter import ModalityAdapter, PathsBySource, Source
from simmat.types import Channel, SensorImage, Window, not_nodata


class Planes(ModalityAdapter):
    """Reads (C, H, W) .npy files, in kelvin."""

    name = "planes"
    description = "test sensor"
    sources = (Source("planes", (".npy",)),)

    def load(self, files: PathsBySource) -> SensorImage:
        """Read one file; the channels are p0, p1 …"""
        values = np.load(files["planes"])
        channels = [
            Channel(f"p{index}", "temperature", "K") for index in range(len(values))
        ]
        valid = not_nodata(values, self.nodata("planes"))
        return SensorImage.from_planes(
            values, channels, valid=valid, origin=str(files["planes"])
        )


class Pair(ModalityAdapter):
    """Reads two .npy files of one plane each."""

    name = "pair"
    description = "test sensor of two files"
    sources = (Source("left", (".npy",)), Source("right", (".npy",)))

    def load(self, files: PathsBySource) -> SensorImage:
        """Read both files."""
        planes = np.stack([np.load(files["left"]), np.load(files["right"])])
        return SensorImage.from_planes(
            planes, [Channel("left", "depth", "m"), Channel("right", "depth", "m")]
        )


def save_image(path: Path, values: npt.ArrayLike) -> None:
    """Write a .npy of planes, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.asarray(values, dtype=np.float32))


def save_mask(path: Path, values: npt.ArrayLike) -> None:
    """Write an 8-bit mask, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)


def one_square(size: int = 8, value: int = 1) -> npt.NDArray[np.uint8]:
    """A mask with one 3 by 3 square at rows and columns 2 to 4."""
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[2:5, 2:5] = value
    return mask


def folder_of(root: Path, count: int, *, channels: int = 2, size: int = 8) -> Path:
    """A folder data set with ids s0, s1 … of random images with one square each."""
    rng = np.random.default_rng(0)
    for index in range(count):
        save_image(
            root / f"images/s{index}.npy", rng.normal(300, 5, (channels, size, size))
        )
        save_mask(root / f"masks/s{index}.png", one_square(size))
    return root


def open_planes(root: Path, **card: Any) -> Dataset:
    """Open a folder with the test sensor; regions are instances unless said."""
    return open_dataset(root, Planes(), {"regions": "instances", **card})


def region_at(
    y0: int, x0: int, crop: npt.ArrayLike, class_id: int | None = None
) -> Instance:
    """A region from its pixels and its first corner."""
    pixels = np.asarray(crop, dtype=np.bool_)
    return Instance(
        class_id, Window(y0, x0, y0 + pixels.shape[0], x0 + pixels.shape[1]), pixels
    )


def label_of(size_hw: tuple[int, int], *regions: Instance) -> Annotation:
    """A label with nothing ignored."""
    return Annotation(size_hw, regions, np.zeros(size_hw, dtype=np.bool_))


def linked(folder: Path, into: Path) -> Path:
    """Return a folder of links to what lies in another, so that nothing is written beside data of others."""
    into.mkdir(parents=True)
    for entry in folder.iterdir():
        if not entry.name.startswith("."):
            (into / entry.name).symlink_to(entry)
    return into
