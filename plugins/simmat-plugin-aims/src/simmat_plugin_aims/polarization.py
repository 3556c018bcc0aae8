"""`polarization-aims`, `polarization-aims-angles`: the encoding of the AIMS benchmark (arXiv 2409.08083)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from simmat_plugin_polarization.angles import NAMES, check_alike
from simmat_plugin_polarization.stokes import (
    Array,
    angle_of,
    degree_of,
    intensities_of,
    stokes_from,
    stokes_of,
)

from simmat import Channel, ModalityAdapter, PathsBySource, SensorImage, Source
from simmat.errors import DataError
from simmat.io.images import read_image, write_image
from simmat.types import RGB_QUANTITY, BoolArray

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

_COLOURS = ("red", "green", "blue")
ENDINGS = (".tiff", ".tif", ".png")
_FULL = 255


class Aims(ModalityAdapter):
    """Six planes of 8-bit counts from `*_aolp.tiff` and `*_dolp.tiff`: angle and degree, each of red, green, blue.

    As in the benchmark, angles are treated as plain numbers: they jump from 255 to 0, and flips and rotations do not
    change them.
    """

    name = "polarization-aims"
    description = "angle and degree of linear polarization as 8-bit colour planes, unchanged: the AIMS benchmark's 6"
    sources = (Source("aolp", ENDINGS), Source("dolp", ENDINGS))
    channels = tuple(
        Channel(
            f"{quantity}_{colour}",
            f"encoded_{quantity}",
            "count",
            valid_range=(0.0, 255.0),
        )
        for quantity in ("aolp", "dolp")
        for colour in _COLOURS
    )

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (6, H, W) counts; DataError if a file does not have three 8-bit planes."""
        images = [
            read_image(files[name], self.nodata(name)) for name in self.source_names()
        ]
        for image in images:
            if len(image.planes) != 3 or image.planes.dtype != np.uint8:
                raise DataError(
                    f"{image.path}: {self.name!r} needs three 8-bit planes, got {len(image.planes)} of "
                    f"{image.planes.dtype}; polarization with files=aolp-dolp reads other files"
                )
        first, second = images
        if first.planes.shape != second.planes.shape:
            raise DataError(
                f"{second.path}: its size differs from that of {first.path}; both must have the same pixel grid"
            )
        return SensorImage.from_planes(
            np.concatenate([first.planes, second.planes]),
            self.channels,
            valid=np.concatenate([first.measured, second.measured]),
            origin=str(first.path),
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return angle (0 to 180 degrees as 0 to 255) and degree (0 to 1) that a colour camera measures."""
        from simmat_plugin_polarization.camera import colour_angles

        encoded = encode(
            np.stack([stokes_of(counts) for counts in colour_angles(scene, rng)])
        )
        return SensorImage.from_planes(
            np.rint(encoded), self.channels, origin="simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write two files of three 8-bit planes."""
        counts = np.clip(np.rint(image.data), 0, 255).astype(np.uint8)
        write_image(files["aolp"], counts[:3])
        write_image(files["dolp"], counts[3:])


class AimsAngles(ModalityAdapter):
    """Nine planes from four colour pictures: red, green, blue (half of S0), and angle and degree of each, 0 to 255.

    This is the encoding of `rgb+polarization-aims`, for data sets that publish only the pictures behind the polarizers.
    Flips and rotations do not change the angles.
    """

    name = "polarization-aims-angles"
    description = "colour, angle and degree as 8-bit planes, from four colour pictures: the AIMS benchmark's 9"
    sources = tuple(
        Source(name, (".png", ".tiff", ".tif", ".jpg", ".jpeg")) for name in NAMES
    )
    channels = (
        *(
            Channel(colour, RGB_QUANTITY, "count", valid_range=(0.0, 255.0))
            for colour in _COLOURS
        ),
        *Aims.channels,
    )

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (9, H, W); DataError if the files do not have three 8-bit planes."""
        images = [read_image(files[name], self.nodata(name)) for name in NAMES]
        check_alike(images)
        if len(images[0].planes) != 3 or images[0].planes.dtype != np.uint8:
            raise DataError(
                f"{images[0].path}: {self.name!r} needs three 8-bit planes behind each polarizer, got "
                f"{len(images[0].planes)} of {images[0].planes.dtype}; polarization reads other files"
            )
        # (3, 4, H, W)
        pictures = np.stack([image.planes for image in images], axis=1).astype(
            np.float64
        )
        # (3, H, W): a colour needs all four
        measured = np.all([image.measured for image in images], axis=0)
        return self._encoded(pictures, measured, str(images[0].path))

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the encoded 8-bit pictures of a colour camera with four polarizers."""
        from simmat_plugin_polarization.camera import FULL_COUNTS, colour_angles

        # (3, 4, H, W)
        pictures = np.rint(colour_angles(scene, rng) * (_FULL / FULL_COUNTS))
        return self._encoded(
            pictures, np.ones_like(pictures[:, 0], dtype=np.bool_), "simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write four colour pictures of 8 bits, rounded."""
        # mean, angle, degree of three colours
        colours = image.data.astype(np.float64).reshape(3, 3, *image.size_hw)
        # (3, 3, H, W)
        stokes = stokes_from(
            2 * colours[0], colours[1] / _FULL * np.pi, colours[2] / _FULL
        )
        for name, picture in zip(NAMES, intensities_of(stokes), strict=True):
            write_image(files[name], np.rint(picture).clip(0, _FULL).astype(np.uint8))

    def _encoded(
        self, pictures: Array, measured: BoolArray, origin: str
    ) -> SensorImage:
        stokes = np.stack([stokes_of(colour) for colour in pictures])  # (3, 3, H, W)
        return SensorImage.from_planes(
            np.concatenate([stokes[:, 0] / 2, encode(stokes)]),
            self.channels,
            valid=np.tile(measured, (3, 1, 1)),  # mean, angle and degree of each colour
            origin=origin,
        )


def encode(stokes: Array) -> Array:
    """Return (6, H, W): angle (0 to 180 degrees) and degree (0 to 1) of three colours as 0 to 255.

    Args:
        stokes: (3, 3, H, W) S0, S1, S2 of red, green, blue.
    """
    angles = [angle_of(s1, s2) / np.pi for _, s1, s2 in stokes]
    degrees = [degree_of(colour).clip(0, 1) for colour in stokes]
    return np.stack(angles + degrees) * _FULL


AIMS = Aims()
AIMS_ANGLES = AimsAngles()
