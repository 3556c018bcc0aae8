"""`gray`: one plane of counts, whatever the camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.imageio import read_image, require_one_plane, write_image
from simmat.modality import Files, Missing, ModalityAdapter, Nodata, Source
from simmat.types import Channel, SensorImage

if TYPE_CHECKING:
    from simmat.scene import Scene

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")


class Gray(ModalityAdapter):
    """One plane of numbers as they lie in the file: 1, 8, 16 or 32-bit integers or floats."""

    name = "gray"
    description = "one plane of counts (PNG, JPEG, TIFF, npy; 8 to 32 bits, float)"
    sources = (Source("gray", ENDINGS),)
    channels = (Channel("gray", "counts", "count"),)

    def load(self, files: Files, *, nodata: Nodata = None, missing: Missing = None) -> SensorImage:
        """Read (1, H, W) counts; a file of several planes raises DataError with what to use instead."""
        image = read_image(files["gray"], nodata)
        require_one_plane(image, self.name)
        return SensorImage.from_planes(image.planes, self.channels, valid=image.valid, origin=str(image.path))

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (1, H, W) picture a monochrome camera takes of the scene, whole counts 0 to 255."""
        from simmat.scene import import_scenes

        counts = import_scenes("camera").gray_counts(scene, rng)
        return SensorImage.from_planes(counts, self.channels, origin="simulated")

    def save(self, image: SensorImage, files: Files) -> None:
        """Write whole counts of 0 to 255 as 8 bits, of 0 to 65535 as 16 bits, all else as float32 (TIFF or npy)."""
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
