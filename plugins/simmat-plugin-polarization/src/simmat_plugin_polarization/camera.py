"""Simulate a camera with four polarizers on a synthetic scene.

The light of a pixel is a sum: light scattered inside the body (weakly polarized in the plane of incidence, so the angle
follows the azimuth of the normal), light mirrored at the surface (strongly polarized across that plane), and through
glass the light from behind, as Stokes parameters. The clear sky has Rayleigh polarization. Lens blur, exposure, shot
and read noise, and 12 bits follow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from simmat_plugin_scenes import Scene, Surface
from simmat_plugin_scenes.optics import detected

from simmat_plugin_polarization.stokes import intensities_of


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


Array = npt.NDArray[np.float64]

LENS_BLUR_PX = 0.6
FULL_COUNTS = 4095
_FULL_WELL = 10_500.0  # electrons, Sony IMX250MZR
_READ_NOISE = 2.5  # electrons
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709
_MAX_GAIN = 60.0
_MAX_EXPOSURE = 4.0  # longest exposure: a radiance of 1/4 still fills the wells
_RAYLEIGH = 0.75  # largest degree of polarization of a clear sky


def four_angles(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (4, H, W) whole counts 0 to 4095 of a monochrome camera."""
    mono = np.einsum("c,cshw->shw", _LUMINANCE, radiance(scene))[None]  # (1, 3, H, W)
    return np.asarray(_counts(scene, mono, rng)[0])


def colour_angles(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (3, 4, H, W) whole counts 0 to 4095 of a camera for red, green and blue."""
    return _counts(scene, radiance(scene), rng)


def radiance(scene: Scene) -> Array:
    """Return (3, 3, H, W) Stokes parameters S0, S1, S2 (second axis) of linear red, green and blue (first axis)."""
    front = _layer(scene, scene.surface)
    clear = scene.of_material("transmits_visible").astype(np.float64)
    if not clear.any():
        return front
    cosine, azimuth = geometry(scene, scene.surface)
    rs, rp, ts, tp = pane(*_fresnel(scene, scene.surface, cosine))
    behind = through_pane(_layer(scene, scene.behind), ts, tp, azimuth) * clear
    around = _surroundings(scene, scene.surface)
    mirrored = around[:, None] * _linear((rs + rp) / 2, (rp - rs) / 2, azimuth)
    return np.where(clear > 0, behind + mirrored, front)


def geometry(scene: Scene, surface: Surface) -> tuple[Array, Array]:
    """Return the cosine of incidence and the azimuth of the plane of incidence in the image in radians, (H, W) each."""
    view, normal = (
        scene.toward_camera().astype(np.float64),
        surface.normal.astype(np.float64),
    )
    cosine = np.einsum("chw,chw->hw", view, normal).clip(0, 1)
    across = normal - cosine * view
    return cosine, np.arctan2(-across[1], across[0])  # y points down


def _layer(scene: Scene, surface: Surface) -> Array:
    """Return (3, 3, H, W): for each colour the Stokes parameters of one layer of surfaces."""
    light = scene.light
    cosine, azimuth = geometry(scene, surface)
    sun = np.asarray(light.sun_direction)
    normal, view = (
        surface.normal.astype(np.float64),
        scene.toward_camera().astype(np.float64),
    )
    facing = np.einsum("c,chw->hw", sun, normal).clip(0, 1) * surface.sunlit
    sun_rgb, ambient = (
        np.asarray(values)[:, None, None]
        for values in (light.sun_rgb, light.ambient_rgb)
    )
    albedo = (
        scene.of_material("albedo_rgb", surface).astype(np.float64) * surface.texture
    )
    scattered = albedo * (sun_rgb * facing + ambient * surface.sky_view)  # (3, H, W)
    n, k, rough = (
        scene.of_material(name, surface).astype(np.float64)
        for name in ("refractive_index", "extinction", "roughness")
    )
    body = np.where(k > 1, 0.0, diffuse_degree(cosine, np.maximum(n, 1.01))) * (
        1 - 0.5 * rough
    )
    rs, rp = _fresnel(scene, surface, cosine)
    half = sun[:, None, None] + view
    half /= np.maximum(np.linalg.norm(half, axis=0), 1e-9)
    power = 2 / np.maximum(rough, 0.05) ** 2
    glint = (
        np.einsum("chw,chw->hw", half, normal).clip(0, 1) ** power
        * surface.sunlit
        * (power + 2)
        / 8
    )
    smooth = (1 - rough) ** 2
    # A rough surface mirrors at facets of many directions, which spreads and weakens the reflection.
    arriving = (
        _surroundings(scene, surface) * (0.15 + 0.85 * smooth)
        + sun_rgb * np.minimum(glint, 40) * smooth
    )
    mirrored = arriving[:, None] * _linear(
        (rs + rp) / 2, (rp - rs) / 2 * (1 - 0.6 * rough), azimuth
    )
    met = scattered[:, None] * _linear(np.ones_like(body), body, azimuth) + mirrored
    return np.where(np.isfinite(surface.depth_m), met, _sky(scene))


def _linear(total: Array, within: Array, azimuth: Array) -> Array:
    """Return (3, H, W) Stokes parameters of light; `within` is its excess in the plane of incidence over across."""
    return np.stack([total, within * np.cos(2 * azimuth), within * np.sin(2 * azimuth)])


def through_pane(stokes: Array, ts: Array, tp: Array, azimuth: Array) -> Array:
    """Transmit (3, 3, H, W) Stokes parameters through a pane, a diattenuator with axis in the plane of incidence."""
    s0, s1, s2 = np.moveaxis(stokes, 1, 0)  # each (3, H, W)
    c, s = np.cos(2 * azimuth), np.sin(2 * azimuth)
    along, diagonal = c * s1 + s * s2, c * s2 - s * s1
    mean, half, both = (tp + ts) / 2, (tp - ts) / 2, np.sqrt(tp * ts)
    total, along, diagonal = (
        mean * s0 + half * along,
        half * s0 + mean * along,
        both * diagonal,
    )
    return np.stack([total, c * along - s * diagonal, s * along + c * diagonal], axis=1)


def _fresnel(scene: Scene, surface: Surface, cosine: Array) -> tuple[Array, Array]:
    n, k = (
        scene.of_material(name, surface).astype(np.float64)
        for name in ("refractive_index", "extinction")
    )
    return reflectances(cosine, np.maximum(n, 1.01), k)


def _surroundings(scene: Scene, surface: Surface) -> Array:
    """Return the (3, H, W) radiance where the mirrored ray of each pixel ends: sky above, ground or room below."""
    up, view = np.asarray(scene.light.up), scene.toward_camera().astype(np.float64)
    normal = surface.normal.astype(np.float64)
    cosine = np.einsum("chw,chw->hw", normal, view)
    rises = 2 * cosine * np.einsum("c,chw->hw", up, normal) - np.einsum(
        "c,chw->hw", up, view
    )
    ambient = np.asarray(scene.light.ambient_rgb)[:, None, None]
    level = 1.2 if scene.light.indoor else 2.0
    return np.asarray(ambient * np.where(rises > 0, level, 0.5))


def _sky(scene: Scene) -> Array:
    """Return (3, 3, H, W) Stokes parameters of the sky; a clear one is polarized across the plane through the sun."""
    light = scene.light
    brightness = 2.2 * np.asarray(light.ambient_rgb)[:, None, None, None]
    toward = -scene.toward_camera().astype(np.float64)
    sun = np.asarray(light.sun_direction)
    cosine = np.einsum("c,chw->hw", sun, toward)
    clear = 1.0 if max(light.sun_rgb) > 0.3 and not light.indoor else 0.0
    degree = clear * _RAYLEIGH * (1 - cosine**2) / (1 + cosine**2)
    across = sun[:, None, None] - cosine * toward
    azimuth = np.arctan2(-across[1], across[0])
    return np.asarray(
        brightness * _linear(np.ones_like(degree), -degree, azimuth)[None]
    )


def _counts(scene: Scene, stokes: Array, rng: np.random.Generator) -> Array:
    """Expose (P, 3, H, W) Stokes parameters behind four polarizers: (P, 4, H, W) whole counts 0 to 4095."""
    through = np.stack([intensities_of(plane) for plane in stokes])  # (P, 4, H, W)
    blurred = gaussian_filter(through, (0, 0, LENS_BLUR_PX, LENS_BLUR_PX))
    metered = blurred[..., np.isfinite(scene.surface.depth_m)]
    bright = max(
        float(np.percentile(metered, 98)) / 0.7,
        float(np.percentile(blurred, 98)) / 0.95,
        1 / _MAX_GAIN,
    )
    well = _FULL_WELL * min(
        1.0, _MAX_EXPOSURE * bright
    )  # in the dark the exposure is limited, so there are few electrons
    values = detected(
        blurred.clip(0, None) / bright, full_well=well, read_noise=_READ_NOISE, rng=rng
    )
    return np.asarray(np.rint(values * FULL_COUNTS).clip(0, FULL_COUNTS))
