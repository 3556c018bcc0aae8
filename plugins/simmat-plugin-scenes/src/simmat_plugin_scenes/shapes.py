"""Solid shapes and their intersections with rays.

A ray is origin + t·direction. Every shape is an affine map of a unit shape, so one formula serves all sizes and poses;
t is the same in both frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Kind = Literal["ellipsoid", "box", "cylinder", "capsule", "plane"]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One solid.

    Attributes:
        kind: "ellipsoid" |p| <= 1, "box" |x|,|y|,|z| <= 1, "cylinder" around y with |y| <= 1, "capsule" around y of
            radius 1 and straight part |y| <= `half`, "plane" y <= 0; all in the local frame.
        centre: (3,) in metres, world frame.
        to_local: (3, 3); local = to_local @ (world - centre).
        radius_m: of a sphere around the centre that contains the shape; infinite for a plane.
        half: see "capsule".
    """

    kind: Kind
    centre: Array
    to_local: Array
    radius_m: float
    half: float = 0.0

    def moved(self, rotation: Array, offset: Array) -> Shape:
        """Return the shape rotated by `rotation` (3, 3) about the origin, then moved by `offset`."""
        return Shape(
            self.kind,
            rotation @ self.centre + offset,
            self.to_local @ rotation.T,
            self.radius_m,
            self.half,
        )

    def local(self, points: Array) -> Array:
        """Map (N, 3) world points to the local frame."""
        return (points - self.centre) @ self.to_local.T

    def intersect(self, origins: Array, directions: Array) -> Array:
        """Return (N,) t of the first point where each ray enters the shape; infinite if it misses.

        Args:
            origins: (N, 3) or (1, 3), outside the shape.
            directions: (N, 3) unit vectors.
        """
        hits = np.full(len(directions), np.inf)
        near = self._near(origins, directions)
        if not near.any():
            return hits
        start = (
            self.local(origins)[near]
            if len(origins) > 1
            else np.repeat(self.local(origins), near.sum(), axis=0)
        )
        along = directions[near] @ self.to_local.T
        found = _INTERSECT[self.kind](start, along, self.half)
        hits[near] = np.where(found > 1e-9, found, np.inf)
        return hits

    def normal(self, points: Array) -> Array:
        """Return (N, 3) outward unit normals at (N, 3) world points on the surface."""
        local = self.local(points)
        if self.kind == "ellipsoid":
            normals = local
        elif self.kind == "box":
            normals = np.where(
                np.abs(local) >= np.abs(local).max(axis=1, keepdims=True),
                np.sign(local),
                0.0,
            )
        elif self.kind == "plane":
            normals = np.broadcast_to(np.array([0.0, 1.0, 0.0]), local.shape)
        elif self.kind == "capsule":
            normals = local - np.clip(local, [0, -self.half, 0], [0, self.half, 0])
        else:
            on_cap = np.abs(local[:, 1]) > np.hypot(local[:, 0], local[:, 2])
            cap = np.stack(
                [np.zeros(len(local)), np.sign(local[:, 1]), np.zeros(len(local))],
                axis=1,
            )
            normals = np.where(on_cap[:, None], cap, local * [1, 0, 1])
        # a normal maps by the transposed inverse, here (to_local)^T
        world = normals @ self.to_local
        return np.asarray(
            world / np.maximum(np.linalg.norm(world, axis=1, keepdims=True), 1e-12)
        )

    def _near(self, origins: Array, directions: Array) -> npt.NDArray[np.bool_]:
        """Return (N,) True for rays that hit the bounding sphere."""
        if not np.isfinite(self.radius_m):
            return np.ones(len(directions), dtype=bool)
        to_centre = self.centre - origins
        along = np.einsum(
            "ij,ij->i", np.broadcast_to(to_centre, directions.shape), directions
        )
        squared = np.einsum("ij,ij->i", to_centre, to_centre) - along**2
        return np.asarray((squared <= self.radius_m**2) & (along > -self.radius_m))


def ellipsoid(centre: npt.ArrayLike, half_m: npt.ArrayLike) -> Shape:
    """Make an ellipsoid of half axes `half_m` (3,)."""
    return _scaled("ellipsoid", centre, half_m, float(np.max(half_m)))


def box(centre: npt.ArrayLike, half_m: npt.ArrayLike) -> Shape:
    """Make a box of half sides `half_m` (3,)."""
    return _scaled("box", centre, half_m, float(np.linalg.norm(half_m)))


def cylinder(
    centre: npt.ArrayLike, radius_m: float, half_height_m: float, axis: int = 1
) -> Shape:
    """Make a closed cylinder along x (0), y (1) or z (2)."""
    upright = _scaled(
        "cylinder",
        (0, 0, 0),
        (radius_m, half_height_m, radius_m),
        float(np.hypot(radius_m, half_height_m)),
    )
    order = {
        0: [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
        1: np.eye(3),
        2: [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
    }[axis]
    return upright.moved(
        np.asarray(order, dtype=float), np.asarray(centre, dtype=float)
    )


def capsule(start: npt.ArrayLike, end: npt.ArrayLike, radius_m: float) -> Shape:
    """Make a rod with round ends from `start` to `end`; local y runs from start to end."""
    a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    length = max(float(np.linalg.norm(b - a)), 1e-6)
    y = (b - a) / length
    x = np.cross(y, [0.0, 0.0, 1.0] if abs(y[2]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    frame = np.stack([x, y, np.cross(x, y)]) / radius_m
    return Shape(
        "capsule", (a + b) / 2, frame, length / 2 + radius_m, length / 2 / radius_m
    )


def plane(point: npt.ArrayLike, normal: npt.ArrayLike) -> Shape:
    """Make a half space whose surface goes through `point`; local x and z are metres on the surface."""
    y = np.asarray(normal, dtype=float) / np.linalg.norm(normal)
    x = np.cross(y, [0.0, 0.0, 1.0] if abs(y[2]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    return Shape(
        "plane",
        np.asarray(point, dtype=float),
        np.stack([x, y, np.cross(x, y)]),
        float("inf"),
    )


def _scaled(
    kind: Kind, centre: npt.ArrayLike, half_m: npt.ArrayLike, radius_m: float
) -> Shape:
    return Shape(
        kind,
        np.asarray(centre, dtype=float),
        np.diag(1 / np.asarray(half_m, dtype=float)),
        radius_m,
    )


def _quadratic(a: Array, b: Array, c: Array) -> Array:
    """Return the smaller root of a·t² + 2b·t + c, infinite if there is none."""
    inside = b * b - a * c
    root = (-b - np.sqrt(np.maximum(inside, 0))) / np.where(a == 0, 1e-30, a)
    return np.where((inside >= 0) & (a > 1e-15), root, np.inf)


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _intersect_ellipsoid(o: Array, d: Array, half: float) -> Array:
    return _quadratic(_dot(d, d), _dot(o, d), _dot(o, o) - 1)


def _intersect_box(o: Array, d: Array, half: float) -> Array:
    inverse = 1 / np.where(np.abs(d) < 1e-12, 1e-12, d)
    first, second = (-1 - o) * inverse, (1 - o) * inverse
    enter = np.minimum(first, second).max(axis=1)
    leave = np.maximum(first, second).min(axis=1)
    return np.where(enter <= leave, enter, np.inf)


def _intersect_tube(o: Array, d: Array, half: float) -> Array:
    """Return t of the side of a tube of radius 1 around y, |y| <= half."""
    flat_o, flat_d = o[:, [0, 2]], d[:, [0, 2]]
    t = _quadratic(_dot(flat_d, flat_d), _dot(flat_o, flat_d), _dot(flat_o, flat_o) - 1)
    y = o[:, 1] + np.where(np.isfinite(t), t, 0) * d[:, 1]
    return np.where(np.abs(y) <= half, t, np.inf)


def _intersect_cylinder(o: Array, d: Array, half: float) -> Array:
    dy = np.where(np.abs(d[:, 1]) < 1e-12, 1e-12, d[:, 1])
    cap = (-np.sign(dy) - o[:, 1]) / dy  # the cap that faces the ray
    at_cap = o[:, [0, 2]] + cap[:, None] * d[:, [0, 2]]
    cap = np.where(_dot(at_cap, at_cap) <= 1, cap, np.inf)
    return np.minimum(_intersect_tube(o, d, 1.0), cap)


def _intersect_capsule(o: Array, d: Array, half: float) -> Array:
    best = _intersect_tube(o, d, half)
    for end in (-half, half):
        moved = o - [0.0, end, 0.0]
        best = np.minimum(
            best, _quadratic(_dot(d, d), _dot(moved, d), _dot(moved, moved) - 1)
        )
    return best


def _intersect_plane(o: Array, d: Array, half: float) -> Array:
    falling = d[:, 1] < -1e-9
    return np.where(falling, -o[:, 1] / np.where(falling, d[:, 1], -1.0), np.inf)


_INTERSECT = {
    "ellipsoid": _intersect_ellipsoid,
    "box": _intersect_box,
    "cylinder": _intersect_cylinder,
    "capsule": _intersect_capsule,
    "plane": _intersect_plane,
}
