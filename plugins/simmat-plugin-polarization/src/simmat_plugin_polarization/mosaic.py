"""`polarization` with files=mosaic: the raw file of a camera with a polarizer on every pixel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simmat import PathsBySource, SensorImage, Source
from simmat.errors import DataError
from simmat.io.images import (
    describe_bits,
    read_image,
    require_one_plane,
    require_unscaled,
    write_image,
)
from simmat.types import BoolArray
from simmat_plugin_polarization.angles import (
    BITS,
    ENDINGS,
    FULL,
    counts_of,
    dark_limit_of,
    is_dark,
    saturation_of,
)
from simmat_plugin_polarization.channels import (
    AOLP,
    DOLP,
    S0,
    PolarizationAdapter,
    from_stokes,
)
from simmat_plugin_polarization.stokes import ANGLES_DEG, Array, stokes_of

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

PATTERN_DEG = ((90, 45), (135, 0))
"""Polarizer angles of each 2x2 block, top row first, as on Sony IMX250MZR and related sensors."""
_BILINEAR = np.outer([1, 2, 1], [1, 2, 1]) / 4


class PolarizerMosaic(PolarizationAdapter):
    """Intensity, angle and degree of linear polarization from one raw plane, at the size of the raw file."""

    description = "polarization camera: raw mosaic of 2x2 polarizers, 90 45 / 135 0 degrees (TIFF, PNG, npy)"
    sources = (Source("mosaic", ENDINGS),)
    channels = (S0, AOLP, DOLP)

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (3, H, W): s0 in counts, aolp in radians, dolp; each angle is interpolated bilinearly.

        Angle and degree are invalid where a saturated pixel enters the interpolation, or all are dark; s0 is invalid,
        too, where a missing pixel enters it.
        """
        image = read_image(files["mosaic"], self.nodata("mosaic"))
        require_one_plane(image, self.name)
        require_unscaled(image, self.name)
        raw = image.planes[0].astype(np.float64)
        if raw.shape[0] % 2 or raw.shape[1] % 2 or min(raw.shape) < 4:
            height, width = raw.shape
            raise DataError(
                f"{image.path}: a mosaic of 2x2 polarizers needs an even width and height of at least 4, got "
                f"{width}x{height}; a cropped file may begin on another polarizer"
            )
        intensities = demosaiced(np.where(image.measured[0], raw, 0))
        dark = is_dark(intensities.mean(axis=0), dark_limit_of(image))
        trusted = ~_interpolated_from(raw >= saturation_of(image)) & ~dark
        return from_stokes(
            stokes_of(intensities),
            ~_interpolated_from(~image.measured[0]),
            trusted,
            str(image.path),
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Simulate a 12-bit camera with such a sensor."""
        from simmat_plugin_polarization.camera import four_angles

        raw = sampled(four_angles(scene, rng))
        intensities = demosaiced(raw)
        trusted = ~_interpolated_from(raw >= FULL) & ~is_dark(intensities.mean(axis=0))
        return from_stokes(
            stokes_of(intensities), np.ones_like(trusted), trusted, "simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write the 12-bit counts behind the polarizer of each pixel; the other three of each pixel are lost."""
        path = Path(files["mosaic"])
        tiff = path.suffix.lower() in (".tif", ".tiff")
        write_image(
            path,
            sampled(counts_of(image))[None],
            description=describe_bits(BITS) if tiff else "",
        )


def sampled(intensities: np.ndarray) -> np.ndarray:
    """Return the (H, W) raw mosaic of (4, H, W) intensities at 0, 45, 90 and 135 degrees."""
    raw = np.empty_like(intensities[0])
    for place, angle in enumerate(ANGLES_DEG):
        raw[sites(angle)] = intensities[place][sites(angle)]
    return np.asarray(raw)


def demosaiced(raw: Array) -> Array:
    """Return (4, H, W) of an (H, W) mosaic: measured values are kept, others are the mean of their neighbours.

    Beyond the border the mosaic is mirrored at the outermost pixel, which keeps its pattern.
    """
    # here, as every command loads this module and few need a mosaic
    from scipy.ndimage import correlate

    planes = np.zeros((4, *raw.shape))
    for plane, angle in zip(planes, ANGLES_DEG, strict=True):
        plane[sites(angle)] = raw[sites(angle)]
        plane[:] = correlate(plane, _BILINEAR, mode="mirror")
    return planes


def sites(angle_deg: int) -> tuple[slice, slice]:
    """Return the index of the pixels behind polarizers of this angle."""
    row, column = next(
        (y, x) for y in (0, 1) for x in (0, 1) if PATTERN_DEG[y][x] == angle_deg
    )
    return slice(row, None, 2), slice(column, None, 2)


def _interpolated_from(pixels: BoolArray) -> BoolArray:
    """Return (H, W) bool, True where any of the given pixels enters the interpolation."""
    return np.asarray((demosaiced(pixels.astype(np.float64)) > 0).any(axis=0))
