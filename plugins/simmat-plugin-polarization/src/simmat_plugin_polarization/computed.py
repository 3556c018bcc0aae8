"""`polarization` with files=aolp-dolp: precomputed angle and degree of polarization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simmat import PathsBySource, SensorImage, Source
from simmat.errors import DataError
from simmat.io.images import largest_count, read_image, require_unscaled, write_image
from simmat.types import ImageFile
from simmat_plugin_polarization.angles import ENDINGS, FourAngles
from simmat_plugin_polarization.channels import (
    AOLP,
    DOLP,
    PolarizationAdapter,
    PolarizationOptions,
)
from simmat_plugin_polarization.stokes import Array, angle_of

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

_SLACK = 1e-3


class Computed(PolarizationAdapter):
    """Angle and degree of linear polarization from two files.

    Float files are angles in the unit of the option, and degrees in 0..1. In 8 and 16-bit integer files the full range,
    or that of the bits stated in the file, is 0 to 180 degrees, and 0 to 1.
    """

    description = "polarization camera: angle and degree of linear polarization, precomputed (TIFF, PNG, npy)"
    sources = (Source("aolp", ENDINGS), Source("dolp", ENDINGS))
    channels = (AOLP, DOLP)

    def __init__(self, options: PolarizationOptions | None = None) -> None:
        """Make the sensor; its `half_turn` is 180 degrees in the unit of the angles."""
        super().__init__(options)
        self.half_turn = 180.0 if self.options.angle_unit == "deg" else float(np.pi)
        self.unit = "degrees" if self.options.angle_unit == "deg" else "radians"

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (2, H, W): aolp in radians, dolp.

        The three planes of colour files are averaged as Stokes parameters of equally bright colours, since the files
        do not contain the brightness.
        """
        first, second = (
            read_image(files[name], self.nodata(name)) for name in ("aolp", "dolp")
        )
        for image in (first, second):
            require_unscaled(image, self.name)
        if first.planes.shape != second.planes.shape or len(first.planes) not in (1, 3):
            raise DataError(
                f"{first.path}: {_size(first)}, and {second.path}: {_size(second)}; {self.name!r} needs one or three "
                "planes in each, of one size"
            )
        aolp = self._angle(first)
        dolp = _scaled(second)
        _refuse_beyond(
            second, dolp, 0, 1, "a degree of polarization must be from 0 to 1"
        )
        valid = first.measured & second.measured
        degree, angle = np.where(valid, dolp, 0), np.where(valid, aolp, 0)
        waves = (degree * np.exp(2j * angle)).mean(axis=0)  # (H, W) s1 + i s2
        whole = valid.all(axis=0)
        planes = np.stack(
            [angle_of(waves.real, waves.imag), np.minimum(np.abs(waves), 1)]
        )
        return SensorImage.from_planes(
            planes,
            self.channels,
            valid=np.stack([whole, whole]),
            origin=str(first.path),
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Simulate a camera with four polarizers, and return angle and degree."""
        return FourAngles().simulate(scene, rng).select([1, 2])

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write float32 TIFF or npy, the angle in the unit of the option; invalid pixels are NaN."""
        scales = (self.half_turn / np.pi, 1.0)
        for place, (source, scale) in enumerate(zip(self.sources, scales, strict=True)):
            values = np.where(
                image.valid[place], image.data[place].astype(np.float64) * scale, np.nan
            )
            write_image(files[source.name], values[None].astype(np.float32))

    def _angle(self, image: ImageFile) -> Array:
        """Return (P, H, W) radians."""
        if image.planes.dtype.kind != "f":
            part = _scaled(image)
            _refuse_beyond(
                image, part, 0, 1, "angles must fit into the bits that the file states"
            )
            return part * np.pi
        angle = image.planes.astype(np.float64) / self.half_turn
        limit = f"angles in {self.unit} must be within ±{self.half_turn:g}; give another unit with "
        _refuse_beyond(
            image, angle, -1, 1, limit + "--modality-option angle_unit=rad or deg"
        )
        return angle * np.pi


def _scaled(image: ImageFile) -> Array:
    """Return floats unchanged, and integers as a fraction of their full range."""
    dtype = image.planes.dtype
    if dtype.kind == "f":
        return image.planes.astype(np.float64)
    if dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{image.path}: angle and degree are 8 or 16-bit integers, or floats; got {dtype}"
        )
    return image.planes / np.float64(largest_count(image))


def _refuse_beyond(
    image: ImageFile, values: Array, low: float, high: float, what: str
) -> None:
    measured = values[image.measured]
    if measured.size and (
        measured.min() < low - _SLACK or measured.max() > high + _SLACK
    ):
        stored = image.planes[image.measured]
        raise DataError(
            f"{image.path}: {what}; got {stored.min():.6g} to {stored.max():.6g}"
        )


def _size(image: ImageFile) -> str:
    planes, height, width = image.planes.shape
    return f"{width}x{height} of {planes} planes"
