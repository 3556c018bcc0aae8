"""Reflected light of a scene in any optical bands: visible, near and short-wave infrared.

Lambert and Blinn-Phong shading under a sun and a sky; smooth surfaces mirror by Fresnel (Schlick's approximation), and
glass is looked through. One for all cameras but the polarimeter, which follows Stokes vectors of its
own, so that their pictures of a scene agree in shadows and reflections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simmat.scene.values import Scene, Surface

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bands:
    """What C optical bands meet in a scene.

    Attributes:
        reflectance: of a layer of surfaces: its (C, H, W) diffuse reflectance, before texture.
        sun: (C,) irradiance of the sun or lamp on a surface that faces it.
        ambient: (C,) irradiance from the whole sky or room.
        sky: (C, H, W) radiance of the sky where a pixel sees it.
    """

    reflectance: Callable[[Surface], Array]
    sun: Array
    ambient: Array
    sky: Array


def radiance(scene: Scene, bands: Bands) -> Array:
    """Return (C, H, W) linear radiance; 1 is a white surface under an irradiance of 1."""
    front = _shade(scene, scene.surface, bands)
    clear = scene.of_material("transmits_visible").astype(np.float64)
    if not clear.any():
        return front
    back = _shade(scene, scene.behind, bands)
    mirrored = fresnel(scene)[None] * bands.ambient[:, None, None] * 1.5  # (C, H, W)
    return np.where(clear > 0, front + clear * (1 - fresnel(scene)) * back + mirrored, front)


def fresnel(scene: Scene, surface: Surface | None = None) -> Array:
    """Return (H, W) reflectance by Schlick's approximation, with n and k at normal view."""
    layer = surface or scene.surface
    n = scene.of_material("refractive_index", layer).astype(np.float64)
    k = scene.of_material("extinction", layer).astype(np.float64)
    straight = ((n - 1) ** 2 + k**2) / ((n + 1) ** 2 + k**2)
    cosine = np.einsum("chw,chw->hw", layer.normal, scene.toward_camera()).clip(0, 1)
    return np.asarray(straight + (1 - straight) * (1 - cosine) ** 5)


def _shade(scene: Scene, surface: Surface, bands: Bands) -> Array:
    """Return (C, H, W) radiance of one layer of surfaces."""
    light = scene.light
    toward_sun, view = np.asarray(light.sun_direction), scene.toward_camera().astype(np.float64)
    normal = surface.normal.astype(np.float64)
    facing = np.einsum("c,chw->hw", toward_sun, normal).clip(0, 1) * surface.sunlit
    sun, ambient = (values[:, None, None] for values in (bands.sun, bands.ambient))
    albedo = bands.reflectance(surface) * surface.texture
    diffuse = albedo * (sun * facing + ambient * surface.sky_view)
    half = toward_sun[:, None, None] + view
    half /= np.maximum(np.linalg.norm(half, axis=0), 1e-9)
    rough = scene.of_material("roughness", surface).astype(np.float64)
    power = 2 / np.maximum(rough, 0.03) ** 2
    glint = np.einsum("chw,chw->hw", half, normal).clip(0, 1) ** power * surface.sunlit * (1 - rough) ** 2
    mirror = (1 - rough) ** 2 * fresnel(scene, surface)  # what a glossy surface shows of sky and surroundings
    up = np.asarray(light.up)
    mirrored_up = 2 * np.einsum("chw,chw->hw", normal, view) * np.einsum("c,chw->hw", up, normal) - np.einsum(
        "c,chw->hw", up, view
    )
    around = ambient * np.where(mirrored_up > 0, 1.3 + 0.9 * mirrored_up, 0.5)
    shaded = diffuse + 0.35 * glint * sun + mirror * around
    is_sky = ~np.isfinite(surface.depth_m)
    return np.where(is_sky, bands.sky, shaded)
