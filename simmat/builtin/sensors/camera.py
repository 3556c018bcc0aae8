"""What a visible-light camera sees of a synthetic scene.

The light that the scene reflects (`simmat.scene.shading`), automatic exposure, lens blur, shot and read noise, the
sRGB curve (IEC 61966-2-1), 8 bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from simmat.scene import Scene, Surface
from simmat.scene.shading import Bands, radiance

Array = npt.NDArray[np.float64]

LENS_BLUR_PX = 0.55
_FULL_WELL = 6000.0  # electrons at white, base gain
_READ_NOISE = 6.0  # electrons
_MOST_GAIN = 12.0
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709


def rgb_counts(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (3, H, W) whole sRGB counts 0 to 255 of a colour camera."""
    exposed, gain = _exposed(scene, visible_radiance(scene))
    return _develop(exposed, gain, rng)


def gray_counts(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (1, H, W) whole counts 0 to 255 of a monochrome camera, which sees Rec. 709 luminance."""
    luminance = np.einsum("c,chw->hw", _LUMINANCE, visible_radiance(scene))[None]  # (1, H, W)
    exposed, gain = _exposed(scene, luminance)
    return _develop(exposed, gain, rng)


def visible_radiance(scene: Scene) -> Array:
    """Return (3, H, W) linear radiance in red, green and blue; 1 is a white surface under an irradiance of 1."""
    light = scene.light

    def albedo(surface: Surface) -> Array:
        return scene.of_material("albedo_rgb", surface).astype(np.float64)

    return radiance(scene, Bands(albedo, np.asarray(light.sun_rgb), np.asarray(light.ambient_rgb), _sky(scene)))


def _sky(scene: Scene) -> Array:
    """Return (3, H, W) radiance of the sky: paler toward the horizon; grey where the sun is behind clouds."""
    light = scene.light
    up = np.einsum("c,chw->hw", np.asarray(light.up), -scene.toward_camera().astype(np.float64)).clip(0, 1)
    clear = max(light.sun_rgb) > 0.3
    blue = np.array([0.45, 0.68, 1.0] if clear else [0.9, 0.95, 1.0])[:, None, None]
    pale = np.array([0.95, 0.98, 1.0])[:, None, None]
    mix = (up * 2.2).clip(0, 1)
    level = 2.2 * float(np.mean(light.ambient_rgb))
    # Clouds are warm in the long-wave sky; the same field makes them white here.
    warmth = scene.surface.temperature_k - np.where(np.isfinite(scene.surface.depth_m), np.inf, 0)
    cloud = ((warmth - light.sky_k) / max(light.air_k - light.sky_k, 1.0)).clip(0, 1) ** 2
    return np.asarray(level * ((1 - cloud) * (mix * blue + (1 - mix) * pale) + cloud * pale))


def _exposed(scene: Scene, linear: Array) -> tuple[Array, float]:
    """Scale (C, H, W) by automatic exposure; return the gain too.

    The bright parts below the sky come near white, but not where that would burn out a surface of reflectance 0.5.
    """
    metered = linear[:, np.isfinite(scene.surface.depth_m)]
    incident = max(scene.light.sun_rgb) + max(scene.light.ambient_rgb)
    gain = min(0.7 / max(float(np.percentile(metered, 97)), 1e-4), 1 / (0.5 * incident), _MOST_GAIN)
    return linear * gain, gain


def _develop(linear: Array, gain: float, rng: np.random.Generator) -> Array:
    """Blur, add noise, apply the sRGB curve and count: (C, H, W) of whole numbers 0 to 255."""
    blurred = gaussian_filter(linear.clip(0, 1.5), (0, LENS_BLUR_PX, LENS_BLUR_PX))
    amplified = max(gain, 1.0)  # electrons at white fall with the gain
    electrons = blurred * _FULL_WELL / amplified
    noisy = electrons + rng.normal(size=linear.shape) * np.sqrt(electrons + _READ_NOISE**2)
    values = (noisy * amplified / _FULL_WELL).clip(0, 1)
    curved = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(curved * 255))
