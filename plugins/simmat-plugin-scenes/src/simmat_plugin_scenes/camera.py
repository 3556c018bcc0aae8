"""Simulate a visible-light camera on a synthetic scene.

Reflected light, automatic exposure, lens blur, shot and read noise, the sRGB curve (IEC 61966-2-1),
8 bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from simmat.sensors.simulated_scene import Scene
from simmat_plugin_scenes.optics import detected, radiance

Array = npt.NDArray[np.float64]

LENS_BLUR_PX = 0.55
_FULL_WELL = 6000.0  # electrons at white, base gain
_READ_NOISE = 6.0  # electrons
_MAX_GAIN = 12.0
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709


def rgb_counts(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (3, H, W) whole sRGB counts 0 to 255 of a colour camera."""
    exposed, gain = _exposed(scene, visible_radiance(scene))
    return _develop(exposed, gain, rng)


def gray_counts(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (1, H, W) whole counts 0 to 255 of a monochrome camera, which measures Rec. 709 luminance."""
    luminance = np.einsum("c,chw->hw", _LUMINANCE, visible_radiance(scene))[None]  # (1, H, W)
    exposed, gain = _exposed(scene, luminance)
    return _develop(exposed, gain, rng)


def visible_radiance(scene: Scene) -> Array:
    """Return (3, H, W) linear radiance in red, green and blue; 1 is a white surface under an irradiance of 1."""
    return radiance(scene, ("red", "green", "blue"))


def _exposed(scene: Scene, linear: Array) -> tuple[Array, float]:
    """Scale (C, H, W) by automatic exposure; return the gain too.

    The bright parts below the sky become nearly white, but a surface of reflectance 0.5 does not saturate.
    """
    metered = linear[:, np.isfinite(scene.surface.depth_m)]
    incident = max(scene.light.sun_rgb) + max(scene.light.ambient_rgb)
    gain = min(0.7 / max(float(np.percentile(metered, 97)), 1e-4), 1 / (0.5 * incident), _MAX_GAIN)
    return linear * gain, gain


def _develop(linear: Array, gain: float, rng: np.random.Generator) -> Array:
    """Blur, add noise, apply the sRGB curve and round: (C, H, W) whole numbers 0 to 255."""
    blurred = gaussian_filter(linear.clip(0, 1.5), (0, LENS_BLUR_PX, LENS_BLUR_PX))
    full_well = _FULL_WELL / max(gain, 1.0)  # electrons at white fall with the gain
    values = detected(blurred, full_well=full_well, read_noise=_READ_NOISE, rng=rng).clip(0, 1)
    curved = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(curved * 255))
