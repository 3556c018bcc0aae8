"""Simulate a silicon camera in red and near-infrared on a synthetic scene.

Reflected light in each band, one automatic exposure for all bands, lens blur, shot and read noise; linear
12-bit counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from simmat_plugin_scenes import Scene, optics

Array = npt.NDArray[np.float64]

WHITE = 4095.0
"""Largest count, 12 bits."""
LENS_BLUR_PX = 0.6
_FULL_WELL = 8000.0  # electrons at white, base gain
_READ_NOISE = 8.0  # electrons
_MAX_GAIN = 12.0


def counts(scene: Scene, bands: Sequence[str], rng: np.random.Generator) -> Array:
    """Return (C, H, W) whole counts 0 to 4095, proportional to radiance below saturation."""
    light = optics.radiance(scene, bands)
    gain = _exposure(scene, light)
    blurred = gaussian_filter(
        (light * gain).clip(0, 1.5), (0, LENS_BLUR_PX, LENS_BLUR_PX)
    )
    full_well = _FULL_WELL / max(gain, 1.0)  # electrons at white fall with the gain
    values = optics.detected(
        blurred, full_well=full_well, read_noise=_READ_NOISE, rng=rng
    )
    return np.asarray(np.rint(values.clip(0, 1) * WHITE))


def _exposure(scene: Scene, light: Array) -> float:
    """Return the gain that brings the bright parts of the ground near white, in the brightest band.

    It is limited so that the sky does not saturate, as NDVI is undefined where both bands are saturated.
    """
    ground = light[:, np.isfinite(scene.surface.depth_m)]
    bright = max(float(np.percentile(band, 98)) for band in ground)
    brightest = max(float(np.percentile(band, 99)) for band in light)
    return min(0.8 / max(bright, 1e-4), 0.95 / max(brightest, 1e-4), _MAX_GAIN)
