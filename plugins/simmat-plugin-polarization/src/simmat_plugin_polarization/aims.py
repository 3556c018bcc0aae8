"""`polarization-aims`: the encoding of the AIMS benchmark (arXiv 2409.08083), for comparison with its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simmat.errors import DataError
from simmat.imageio import read_image, write_image
from simmat.modality import ModalityAdapter, Source
from simmat.types import Channel, SensorImage
from simmat_plugin_polarization.stokes import angle_of, degree_of

if TYPE_CHECKING:
    from simmat.scene import Scene

_COLOURS = ("red", "green", "blue")
ENDINGS = (".tiff", ".tif", ".png")


class Aims(ModalityAdapter):
    """Six planes of 8-bit counts as they lie in `*_aolp.tiff` and `*_dolp.tiff`: angle and degree, of red, green, blue.

    On purpose without physics: the angle is a plain number that jumps from 255 to 0, and flips and turns leave it as
    it is.
    """

    name = "polarization-aims"
    description = "angle and degree of linear polarization as 8-bit colour planes, unchanged: the AIMS benchmark's 6"
    sources = (Source("aolp", ENDINGS), Source("dolp", ENDINGS))
    channels = tuple(
        Channel(f"{quantity}_{colour}", f"encoded_{quantity}", "count", valid_range=(0.0, 255.0))
        for quantity in ("aolp", "dolp")
        for colour in _COLOURS
    )

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read (6, H, W) counts; a file of other than three 8-bit planes raises DataError."""
        images = [read_image(files[source.name]) for source in self.sources]
        for image in images:
            if len(image.planes) != 3 or image.planes.dtype != np.uint8:
                raise DataError(
                    f"{image.path}: {self.name!r} needs three 8-bit planes, got {len(image.planes)} of "
                    f"{image.planes.dtype}; polarization-aolp-dolp reads other files"
                )
        first, second = images
        if first.planes.shape != second.planes.shape:
            raise DataError(f"{second.path}: its size is not that of {first.path}; both must share one pixel grid")
        return SensorImage.from_planes(
            np.concatenate([first.planes, second.planes]), self.channels, origin=str(first.path)
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return angle (0 to 180 degrees as 0 to 255) and degree (0 to 1) that a colour camera measures."""
        from simmat_plugin_polarization.camera import colour_angles
        from simmat_plugin_polarization.stokes import stokes_of

        stokes = np.stack([stokes_of(counts) for counts in colour_angles(scene, rng)])  # (3, 3, H, W)
        angles = [angle_of(s1, s2) / np.pi for _, s1, s2 in stokes]
        degrees = [degree_of(colour).clip(0, 1) for colour in stokes]
        return SensorImage.from_planes(np.rint(np.stack(angles + degrees) * 255), self.channels, origin="simulated")

    def save(self, image: SensorImage, files: Mapping[str, Path]) -> None:
        """Write two files of three 8-bit planes."""
        counts = np.clip(np.rint(image.data), 0, 255).astype(np.uint8)
        write_image(files["aolp"], counts[:3])
        write_image(files["dolp"], counts[3:])


AIMS = Aims()
