"""Light that reaches a camera, from blue to short-wave infrared, and the noise of a detector.

Lambert and Blinn-Phong shading under a sun and a sky; smooth surfaces mirror by Fresnel (Schlick's approximation), and
glass is transparent. All cameras except the polarimeter, which uses Stokes vectors, share this code, so that shadows
and reflections in their images agree.

The clear sky is darker at long wavelengths (Rayleigh scattering), so shadows and sky are darker in the infrared than in
visible light; clouds and rooms are grey. Levels are relative, typical of clear air.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError
from simmat_plugin_scenes.scene import Scene, Surface

Array = npt.NDArray[np.float64]


class Band(NamedTuple):
    """One optical band.

    Attributes:
        wavelength_um: its centre.
        colour: index into the red, green, blue of materials and lights; None in the infrared.
        diffuse: irradiance from a clear sky, as a fraction of that in red.
        zenith: radiance of the clear sky overhead, 1 in blue.
        horizon: radiance of the clear sky at the hazy horizon, 1 in blue.
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
"""Name -> band; infrared reflectance of a material is its field `NAME_reflectance`."""

INFRARED = ("nir", "swir1", "swir2")
"""The order of `Material.infrared_transmittance`."""
_OVERCAST_SUN = 0.3  # a sun weaker than this is behind clouds, or has set


def radiance(scene: Scene, names: Sequence[str]) -> Array:
    """Return (C, H, W) linear radiance in the named bands; 1 is a white surface under an irradiance of 1.

    Raises:
        ConfigError: a name is not in `BANDS`.
    """
    if unknown := [name for name in names if name not in BANDS]:
        raise ConfigError(f"unknown optical bands {unknown}; scenes have {list(BANDS)}")
    front = _shade(scene, scene.surface, names)
    clear = scene.of_material("transmits_visible").astype(np.float64)
    if not clear.any():
        return front
    back, ambient = _shade(scene, scene.behind, names), irradiance(scene, names)[1]
    infrared = scene.of_material("infrared_transmittance")  # (3, H, W)
    for place, name in enumerate(names):
        if name in INFRARED:
            back[place] *= infrared[INFRARED.index(name)]
    mirrored = fresnel(scene)[None] * ambient[:, None, None] * 1.5  # (C, H, W)
    return np.where(
        clear > 0, front + clear * (1 - fresnel(scene)) * back + mirrored, front
    )


def irradiance(scene: Scene, names: Sequence[str]) -> tuple[Array, Array]:
    """Return (C,) irradiance of the sun or lamp on a surface that faces it, and (C,) from the whole sky or room."""
    light, bands = scene.light, [BANDS[name] for name in names]
    sun = np.array([light.sun_rgb[band.colour or 0] for band in bands])
    blue_sky = not light.indoor and max(light.sun_rgb) > _OVERCAST_SUN
    diffuse = np.array(
        [band.diffuse if blue_sky and band.colour is None else 1.0 for band in bands]
    )
    return sun, np.array(
        [light.ambient_rgb[band.colour or 0] for band in bands]
    ) * diffuse


def fresnel(scene: Scene, surface: Surface | None = None) -> Array:
    """Return (H, W) Fresnel reflectance by Schlick's approximation, from n and k of the materials."""
    layer = surface or scene.surface
    n = scene.of_material("refractive_index", layer).astype(np.float64)
    k = scene.of_material("extinction", layer).astype(np.float64)
    straight = ((n - 1) ** 2 + k**2) / ((n + 1) ** 2 + k**2)
    cosine = np.einsum("chw,chw->hw", layer.normal, scene.toward_camera()).clip(0, 1)
    return np.asarray(straight + (1 - straight) * (1 - cosine) ** 5)


def _shade(scene: Scene, surface: Surface, names: Sequence[str]) -> Array:
    """Return (C, H, W) radiance of one layer of surfaces."""
    light = scene.light
    toward_sun, view = (
        np.asarray(light.sun_direction),
        scene.toward_camera().astype(np.float64),
    )
    normal = surface.normal.astype(np.float64)
    facing = np.einsum("c,chw->hw", toward_sun, normal).clip(0, 1) * surface.sunlit
    sun, ambient = (values[:, None, None] for values in irradiance(scene, names))
    # (C, H, W)
    albedo = (
        np.stack([_reflectance(scene, name, surface) for name in names])
        * surface.texture
    )
    diffuse = albedo * (sun * facing + ambient * surface.sky_view)
    half = toward_sun[:, None, None] + view
    half /= np.maximum(np.linalg.norm(half, axis=0), 1e-9)
    rough = scene.of_material("roughness", surface).astype(np.float64)
    power = 2 / np.maximum(rough, 0.03) ** 2
    glint = (
        np.einsum("chw,chw->hw", half, normal).clip(0, 1) ** power
        * surface.sunlit
        * (1 - rough) ** 2
    )
    # how much a glossy surface mirrors
    mirror = (1 - rough) ** 2 * fresnel(scene, surface)
    up = np.asarray(light.up)
    mirrored_up = 2 * np.einsum("chw,chw->hw", normal, view) * np.einsum(
        "c,chw->hw", up, normal
    ) - np.einsum("c,chw->hw", up, view)
    around = ambient * np.where(mirrored_up > 0, 1.3 + 0.9 * mirrored_up, 0.5)
    shaded = diffuse + 0.35 * glint * sun + mirror * around
    is_sky = ~np.isfinite(surface.depth_m)
    return np.where(is_sky, _sky(scene, [BANDS[name] for name in names]), shaded)


def detected(
    exposure: Array, *, full_well: float, read_noise: float, rng: np.random.Generator
) -> Array:
    """Add shot and read noise, both normally distributed.

    Args:
        exposure: of any shape, not negative; 1 fills the wells.
        full_well: electrons at an exposure of 1.
        read_noise: its standard deviation in electrons.
        rng: the source of randomness.

    Returns:
        The reading in the unit and shape of `exposure`, not clipped: it may be below 0 or above 1.
    """
    electrons = exposure * full_well
    noisy = electrons + rng.normal(size=electrons.shape) * np.sqrt(
        electrons + read_noise**2
    )
    return np.asarray(noisy / full_well)


def _reflectance(scene: Scene, name: str, surface: Surface) -> Array:
    """Return (H, W) diffuse reflectance of one band."""
    colour = BANDS[name].colour
    if colour is None:
        return scene.of_material(f"{name}_reflectance", surface).astype(np.float64)
    return np.asarray(
        scene.of_material("albedo_rgb", surface)[colour], dtype=np.float64
    )


def _sky(scene: Scene, bands: Sequence[Band]) -> Array:
    """Return (C, H, W) radiance of the sky: paler toward the horizon, grey if the sun is behind clouds."""
    light = scene.light
    up = np.einsum(
        "c,chw->hw", np.asarray(light.up), -scene.toward_camera().astype(np.float64)
    ).clip(0, 1)
    clear = max(light.sun_rgb) > _OVERCAST_SUN
    zenith = np.array([band.zenith if clear else band.overcast for band in bands])[
        :, None, None
    ]
    white = np.array([band.cloud for band in bands])[:, None, None]
    pale = np.array([band.horizon for band in bands])[:, None, None] if clear else white
    mix = (up * 2.2).clip(0, 1)
    level = 2.2 * float(np.mean(light.ambient_rgb))
    # Clouds are where the long-wave sky temperature is high.
    warmth = scene.surface.temperature_k - np.where(
        np.isfinite(scene.surface.depth_m), np.inf, 0
    )
    cloud = ((warmth - light.sky_k) / max(light.air_k - light.sky_k, 1.0)).clip(
        0, 1
    ) ** 2
    return np.asarray(
        level * ((1 - cloud) * (mix * zenith + (1 - mix) * pale) + cloud * white)
    )
