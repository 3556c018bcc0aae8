"""Compute points, surface normals, the direction of gravity and HHA from a depth map and the intrinsics.

Coordinates are those of the camera: x right, y down, z away from it. HHA is that of Gupta, Girshick, Arbeláez and
Malik, Learning rich features from RGB-D images (ECCV 2014), in physical units instead of 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simmat.types import BoolArray

Array = npt.NDArray[np.float64]

LEVEL_UP = (0.0, -1.0, 0.0)
"""Up direction of a level camera: against its y axis."""
RADIUS_PX = 3
SAME_SURFACE = 0.05
"""A pixel whose depth differs by more than this fraction from the centre of its window is of another surface."""
GROUND_PERCENT = 1.0
_MIN_PIXELS = 8
_ROUNDS_DEG = (45.0,) * 5 + (15.0,) * 5
_MAX_NORMALS = 50_000


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """Intrinsics of a pinhole camera in pixels; the centre of the top-left pixel is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_card(cls, values: Mapping[str, float]) -> Intrinsics:
        """Read the intrinsics of a data card."""
        return cls(*(float(values[name]) for name in ("fx", "fy", "cx", "cy")))


def points_of(depth_m: Array, camera: Intrinsics) -> Array:
    """Return (3, H, W) points in metres of an (H, W) depth map."""
    rows, columns = np.indices(depth_m.shape)
    return np.stack(
        [
            (columns - camera.cx) / camera.fx * depth_m,
            (rows - camera.cy) / camera.fy * depth_m,
            depth_m,
        ]
    )


def surface_normals(
    depth_m: Array, valid: BoolArray, camera: Intrinsics
) -> tuple[Array, BoolArray]:
    """Fit a plane to the window around every pixel.

    For points P of a plane n·P = d, the reciprocal depth is linear in the pixel coordinates, 1/z = (n/d)·P/z. So a
    linear least-squares fit of 1/z, which is also what stereo cameras measure, gives the normal.

    Args:
        depth_m: (H, W) in metres; values where `valid` is False are not used.
        valid: (H, W) bool.
        camera: the intrinsics.

    Returns:
        (3, H, W) unit normals towards the camera, and (H, W) bool, True where the window has enough of one surface.
    """
    height, width = depth_m.shape
    z = np.pad(np.where(valid, depth_m, np.nan), RADIUS_PX, constant_values=np.nan)
    sums, targets = np.zeros((6, height, width)), np.zeros((3, height, width))
    steps = range(-RADIUS_PX, RADIUS_PX + 1)
    for dy, dx in ((dy, dx) for dy in steps for dx in steps):
        top, left = RADIUS_PX + dy, RADIUS_PX + dx
        there = z[top : top + height, left : left + width]
        near = np.abs(there - depth_m) < SAME_SURFACE * depth_m  # False for NaN
        inverse = np.where(near, 1 / there, 0)
        for place, weight in enumerate((1, dx, dy, dx * dx, dx * dy, dy * dy)):
            sums[place] += weight * near
        for place, weight in enumerate((1, dx, dy)):
            targets[place] += weight * inverse
    n, sx, sy, sxx, sxy, syy = sums
    # (H, W, 3, 3)
    matrices = np.moveaxis(
        np.array([[n, sx, sy], [sx, sxx, sxy], [sy, sxy, syy]]), (0, 1), (2, 3)
    )
    fits = valid & (n >= _MIN_PIXELS) & (np.linalg.det(matrices) > 1)
    constant, per_x, per_y = np.zeros((3, height, width))
    # (N, 3)
    solved = np.linalg.solve(matrices[fits], targets[:, fits].T[..., None])[..., 0]
    constant[fits], per_x[fits], per_y[fits] = solved.T
    rows, columns = np.indices(depth_m.shape)
    at_centre = constant - per_x * (columns - camera.cx) - per_y * (rows - camera.cy)
    normals = -np.stack([per_x * camera.fx, per_y * camera.fy, at_centre])
    length = np.linalg.norm(normals, axis=0)
    fits &= length > 0
    return normals / np.where(fits, length, 1), fits


def estimate_up(normals: Array) -> Array:
    """Estimate the direction against gravity from the surfaces of a scene.

    Floors and tables are perpendicular to it and walls parallel: Gupta, Arbeláez and Malik, Perceptual organization
    and recognition of indoor scenes from RGB-D images (CVPR 2013), section 3. Starting from a level camera, each round
    uses the normals within 45° (then 15°) of the last direction or of its perpendicular.

    Args:
        normals: (N, 3) unit vectors.

    Returns:
        (3,) unit vector; that of a level camera if there are no normals.
    """
    up = np.asarray(LEVEL_UP)
    few = normals[:: max(len(normals) // _MAX_NORMALS, 1)]
    for limit in np.deg2rad(_ROUNDS_DEG):
        along = np.abs(few @ up)
        floors, walls = few[along > np.cos(limit)], few[along < np.sin(limit)]
        if len(floors) + len(walls) == 0:
            break
        _, vectors = np.linalg.eigh(walls.T @ walls - floors.T @ floors)  # ascending
        up = vectors[:, 0] * (1 if vectors[:, 0] @ up >= 0 else -1)
    return np.asarray(up)


def hha(
    depth_m: Array, valid: BoolArray, camera: Intrinsics, up: Array | None = None
) -> tuple[Array, BoolArray]:
    """Compute horizontal disparity, height above ground and angle with gravity.

    Args:
        depth_m: (H, W) in metres.
        valid: (H, W) bool.
        camera: the intrinsics.
        up: (3,) unit vector against gravity; None estimates it, see `estimate_up`.

    Returns:
        (3, H, W): 1/depth in 1/m; height in metres above the 1st percentile of all heights; angle in degrees between
        surface normal and up (0 floor, 90 wall, 180 ceiling). And (3, H, W) bool, True where they are valid.
    """
    depth_m = np.where(valid, depth_m, 1.0)
    normals, known = surface_normals(depth_m, valid, camera)
    if up is None:
        up = estimate_up(normals[:, known].T)
    height = np.einsum("c,chw->hw", up, points_of(depth_m, camera))
    ground = np.percentile(height[valid], GROUND_PERCENT) if valid.any() else 0.0
    angle = np.rad2deg(np.arccos(np.einsum("c,chw->hw", up, normals).clip(-1, 1)))
    return np.stack([1 / depth_m, height - ground, angle]), np.stack(
        [valid, valid, known]
    )
