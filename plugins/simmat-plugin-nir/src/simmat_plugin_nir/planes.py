"""What the near-infrared sensors share: their channels, and planes in the file's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.imageio import ImageFile, read_image, require_one_plane
from simmat.types import BoolArray, Channel, SensorImage

RED = Channel("red", "counts", "count", wavelength_um=0.66)
NIR = Channel("nir", "counts", "count", wavelength_um=0.85)
LOSSLESS = (".tif", ".tiff", ".png", ".npy")


def read_plane(path: Path, modality: str) -> ImageFile:
    """Read a file of one plane; DataError where it has more, with what to use instead."""
    image = read_image(path)
    require_one_plane(image, modality)
    return image


def measured(image: ImageFile) -> BoolArray:
    """Return (P, H, W) True where the file does not say that a value is missing."""
    return np.ones(image.planes.shape, dtype=bool) if image.valid is None else image.valid


def stored(image: SensorImage) -> npt.NDArray[Any]:
    """Return the planes as 16-bit counts where they are such, else float32 with NaN where invalid."""
    data = image.data
    if image.valid.all() and data.min() >= 0 and data.max() <= 65535 and (data == np.rint(data)).all():
        return data.astype(np.uint16)
    return np.where(image.valid, data, np.float32(np.nan))
