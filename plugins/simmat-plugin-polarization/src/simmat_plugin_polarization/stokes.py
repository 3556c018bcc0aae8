"""Linear Stokes parameters from four polarizers, and angle and degree of linear polarization.

Angles are in radians, counter-clockwise from the horizontal axis of the image. S1 = I0 - I90 and S2 = I45 - I135. The
angle of linear polarization is atan2(S2, S1) / 2; an arctangent of S2 / S1 could not distinguish it from its
perpendicular (Goldstein, Polarized Light, 3rd ed. 2011, chapter 5).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

ANGLES_DEG = (0, 45, 90, 135)


def stokes_of(intensities: Array) -> Array:
    """Return (3, H, W) S0, S1, S2 of (4, H, W) intensities behind polarizers at 0, 45, 90 and 135 degrees."""
    i0, i45, i90, i135 = intensities
    return np.stack([(i0 + i45 + i90 + i135) / 2, i0 - i90, i45 - i135])


def intensities_of(stokes: Array) -> Array:
    """Return (4, ...) intensities behind the four polarizers: I = (S0 + S1 cos 2a + S2 sin 2a) / 2 (Malus' law)."""
    s0, s1, s2 = stokes
    return np.stack([(s0 + s1) / 2, (s0 + s2) / 2, (s0 - s1) / 2, (s0 - s2) / 2])


def angle_of(s1: Array, s2: Array) -> Array:
    """Return the angle of linear polarization, 0 to pi."""
    return np.asarray(within_half_turn(np.arctan2(s2, s1) / 2), dtype=np.float64)


def degree_of(stokes: Array) -> Array:
    """Return the degree of linear polarization of (3, ...) Stokes parameters; 0 without light."""
    s0, s1, s2 = stokes
    return np.asarray(np.hypot(s1, s2) / np.where(s0 > 0, s0, np.inf))


def stokes_from(s0: Array, aolp: Array, dolp: Array) -> Array:
    """Return (3, ...) Stokes parameters of intensity, angle and degree."""
    return np.stack([s0, s0 * dolp * np.cos(2 * aolp), s0 * dolp * np.sin(2 * aolp)])


def within_half_turn(angle: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return angles of undirected lines, wrapped to [0, pi)."""
    turned = np.mod(angle, np.asarray(np.pi, dtype=angle.dtype))
    return np.asarray(turned)
