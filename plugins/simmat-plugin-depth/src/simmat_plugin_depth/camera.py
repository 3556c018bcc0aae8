"""Simulate a small active stereo depth camera on a synthetic scene.

Depth follows from disparity d = f b / z, so its noise grows as z² (here as for an Intel RealSense D455: 95 mm baseline,
a tenth of a pixel at 640 pixels width). There is no return out of range, where one of the two cameras has no view, at
depth edges, from surfaces seen at a glancing angle, from mirrors, glass and very dark surfaces, and from the sky.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, laplace
from scipy.special import ndtr
from simmat_plugin_scenes import Scene

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BASELINE_M = 0.095
WIDTH_PX = 640
DISPARITY_NOISE_PX = 0.1
DISPARITY_STEP_PX = 1 / 32
RANGE_M = (0.3, 20.0)
_SMOOTH_PX = 0.7  # a matching window correlates the noise of neighbours
_HOLE_PX = 2.0
_EDGE = 0.06  # of the disparity


def measured_depth_m(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (1, H, W) depth in metres; NaN without a return."""
    true = _met_depth(scene, rng)
    noise = gaussian_filter(rng.normal(size=true.shape), _SMOOTH_PX)
    noise *= 2 * np.sqrt(np.pi) * _SMOOTH_PX  # back to unit variance
    disparity = _focal_baseline(scene) / true + DISPARITY_NOISE_PX * noise
    disparity = np.rint(disparity / DISPARITY_STEP_PX) * DISPARITY_STEP_PX
    with np.errstate(divide="ignore"):
        measured = _focal_baseline(scene) / disparity
    lost = (measured < RANGE_M[0]) | (measured > RANGE_M[1]) | shadowed(scene, true)
    holes = ndtr(_patches(true.shape, rng))  # uniform in 0 to 1, in patches
    lost |= holes < dropout_probability(scene)
    lost |= _at_edge(true) & (rng.random(true.shape) < 0.6)
    return np.where(lost, np.nan, measured)[None]


def dropout_probability(scene: Scene) -> Array:
    """Return (H, W) probability, 0..1, that the surface gives no return."""
    surface = scene.surface
    cosine = (
        np.einsum("chw,chw->hw", surface.normal, scene.toward_camera())
        .astype(np.float64)
        .clip(0, 1)
    )
    rough = scene.of_material("roughness").astype(np.float64)
    metal = scene.of_material("extinction") > 1
    clear = scene.of_material("transmits_visible") > 0
    albedo = scene.of_material("albedo_rgb").mean(axis=0).astype(np.float64)
    diffuse = np.where(metal, 0.0, albedo / (albedo + 0.05))
    mirror = (1 - rough) ** 3 * (
        1 - diffuse
    )  # the pattern is reflected away, and the light that arrives is not of the surface
    glancing = ((0.13 - cosine) / 0.1).clip(0, 1)
    absorbed = 0.5 * ((0.045 - albedo) / 0.03).clip(0, 1)
    kept = (1 - glancing) * np.where(clear, 0.6, (1 - mirror) * (1 - absorbed))
    return np.where(np.isfinite(surface.depth_m), 1 - kept, 1.0)


def shadowed(scene: Scene, depth_m: Array) -> BoolArray:
    """Return (H, W) bool, True where a nearer surface blocks the view of the second camera, right of the first.

    The second camera sees a point of column x in column x - d; a point to the right with larger disparity may hide it.
    """
    columns = np.arange(depth_m.shape[1])
    shift = scene.focal_px * BASELINE_M / depth_m
    there = np.where(np.isfinite(depth_m), columns - shift, np.inf)
    # minimum over all columns from here to the right
    least = np.minimum.accumulate(there[:, ::-1], axis=1)[:, ::-1]
    beyond = np.concatenate([least[:, 1:], np.full((len(there), 1), np.inf)], axis=1)
    return np.asarray(beyond < there - 0.5)


def _met_depth(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (H, W) depth in metres of the surface that is measured: behind glass the background, or the glass."""
    front, back = (
        np.asarray(layer.depth_m, dtype=np.float64)
        for layer in (scene.surface, scene.behind)
    )
    clear = scene.of_material("transmits_visible") > 0
    on_glass = ndtr(_patches(front.shape, rng)) < 0.2
    return np.where(clear & ~on_glass, back, front)


def _patches(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    field = gaussian_filter(rng.normal(size=shape), _HOLE_PX)
    return np.asarray(field * 2 * np.sqrt(np.pi) * _HOLE_PX)


def _at_edge(depth_m: Array) -> BoolArray:
    """Return (H, W) bool, True at depth steps and creases; along any plane 1/z is linear."""
    inverse = 1 / depth_m  # 0 in the sky
    return np.asarray(np.abs(laplace(inverse)) > _EDGE * inverse)


def _focal_baseline(scene: Scene) -> float:
    """Return f b in metres times pixels, at the width of the camera."""
    return scene.focal_px / scene.size_hw[1] * WIDTH_PX * BASELINE_M
