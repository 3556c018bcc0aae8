"""`polarization`: four images behind polarizers at 0, 45, 90 and 135 degrees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simmat import PathsBySource, SensorImage, Source
from simmat.errors import ConfigError, DataError
from simmat.io.images import (
    describe_bits,
    full_scale,
    largest_count,
    read_image,
    require_unscaled,
    stated_bits,
    write_image,
)
from simmat.types import BoolArray, ImageFile
from simmat_plugin_polarization.channels import (
    AOLP,
    DOLP,
    S0,
    PolarizationAdapter,
    from_stokes,
)
from simmat_plugin_polarization.stokes import (
    ANGLES_DEG,
    intensities_of,
    stokes_from,
    stokes_of,
)

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

DARK_COUNTS = 2.0
"""Largest mean of the four intensities that is dark: rounding by half a count is a DoLP error of 0.2 there."""


def saturation_of(image: ImageFile) -> float:
    """Return the smallest saturated count; infinity for floats."""
    return full_scale(largest_count(image))


def dark_limit_of(image: ImageFile) -> float:
    """Return the largest mean of the four intensities that is dark: 0 for floats, which are not rounded."""
    return 0.0 if image.planes.dtype.kind == "f" else DARK_COUNTS


def is_dark(mean: npt.NDArray[np.floating], limit: float = DARK_COUNTS) -> BoolArray:
    """Return bool, True where the mean of the four intensities is too small to give a polarization."""
    return np.asarray(mean <= limit)


NAMES = tuple(f"i{angle}" for angle in ANGLES_DEG)
ENDINGS = (".tif", ".tiff", ".png", ".npy")
BITS = 12
FULL = 2**BITS - 1


class FourAngles(PolarizationAdapter):
    """Intensity, angle and degree of linear polarization from four intensity images, linear in light."""

    description = "polarization camera: four images behind polarizers at 0, 45, 90, 135 degrees (TIFF, PNG, npy)"
    sources = tuple(Source(name, ENDINGS) for name in NAMES)
    channels = (S0, AOLP, DOLP)

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (3, H, W): s0 in counts, aolp in radians, dolp.

        The three planes of colour files are averaged. Angle and degree are invalid where any of the four images is
        saturated or all are dark; s0 is invalid, too, where any of them is.
        """
        images = [read_image(files[name], self.nodata(name)) for name in NAMES]
        check_alike(images)
        for image in images:
            require_unscaled(image, self.name)
        # (4, P, H, W)
        planes = np.stack([image.planes for image in images]).astype(np.float64)
        # one camera: the bits of one file are those of all
        most = min(saturation_of(image) for image in images)
        full = (planes >= most).any(axis=(0, 1))
        found = np.stack([image.measured for image in images])  # (4, P, H, W)
        intensities = np.where(found, planes, 0).mean(axis=1)
        measured = np.asarray(found.all(axis=(0, 1)))
        trusted = ~full & ~is_dark(intensities.mean(axis=0), dark_limit_of(images[0]))
        return from_stokes(
            stokes_of(intensities), measured, trusted, str(images[0].path)
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Simulate a 12-bit camera with four polarizers."""
        from simmat_plugin_polarization.camera import four_angles

        counts = four_angles(scene, rng)
        trusted = (counts < FULL).all(axis=0) & ~is_dark(counts.mean(axis=0))
        return from_stokes(
            stokes_of(counts), np.ones_like(trusted), trusted, "simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write 12-bit counts, rounded; pixels without angle and degree are written as saturated, or dark if they are.

        Raises:
            ConfigError: s0 is invalid somewhere, which counts cannot express.
        """
        if not image.valid[0].all():
            missing = int((~image.valid[0]).sum())
            raise ConfigError(
                f"{files['i0']}: s0 is invalid at {missing} pixels, which counts of 12 bits cannot express"
            )
        for name, counts in zip(NAMES, counts_of(image), strict=True):
            path = Path(files[name])
            tiff = path.suffix.lower() in (".tif", ".tiff")
            write_image(
                path, counts[None], description=describe_bits(BITS) if tiff else ""
            )


def counts_of(image: SensorImage) -> np.ndarray:
    """Return the (4, H, W) uint16 counts, at most 4095, from which `s0`, `aolp` and `dolp` can be computed again."""
    s0, aolp, dolp = image.data.astype(np.float64)
    known = image.valid[1] & image.valid[2]
    intensities = intensities_of(stokes_from(s0, aolp, np.where(known, dolp, 0)))
    full = ~known & ~is_dark(s0 / 2)
    # one saturated, the others chosen to keep s0
    rest = ((2 * s0 - FULL) / 3).clip(0, FULL)
    saturated = np.stack([np.full_like(s0, FULL), rest, rest, rest])
    # a pixel with known polarization must not be read as saturated
    most = np.where(known, FULL - 1, FULL)
    return (
        np.rint(np.where(full, saturated, intensities)).clip(0, most).astype(np.uint16)
    )


def check_alike(images: Sequence[ImageFile]) -> None:
    """Raise DataError if the four images differ in size, planes, number type or stated bits.

    They must have one or three planes. A file without stated bits agrees with any other.
    """
    first = images[0]
    if len(first.planes) not in (1, 3):
        raise DataError(
            f"{first.path}: one or three planes are needed behind each polarizer, got {len(first.planes)}"
        )
    for image in images[1:]:
        if (
            image.planes.shape != first.planes.shape
            or image.planes.dtype != first.planes.dtype
        ):
            raise DataError(
                f"{image.path}: {_kind(image)}, but {first.path} is {_kind(first)}; the four images of a "
                "polarization camera must have the same size and type"
            )
    stated = [
        (image, bits) for image in images if (bits := stated_bits(image)) is not None
    ]
    for image, bits in stated[1:]:
        if bits != stated[0][1]:
            raise DataError(
                f"{image.path}: its description states {bits} bits, that of {stated[0][0].path} {stated[0][1]}; "
                "the four images of a polarization camera must have the same size and type, so correct the "
                "descriptions"
            )


def _kind(image: ImageFile) -> str:
    planes, height, width = image.planes.shape
    return f"{width}x{height}, {planes} of {image.planes.dtype}"
