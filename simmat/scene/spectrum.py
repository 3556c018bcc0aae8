"""The optical bands that scenes know, from blue to short-wave infrared, and what shines in each.

The clear sky fades by Rayleigh scattering toward long waves, so shadows are deeper and the sky darker in the infrared
than to the eye; clouds and rooms are grey. Levels are relative ones, typical of clear air.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError
from simmat.scene.shading import Bands
from simmat.scene.values import Scene, Surface

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """One optical band.

    Attributes:
        wavelength_um: its centre.
        colour: index into a material's and a light's red, green, blue; None in the infrared.
        diffuse: irradiance from a clear sky, as a share of that in red.
        zenith: radiance of the clear sky overhead, 1 in blue.
        horizon: radiance of the clear sky's hazy horizon, 1 in blue.
        cloud: radiance of a cloud, 1 in blue.
        overcast: radiance overhead of a sky without sun, 1 in blue.
    """

    wavelength_um: float
    colour: int | None
    diffuse: float
    zenith: float
    horizon: float
    cloud: float
    overcast: float


BANDS = {
    "blue": Band(0.46, 2, 1.0, 1.0, 1.0, 1.0, 1.0),
    "green": Band(0.54, 1, 1.0, 0.68, 0.98, 0.98, 0.95),
    "red": Band(0.62, 0, 1.0, 0.45, 0.95, 0.95, 0.9),
    "nir": Band(0.85, None, 0.45, 0.14, 0.45, 0.8, 0.75),
    "swir1": Band(1.6, None, 0.18, 0.03, 0.2, 0.6, 0.55),
    "swir2": Band(2.2, None, 0.12, 0.02, 0.12, 0.5, 0.45),
}
"""Name -> band; in the infrared a material's reflectance is its field `NAME_reflectance`."""

_OVERCAST_SUN = 0.3  # a sun weaker than this is behind clouds, or has set


def optical_bands(scene: Scene, names: Sequence[str]) -> Bands:
    """Return what the named bands meet in a scene, for `simmat.scene.shading.radiance`.

    Raises:
        ConfigError: a name is not in `BANDS`.
    """
    if unknown := [name for name in names if name not in BANDS]:
        raise ConfigError(f"scenes know no optical band {unknown}; they have {list(BANDS)}")
    light, bands = scene.light, [BANDS[name] for name in names]
    clear = _is_clear(scene)

    def reflectance(surface: Surface) -> Array:
        return np.stack([_reflectance(scene, name, surface) for name in names])  # (C, H, W)

    sun = np.array([light.sun_rgb[band.colour or 0] for band in bands])
    ambient = np.array(
        [
            light.ambient_rgb[band.colour or 0] * (band.diffuse if clear and band.colour is None else 1.0)
            for band in bands
        ]
    )
    return Bands(reflectance, sun, ambient, _sky(scene, bands))


def _reflectance(scene: Scene, name: str, surface: Surface) -> Array:
    """Return (H, W) diffuse reflectance of one band."""
    colour = BANDS[name].colour
    if colour is None:
        return scene.of_material(f"{name}_reflectance", surface).astype(np.float64)
    return np.asarray(scene.of_material("albedo_rgb", surface)[colour], dtype=np.float64)


def _is_clear(scene: Scene) -> bool:
    return not scene.light.indoor and max(scene.light.sun_rgb) > _OVERCAST_SUN


def _sky(scene: Scene, bands: Sequence[Band]) -> Array:
    """Return (C, H, W) radiance of the sky: paler toward the horizon; grey where the sun is behind clouds."""
    light = scene.light
    up = np.einsum("c,chw->hw", np.asarray(light.up), -scene.toward_camera().astype(np.float64)).clip(0, 1)
    clear = max(light.sun_rgb) > _OVERCAST_SUN
    zenith = np.array([band.zenith if clear else band.overcast for band in bands])[:, None, None]
    white = np.array([band.cloud for band in bands])[:, None, None]
    pale = np.array([band.horizon for band in bands])[:, None, None] if clear else white
    mix = (up * 2.2).clip(0, 1)
    level = 2.2 * float(np.mean(light.ambient_rgb))
    # Clouds are warm in the long-wave sky; the same field makes them white here.
    warmth = scene.surface.temperature_k - np.where(np.isfinite(scene.surface.depth_m), np.inf, 0)
    cloud = ((warmth - light.sky_k) / max(light.air_k - light.sky_k, 1.0)).clip(0, 1) ** 2
    return np.asarray(level * ((1 - cloud) * (mix * zenith + (1 - mix) * pale) + cloud * white))
