"""Smooth random fields in space, for textures, bumps and mottled temperatures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_SIDE = 32  # a power of two


class Noise:
    """Value noise: random numbers on a periodic lattice of 32³ points, smoothly interpolated; mean 0, within ±1."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the lattice."""
        self._lattice = rng.uniform(-1, 1, _SIDE**3)

    def __call__(self, points: Array, octaves: int = 3) -> Array:
        """Return (N,) values at (N, 3) points; a lattice cell has side 1, and each octave halves size and amplitude."""
        total = np.zeros(len(points))
        weight, weights = 1.0, 0.0
        for octave in range(octaves):
            total += weight * self._once(points * 2.0**octave + 7.3 * octave)
            weights += weight
            weight /= 2
        return total / weights

    def _once(self, points: Array) -> Array:
        floor = np.floor(points)
        part = points - floor
        part = part * part * (3 - 2 * part)
        low = floor.astype(np.int64) & (_SIDE - 1)
        high = (low + 1) & (_SIDE - 1)
        (x0, y0, z0), (x1, y1, z1) = low.T, high.T
        sx, sy, sz = part.T

        def along_z(x: IntArray, y: IntArray) -> Array:
            row = (x * _SIDE + y) * _SIDE
            a: Array = self._lattice.take(row + z0)
            return np.asarray(a + (self._lattice.take(row + z1) - a) * sz)

        def along_y(x: IntArray) -> Array:
            a = along_z(x, y0)
            return np.asarray(a + (along_z(x, y1) - a) * sy)

        near = along_y(x0)
        return np.asarray(near + (along_y(x1) - near) * sx)

    def gradient(self, points: Array, octaves: int = 2, step: float = 0.05) -> Array:
        """Return (N, 3) slopes of the field, for bumps."""
        here = self(points, octaves)
        return np.stack([(self(points + step * axis, octaves) - here) / step for axis in np.eye(3)], axis=1)
