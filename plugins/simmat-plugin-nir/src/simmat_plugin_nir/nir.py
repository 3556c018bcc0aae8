"""`nir`: one plane of a near-infrared camera."""

from __future__ import annotations

import numpy as np

from simmat import Files, Scene, SensorImage, Source, Window, WindowedAdapter
from simmat.io.images import write_image
from simmat_plugin_nir.planes import NIR, read_plane, stored


class Nir(WindowedAdapter):
    """Counts of a camera behind a filter that passes about 0.75 to 1 um, as stored in the file."""

    name = "nir"
    description = "near-infrared camera, one plane of counts (PNG, TIFF, npy, JPEG; 8 to 32 bits, float)"
    sources = (Source("nir", (".png", ".tif", ".tiff", ".npy", ".jpg", ".jpeg")),)
    channels = (NIR,)

    def read(self, files: Files, window: Window | None) -> SensorImage:
        """Read (1, H, W) counts; DataError if the file has several planes, with what to use instead."""
        image = read_plane(files["nir"], self.name, self.nodata("nir"), window)
        return SensorImage.from_planes(image.planes, self.channels, valid=image.valid, origin=str(image.path))

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (1, H, W) 12-bit counts of a silicon camera behind a long-pass filter."""
        from simmat_plugin_nir.camera import counts

        return SensorImage.from_planes(counts(scene, ("nir",), rng), self.channels, origin="simulated")

    def save(self, image: SensorImage, files: Files) -> None:
        """Write whole counts up to 65535 as 16 bits, else float32 (TIFF or npy) with NaN where invalid."""
        write_image(files["nir"], stored(image))
