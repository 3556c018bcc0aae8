"""`rgb`: an ordinary colour picture, 8 bits a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simmat.errors import DataError
from simmat.imageio import ImageFile, read_image, write_image
from simmat.modality import Files, Missing, ModalityAdapter, Nodata, Source
from simmat.types import RGB_QUANTITY, Channel, SensorImage

if TYPE_CHECKING:
    from simmat.scene import Scene


class Rgb(ModalityAdapter):
    """Three planes of display-referred counts, 0 to 255; they keep a foundation model's own statistics."""

    name = "rgb"
    description = "colour picture, 8 bits a plane (PNG, JPEG, TIFF)"
    sources = (Source("rgb", (".png", ".jpg", ".jpeg", ".tif", ".tiff")),)
    channels = tuple(
        Channel(colour, RGB_QUANTITY, "count", wavelength_um=wavelength, valid_range=(0.0, 255.0))
        for colour, wavelength in (("red", 0.62), ("green", 0.54), ("blue", 0.46))
    )

    def load(self, files: Files, *, nodata: Nodata = None, missing: Missing = None) -> SensorImage:
        """Read (3, H, W) counts; grey, RGBA, 16-bit and other files raise DataError with what to use instead."""
        image = read_image(files["rgb"], nodata)
        if image.colour != "rgb" or len(image.planes) != 3 or image.planes.dtype != np.uint8:
            raise DataError(f"{image.path}: modality 'rgb' needs three 8-bit planes red, green, blue; {_advice(image)}")
        return SensorImage.from_planes(image.planes, self.channels, valid=image.valid, origin=str(image.path))

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (3, H, W) picture a colour camera takes of the scene, whole counts 0 to 255."""
        from simmat.scene import import_scenes

        counts = import_scenes("camera").rgb_counts(scene, rng)
        return SensorImage.from_planes(counts, self.channels, origin="simulated")

    def save(self, image: SensorImage, files: Files) -> None:
        """Write an 8-bit PNG or TIFF; counts are rounded."""
        write_image(files["rgb"], np.clip(np.rint(image.data), 0, 255).astype(np.uint8))


def _advice(image: ImageFile) -> str:
    """Say what the file is and which modality reads it."""
    count, dtype = len(image.planes), image.planes.dtype
    if count == 1:
        return f"this is one plane of {dtype}: use --modality gray"
    if image.colour == "rgb" and count == 4:
        return "this has an alpha plane: use --modality raster --channels 0,1,2, or save it without transparency"
    return f"this is {count} planes of {dtype}: use --modality raster, and --channels to pick planes"
