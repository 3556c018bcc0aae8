"""The built-in sensors: `rgb`, `gray`, and `raster`, which reads any planes as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.images import read_image, require_one_plane, write_image
from simmat.sensors.adapter import (
    ModalityAdapter,
    PathsBySource,
    Source,
    WindowedAdapter,
)
from simmat.types import RGB_QUANTITY, Channel, ImageFile, SensorImage, Window

_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


class Rgb(WindowedAdapter):
    """Three planes of display-referred counts, 0 to 255, normalized by a foundation model's own statistics."""

    name = "rgb"
    description = "colour picture, 8 bits a plane (PNG, JPEG, TIFF)"
    sources = (Source("rgb", _ENDINGS),)
    channels = (
        Channel(
            "red", RGB_QUANTITY, "count", wavelength_um=0.62, valid_range=(0.0, 255.0)
        ),
        Channel(
            "green", RGB_QUANTITY, "count", wavelength_um=0.54, valid_range=(0.0, 255.0)
        ),
        Channel(
            "blue", RGB_QUANTITY, "count", wavelength_um=0.46, valid_range=(0.0, 255.0)
        ),
    )

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (3, H, W) counts; DataError for grey, RGBA, 16-bit and other files says what to use instead."""
        image = read_image(files["rgb"], self.nodata("rgb"), window)
        if (
            image.colour != "rgb"
            or len(image.planes) != 3
            or image.planes.dtype != np.uint8
        ):
            raise DataError(
                f"{image.path}: modality 'rgb' needs three 8-bit planes red, green, blue; {_advice(image)}"
            )
        return SensorImage.from_planes(
            image.planes, self.channels, valid=image.valid, origin=str(image.path)
        )

    def simulate(self, scene: Any, rng: np.random.Generator) -> SensorImage:
        """Return the scene's picture of a colour camera: (3, H, W) whole counts 0 to 255."""
        counts = scene.rgb_counts(rng)
        return SensorImage.from_planes(counts, self.channels, origin="simulated")

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write an 8-bit PNG or TIFF; counts are rounded."""
        write_image(
            files["rgb"],
            np.clip(np.rint(image.data), 0, 255).astype(np.uint8),
            colour="rgb",
        )


def _advice(image: ImageFile) -> str:
    """Say what the file is and which modality reads it."""
    count = len(image.planes)
    dtype = image.planes.dtype
    if count == 1:
        modality = "gray"
    elif image.alpha:
        modality = "raster --channels 0,1,2"
    else:
        modality = "raster, and --channels to pick"
    return f"this is {count} planes of {dtype}{' with alpha' if image.alpha else ''}: use --modality {modality}"


class Gray(WindowedAdapter):
    """One plane of stored numbers: integers of 1, 8, 16 or 32 bits, or floats."""

    name = "gray"
    description = "one plane of counts (PNG, JPEG, TIFF, npy; 8 to 32 bits, float)"
    sources = (Source("gray", (*_ENDINGS, ".npy")),)
    channels = (Channel("gray", "counts", "count"),)

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (1, H, W) counts; DataError for a file of several planes says what to use instead."""
        image = read_image(files["gray"], self.nodata("gray"), window)
        require_one_plane(image, self.name)
        return SensorImage.from_planes(
            image.planes, self.channels, valid=image.valid, origin=str(image.path)
        )

    def simulate(self, scene: Any, rng: np.random.Generator) -> SensorImage:
        """Return the scene's picture of a monochrome camera: (1, H, W) whole counts 0 to 255."""
        counts = scene.gray_counts(rng)
        return SensorImage.from_planes(counts, self.channels, origin="simulated")

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write whole counts to 255 as 8 bits, to 65535 as 16 bits, all else as float32 (TIFF or npy)."""
        write_image(files["gray"], narrowest(image))


def narrowest(image: SensorImage) -> npt.NDArray[Any]:
    """Return the planes in the smallest type that holds them exactly; invalid pixels of float planes become NaN."""
    data = image.data
    if image.valid.all() and (data == np.rint(data)).all() and data.min() >= 0:
        if data.max() <= 255:
            return data.astype(np.uint8)
        if data.max() <= 65535:
            return data.astype(np.uint16)
    return np.where(image.valid, data, np.float32(np.nan))


class Raster(WindowedAdapter):
    """Planes of counts, `band0`, `band1`, …, in the order of the file; `--channels` picks some of them."""

    name = "raster"
    description = "any planes as they are stored (PNG, JPEG, TIFF, npy (P, H, W)); pick with --channels"
    sources = (Source("raster", (".tif", ".tiff", ".npy", ".png", ".jpg", ".jpeg")),)

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (C, H, W) counts; an npy array of three axes is (planes, height, width)."""
        image = read_image(files["raster"], self.nodata("raster"), window)
        return SensorImage.from_planes(
            image.planes,
            band_channels(len(image.planes)),
            valid=image.valid,
            origin=str(image.path),
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write as `Gray`; invalid pixels become NaN."""
        write_image(files["raster"], narrowest(image))


def band_channels(count: int) -> tuple[Channel, ...]:
    """Return `count` channels named `band0`, `band1`, …."""
    return tuple(Channel(f"band{index}", "counts", "count") for index in range(count))


MODALITIES: tuple[ModalityAdapter, ...] = (Rgb(), Gray(), Raster())
"""Ready instances."""
