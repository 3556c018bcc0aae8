"""The simulated depth camera: noise that grows with the square of the distance, and the holes of the real ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simmat_plugin_depth.camera import (
    BASELINE_M,
    DISPARITY_NOISE_PX,
    WIDTH_PX,
    measured_depth_m,
    shadowed,
)
from simmat_plugin_depth.depth import Depth, DepthOptions
from simmat_plugin_scenes import Scene
from simmat_plugin_scenes.generate import generate_scene

SIZE_HW = (64, 96)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Return a scene on a table."""
    return next(
        view
        for seed in range(9)
        if (view := generate_scene(np.random.default_rng(seed), SIZE_HW)).light.indoor
    )


def flat(scene: Scene, depth_m: float, **material: float) -> Scene:
    """Return a wall at one distance, seen straight, of one material."""
    surface = replace(
        scene.surface,
        depth_m=np.full(SIZE_HW, depth_m, dtype=np.float32),
        normal=scene.toward_camera(),
        material=np.zeros(SIZE_HW, dtype=np.int32),
        texture=np.ones(SIZE_HW, dtype=np.float32),
    )
    plaster = replace(
        scene.materials[1],
        **{"albedo_rgb": (0.6,) * 3, "roughness": 0.95, "extinction": 0.0, **material},
    )
    return replace(scene, surface=surface, behind=surface, materials=(plaster,))


@pytest.mark.parametrize("depth_m", [1.0, 4.0])
def test_noise_grows_with_the_square_of_the_distance(
    scene: Scene, depth_m: float
) -> None:
    """The disparity is what is measured, so an error of it weighs z² / (f b)."""
    measured = measured_depth_m(flat(scene, depth_m), np.random.default_rng(0))[0]
    error = measured[np.isfinite(measured)] - depth_m
    focal_baseline = scene.focal_px / SIZE_HW[1] * WIDTH_PX * BASELINE_M
    assert error.std() == pytest.approx(
        depth_m**2 * DISPARITY_NOISE_PX / focal_baseline, rel=0.15
    )


@pytest.mark.parametrize("depth_m", [0.1, 40.0, np.inf])
def test_out_of_range_there_is_no_return(scene: Scene, depth_m: float) -> None:
    """Sky and far hills must be holes."""
    assert not np.isfinite(
        measured_depth_m(flat(scene, depth_m), np.random.default_rng(0))
    ).any()


@pytest.mark.parametrize(
    ("material", "most"),
    [
        ({"extinction": 3.3, "roughness": 0.05}, 0.3),
        ({"albedo_rgb": (0.01,) * 3}, 0.7),
        ({"transmits_visible": 0.9}, 0.7),
    ],
    ids=["mirror", "black", "glass"],
)
def test_hard_surfaces_have_holes(
    scene: Scene, material: dict[str, float], most: float
) -> None:
    """A clean depth map of a mirror would teach what no camera shows."""
    easy, hard = (
        measured_depth_m(flat(scene, 2.0, **m), np.random.default_rng(0))
        for m in ({}, material)
    )
    assert np.isfinite(easy).mean() > 0.9
    assert np.isfinite(hard).mean() < most


def test_the_shadow_lies_left_of_a_near_object_as_wide_as_the_disparities_differ(
    scene: Scene,
) -> None:
    """The second camera, to the right, does not see there."""
    depth = np.full(SIZE_HW, 2.0)
    depth[:, 50:60] = 1.0
    hidden = shadowed(scene, depth)[30]
    width = scene.focal_px * 0.095 * (1 / 1.0 - 1 / 2.0)
    assert hidden[:50].sum() == pytest.approx(width, abs=1.5)
    assert hidden[49]
    assert not hidden[50:].any()


def test_what_lies_in_the_shadow_has_no_return(scene: Scene) -> None:
    """It is the widest hole of real depth maps."""
    wall = flat(scene, 2.0)
    depth = wall.surface.depth_m.copy()
    depth[:, 50:60] = 1.0
    surface = replace(wall.surface, depth_m=depth)
    measured = measured_depth_m(
        replace(wall, surface=surface, behind=surface), np.random.default_rng(0)
    )[0]
    hidden = shadowed(scene, depth.astype(np.float64))
    assert hidden.any()
    assert np.isnan(measured[hidden]).all()
    assert np.isfinite(measured[:, :40]).mean() > 0.9
    # the edge away from the shadow frays too
    assert np.isfinite(measured[:, 59:61]).mean() < 0.7


def test_through_glass_the_camera_measures_what_stands_behind(scene: Scene) -> None:
    """Here and there the pane itself answers, as it does in real depth maps."""
    pane = flat(scene, 1.0, transmits_visible=0.9)
    measured = measured_depth_m(
        replace(pane, behind=flat(scene, 2.0).surface), np.random.default_rng(0)
    )
    returned = measured[np.isfinite(measured)]
    assert 0.5 < (np.abs(returned - 2) < 0.2).mean() < 1


def test_what_16_bits_cannot_hold_is_not_a_return(scene: Scene) -> None:
    """5000 a metre end at 13.1 m; a farther wall would make the simulated file impossible to write."""
    tum = Depth(DepthOptions(unit="tum"))
    far = replace(
        scene,
        surface=replace(
            scene.surface, depth_m=scene.surface.depth_m + np.float32(12.0)
        ),
    )
    image = tum.simulate(replace(far, behind=far.surface), np.random.default_rng(0))
    assert image.data[image.valid].max(initial=0.0) <= 65534 / 5000
    assert (
        Depth()
        .simulate(replace(far, behind=far.surface), np.random.default_rng(0))
        .data.max()
        > 13.2
    )
