"""Polarization by surfaces: Fresnel's equations for a complex index n + ik, and for light scattered inside.

Angles of incidence are given by their cosine. "s" is perpendicular to the plane of incidence, "p" parallel to it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def reflectances(cosine: Array, n: Array, k: Array) -> tuple[Array, Array]:
    """Return (Rs, Rp) of a surface against air (Hecht, Optics, 5th ed. 2017, section 4.6)."""
    index = n + 1j * k
    inside = np.sqrt(1 - (1 - cosine**2) / index**2)
    across = (cosine - index * inside) / (cosine + index * inside)
    within = (index * cosine - inside) / (index * cosine + inside)
    return np.abs(across) ** 2, np.abs(within) ** 2


def pane(across: Array, within: Array) -> tuple[Array, Array, Array, Array]:
    """Return (Rs, Rp, Ts, Tp) of a clear pane of two such surfaces, including all reflections between them."""
    rs, rp = 2 * across / (1 + across), 2 * within / (1 + within)
    return rs, rp, 1 - rs, 1 - rp


def diffuse_degree(cosine: Array, n: Array) -> Array:
    """Return the degree of polarization, along p, of light that was scattered inside and leaves the surface.

    Atkinson and Hancock, Recovery of surface orientation from diffuse polarization (IEEE TIP 2006), equation 9.
    """
    sine2 = 1 - cosine**2
    above = (n - 1 / n) ** 2 * sine2
    below = 2 + 2 * n**2 - (n + 1 / n) ** 2 * sine2 + 4 * cosine * np.sqrt(n**2 - sine2)
    return np.asarray(above / below)
