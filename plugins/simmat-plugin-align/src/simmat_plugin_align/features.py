"""Edges by their direction: what images of different sensors have in common, whatever is bright in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from simmat.types import BoolArray, FloatArray, SensorImage

DIRECTIONS = 6
"""Number of directions, over 180 degrees: an edge may be dark to bright in one sensor and bright to dark in another."""
MAX_CHANNELS = 4
"""Channels of an image whose edges are used, evenly spaced."""
MAX_SIDE = 640
"""Longer side in pixels that is kept of an image."""
_ALL = 0.999
_REGION_PX = 6.0
"""Size of the surroundings by whose contrast an edge is measured: weak edges count as much as strong ones."""
_BACKGROUND_PX = 8.0
_LEAST_CONTRAST = 0.3
"""Smallest contrast of surroundings, relative to the mean of the image: below it, edges are noise."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """What is kept of an image to compare it with others.

    Attributes:
        planes: (C, h, w) float32, of at most `MAX_SIDE` pixels a side.
        valid: (h, w) bool, True where all planes are.
        size_hw: (height, width) of the image itself.
    """

    planes: FloatArray
    valid: BoolArray
    size_hw: tuple[int, int]

    @classmethod
    def of(cls, image: SensorImage) -> Picture:
        """Return at most `MAX_CHANNELS` planes of an image."""
        count = len(image.channels)
        picked = np.unique(np.linspace(0, count - 1, min(count, MAX_CHANNELS)).round())
        part = image.select([int(index) for index in picked])
        valid = np.asarray(part.valid.all(axis=0))
        scale = min(MAX_SIDE / max(image.size_hw), 1.0)
        height, width = image.size_hw
        shape = max(round(height * scale), 1), max(round(width * scale), 1)
        planes = []
        for plane in part.data:
            usual = plane[valid].mean() if valid.any() else np.float32(0)
            planes.append(_resized(np.where(valid, plane, usual), shape))
        known = _resized(valid.astype(np.float32), shape) > _ALL
        return cls(np.stack(planes), known, image.size_hw)


@dataclass(frozen=True)
class Edges:
    """The edges of an image at a lower resolution.

    Attributes:
        values: (`DIRECTIONS`, h, w), around 0.
        valid: (h, w).
        to_scaled: (3, 3) matrix from homogeneous xy pixels of the image to those of `values`.
    """

    values: FloatArray
    valid: BoolArray
    to_scaled: Matrix


def find_edges(
    picture: Picture, scale: float, *, smooth_px: float = 1.0, blur_px: float = 2.0
) -> Edges:
    """Return the edges of an image whose sides are multiplied by `scale`."""
    height, width = picture.size_hw
    shape = max(round(height * scale), 8), max(round(width * scale), 8)
    valid = _resized(picture.valid.astype(np.float32), shape) > _ALL
    inner = ndimage.binary_erosion(
        valid, iterations=int(3 * smooth_px) + 1, border_value=1
    )
    values = np.zeros((DIRECTIONS, *shape), np.float32)
    for plane in picture.planes:
        values += _directions(_resized(plane, shape), inner, smooth_px)
    values /= len(picture.planes)
    for number, plane in enumerate(values):
        blurred = ndimage.gaussian_filter(plane, blur_px)
        values[number] = blurred - ndimage.gaussian_filter(blurred, _BACKGROUND_PX)
    across, down = shape[1] / width, shape[0] / height
    to_scaled = np.asarray(
        [[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]]
    )
    return Edges(values, valid, to_scaled)


def _directions(plane: FloatArray, inner: BoolArray, smooth_px: float) -> FloatArray:
    """Return (`DIRECTIONS`, h, w): the strength of the edges of each direction, from 0 to 1."""
    smooth = ndimage.gaussian_filter(plane, smooth_px)
    down, across = np.gradient(smooth)
    strength = np.hypot(across, down)
    usual = _LEAST_CONTRAST * strength[inner].mean() if inner.any() else 0.0
    around = ndimage.gaussian_filter(strength * inner, _REGION_PX) + usual + 1e-9
    share = np.tanh(strength / around / 1.5) * inner
    found = []
    for number in range(DIRECTIONS):
        angle = number * np.pi / DIRECTIONS
        along = across * np.cos(angle) + down * np.sin(angle)
        found.append(share * (along / (strength + 1e-9)) ** 4)
    return np.asarray(found, np.float32)


def _resized(plane: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Return a plane of another size: smoothed before it is made smaller, linear between pixels."""
    factors = [old / new for old, new in zip(plane.shape, shape, strict=True)]
    sigma = [max(factor - 1, 0) / 2 for factor in factors]
    smooth = ndimage.gaussian_filter(plane, sigma, mode="nearest")
    rows, columns = (
        (np.arange(new) + 0.5) * factor - 0.5
        for new, factor in zip(shape, factors, strict=True)
    )
    grid = np.meshgrid(rows, columns, indexing="ij")
    found = ndimage.map_coordinates(smooth, grid, order=1, mode="nearest")
    return np.asarray(found, np.float32)
