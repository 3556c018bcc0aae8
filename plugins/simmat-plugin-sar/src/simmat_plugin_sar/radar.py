"""Simulate a C-band radar next to the camera on a synthetic scene, on the camera's pixel grid.

Real radar images are in slant range. Here every pixel is a resolution cell on the camera's ray, so that there is no
layover and no radar shadow, and all sensors of a scene share one grid. Sigma nought of the material at 35 degrees is
converted to the local angle of incidence: volume and rough surfaces fall with a power of its cosine, smooth surfaces
add a lobe of facets that face the radar (geometric optics; Ulaby, Moore and Fung, Microwave Remote Sensing II, 1982).
A noise floor and speckle follow: gamma-distributed power of L looks, independent for each pixel and polarization.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from simmat_plugin_scenes import Scene

Array = npt.NDArray[np.float64]

LOOKS = 4.0
AMPLITUDE_COUNTS = 2000.0
"""Counts of an amplitude of 1 (0 dB)."""
_NOISE_FLOOR_DB = -30.0
_REFERENCE = np.cos(np.deg2rad(35.0))
_COSINE_POWER = 1.5  # between volume scattering (1) and Lambert's law (2)
# of a smooth surface that faces the radar
_FACET_DB = {"dielectric": 0.0, "metal": 12.0}
_SMOOTH_SLOPE = 0.12  # root mean square slope of the smoothest surfaces


def backscatter(scene: Scene, cross: Sequence[bool], rng: np.random.Generator) -> Array:
    """Return (P, H, W) sigma nought as linear power with speckle; True in `cross` is a cross-polarized plane."""
    clean = np.stack([sigma_nought(scene, cross=plane) for plane in cross])
    floor = 10 ** (_NOISE_FLOOR_DB / 10)
    return np.asarray((clean + floor) * rng.gamma(LOOKS, 1 / LOOKS, clean.shape))


def sigma_nought(scene: Scene, *, cross: bool) -> Array:
    """Return (H, W) backscatter without speckle and noise, linear power."""
    surface = scene.surface
    field = "backscatter_cross_db" if cross else "backscatter_db"
    level = 10 ** (scene.of_material(field).astype(np.float64) / 10)
    cosine = (
        np.einsum("chw,chw->hw", surface.normal, scene.toward_camera())
        .astype(np.float64)
        .clip(0.02, 1)
    )
    spread = level * (cosine / _REFERENCE) ** _COSINE_POWER * surface.texture
    if not cross:  # facets do not change the polarization
        spread = spread + _facets(scene, cosine)
    return np.where(np.isfinite(surface.depth_m), spread, 0.0)


def _facets(scene: Scene, cosine: Array) -> Array:
    """Return the (H, W) lobe: exp(-tan² / 2 s²) / cos⁴, wider and weaker the rougher the surface."""
    rough = scene.of_material("roughness").astype(np.float64)
    metal = scene.of_material("extinction") > 1
    slope = _SMOOTH_SLOPE + 0.5 * rough
    tangent = 1 / cosine**2 - 1
    peak = (
        10 ** (np.where(metal, _FACET_DB["metal"], _FACET_DB["dielectric"]) / 10)
        * (1 - rough) ** 2
    )
    return np.asarray(
        peak
        * np.exp(-tangent / (2 * slope**2))
        / cosine**4
        * (_SMOOTH_SLOPE / slope) ** 2
    )
