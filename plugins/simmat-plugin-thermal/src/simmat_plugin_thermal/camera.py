"""Simulate an uncooled 8-14 um camera on a synthetic scene.

Grey-body emission and mirrored surroundings in band radiance (Planck's law), a thin atmosphere, lens blur, vignetting
and fixed pattern left by the calibration, and temporal noise; then brightness temperature for emissivity 1.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from simmat_plugin_scenes import Scene

Array = npt.NDArray[np.float64]

BAND_UM = (8.0, 14.0)
NOISE_K = 0.05
"""Temporal noise at 300 K (NETD 50 mK)."""
LENS_BLUR_PX = 0.8
_FIXED_PATTERN_K = 0.03
_COLUMN_K = 0.04
_VIGNETTE_K = 0.4
_ABSORPTION_PER_M = 0.0004  # clear air, 8-14 um, close to the ground

_H, _C, _KB = 6.62607015e-34, 299_792_458.0, 1.380649e-23  # SI 2019


@cache
def _table() -> tuple[Array, Array]:
    """Return temperatures in K and their band radiance in W m^-2 sr^-1, for interpolation."""
    temperatures = np.concatenate(
        [np.arange(100.0, 400.0, 0.5), np.arange(400.0, 2501.0, 5.0)]
    )
    wavelengths = np.linspace(*BAND_UM, 121) * 1e-6
    exponent = _H * _C / (wavelengths[None] * _KB * temperatures[:, None])
    spectral = 2 * _H * _C**2 / wavelengths[None] ** 5 / np.expm1(exponent)
    step = wavelengths[1] - wavelengths[0]
    return temperatures, np.asarray(
        (spectral[:, 1:] + spectral[:, :-1]).sum(axis=1) * step / 2
    )


def band_radiance(temperature_k: npt.ArrayLike) -> Array:
    """Return the radiance of a black body in the band, W m^-2 sr^-1 (Planck's law, integrated), 100 to 2500 K."""
    return np.interp(np.asarray(temperature_k, dtype=np.float64), *_table())


def to_brightness_temperature(radiance: npt.ArrayLike) -> Array:
    """Invert `band_radiance`: return the temperature in kelvin of a black body with this radiance."""
    temperatures, radiances = _table()
    return np.interp(np.asarray(radiance, dtype=np.float64), radiances, temperatures)


def apparent_temperature(scene: Scene) -> Array:
    """Return (H, W) brightness temperature at the lens, before the camera adds blur and noise.

    L = tau (e B(T) + (1 - e) B(T_mirrored)) + (1 - tau) B(T_air). The emissivity e decreases toward grazing angles as
    the Fresnel reflectance increases (Schlick's approximation), less for rough surfaces.
    """
    surface, light = scene.surface, scene.light
    straight = scene.of_material("emissivity_lwir").astype(np.float64)
    rough = scene.of_material("roughness").astype(np.float64)
    cosine = (
        np.einsum("chw,chw->hw", surface.normal, scene.toward_camera())
        .astype(np.float64)
        .clip(0, 1)
    )
    emissivity = straight * (1 - (1 - 0.8 * rough) * (1 - cosine) ** 5)
    leaving = emissivity * band_radiance(surface.temperature_k) + (
        1 - emissivity
    ) * band_radiance(scene.reflected_k)
    is_sky = ~np.isfinite(surface.depth_m)
    leaving = np.where(is_sky, band_radiance(surface.temperature_k), leaving)
    passed = np.where(
        is_sky, 1.0, np.exp(-_ABSORPTION_PER_M * np.where(is_sky, 0, surface.depth_m))
    )
    return to_brightness_temperature(
        passed * leaving + (1 - passed) * band_radiance(light.air_k)
    )


def brightness_temperature_k(scene: Scene, rng: np.random.Generator) -> Array:
    """Return the (1, H, W) temperature in kelvin that the camera reports."""
    seen = gaussian_filter(band_radiance(apparent_temperature(scene)), LENS_BLUR_PX)
    kelvin = to_brightness_temperature(seen)
    height, width = scene.size_hw
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = -_VIGNETTE_K * rng.uniform(0.3, 1) * (x**2 + y**2) / 2
    columns = rng.normal(size=(1, width)) * _COLUMN_K * 0.5
    fixed = rng.normal(size=scene.size_hw) * _FIXED_PATTERN_K
    noise = rng.normal(size=scene.size_hw) * NOISE_K * _noise_factor(kelvin)
    return np.asarray((kelvin + vignette + columns + fixed + noise)[None])


def _noise_factor(kelvin: Array) -> Array:
    """Return the noise relative to 300 K: it is constant in radiance, so in kelvin it grows as dB/dT decreases."""

    def slope(temperature: Array) -> Array:
        return band_radiance(temperature + 0.5) - band_radiance(temperature - 0.5)

    return slope(np.full_like(kelvin, 300.0)) / slope(kelvin.clip(150, 2000))
