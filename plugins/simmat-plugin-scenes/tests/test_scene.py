"""The synthetic world: exact masks, physics that holds together, the same scene from the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simmat_plugin_scenes import Scene
from simmat_plugin_scenes.camera import Noise
from simmat_plugin_scenes.generate import generate_scene, only_visible, outdoors
from simmat_plugin_scenes.objects import person, stone
from simmat_plugin_scenes.render import render
from simmat_plugin_scenes.shapes import Shape, box, capsule, cylinder, ellipsoid, plane
from simmat_plugin_scenes.world import CLASSES, Climate, Thing, World

from simmat.errors import ConfigError

SIZE_HW = (48, 64)


def scene_of(seed: int) -> Scene:
    """Return a small scene."""
    return generate_scene(np.random.default_rng(seed), SIZE_HW)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Return some small scenes, indoor and outdoor."""
    return [scene_of(seed) for seed in range(6)]


def test_every_instance_shows_and_has_one_class(scenes: list[Scene]) -> None:
    """An id without pixels, or with two classes, would break the region rules."""
    for scene in scenes:
        ids = np.unique(scene.instance)
        assert 2 <= ids.max() <= 6
        np.testing.assert_array_equal(ids, np.arange(ids.max() + 1))
        for number in ids:
            classes = np.unique(scene.class_id[scene.instance == number])
            assert len(classes) == 1
            assert (CLASSES[classes[0]] == "background") == (number == 0)


def test_normals_are_unit_vectors_toward_the_camera(scenes: list[Scene]) -> None:
    """Fresnel and Lambert take the angle between normal and view."""
    for scene in scenes:
        np.testing.assert_allclose(
            np.linalg.norm(scene.surface.normal, axis=0), 1, atol=1e-5
        )
        assert (
            np.einsum("chw,chw->hw", scene.surface.normal, scene.toward_camera())
            > -1e-4
        ).all()


def test_temperatures_are_of_this_world(scenes: list[Scene]) -> None:
    """Skin is near 306 K, a hot drink below boiling, the sky colder than the air."""
    for scene in scenes:
        ground = np.isfinite(scene.surface.depth_m)
        assert scene.surface.temperature_k[ground].min() > 255
        assert scene.surface.temperature_k.max() < 375
        if (~ground).any():
            assert scene.surface.temperature_k[~ground].max() <= scene.light.air_k


def test_what_is_behind_glass_is_farther_and_no_glass() -> None:
    """The visible camera looks through a pane that the thermal one sees as a mirror."""
    worlds = (outdoors(np.random.default_rng(seed)) for seed in range(100))
    world = next(
        world
        for world in worlds
        if any(thing.class_name == "glass" for thing in world.things)
    )
    scene = render(world, SIZE_HW, Noise(np.random.default_rng(0)))
    clear = scene.of_material("transmits_visible") > 0
    assert clear.sum() > 20
    assert (scene.behind.depth_m[clear] > scene.surface.depth_m[clear]).all()
    assert (scene.of_material("transmits_visible", scene.behind)[clear] == 0).all()
    np.testing.assert_array_equal(
        scene.behind.depth_m[~clear], scene.surface.depth_m[~clear]
    )


def test_a_shadow_falls_away_from_the_sun() -> None:
    """Shadows tie objects to the ground in the visible, and cool it in the infrared."""
    lone = world_with(
        stone(np.random.default_rng(0), Climate(290, 1), 0.5).placed(0, 6, 0)
    )
    light = replace(lone.light, sun_direction=(0.8, 0.6, 0.0), sun_rgb=(1.0, 1.0, 1.0))
    world = replace(lone, background=(lone.background[0],), light=light)
    scene = render(world, SIZE_HW, Noise(np.random.default_rng(0)))
    dark = (
        (scene.instance == 0)
        & np.isfinite(scene.surface.depth_m)
        & (scene.surface.sunlit == 0)
    )
    columns = np.flatnonzero(dark.any(axis=0))
    assert len(columns) > 0
    assert columns.mean() < np.flatnonzero((scene.instance == 1).any(axis=0)).mean()


def test_objects_of_which_too_little_shows_are_taken_away() -> None:
    """A mask of two pixels is no object to click on."""
    rng, climate = np.random.default_rng(0), Climate(290, 1)
    near, far = (
        person(rng, climate).placed(0, 5, 0),
        stone(rng, climate, 0.2).placed(-8, 60, 0),
    )
    seen = only_visible(world_with(near, far), SIZE_HW)
    assert seen.things == (near,)


def world_with(*things: Thing) -> World:
    """Return an outdoor world with these objects instead of its own."""
    return replace(outdoors(np.random.default_rng(0)), things=things)


def test_too_small_a_scene_is_refused() -> None:
    """Objects of two pixels teach nothing."""
    with pytest.raises(ConfigError, match="32x32 pixels, got 64x16"):
        generate_scene(np.random.default_rng(0), (16, 64))


ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
SHAPES = [
    ellipsoid([0, 0, 5], [1, 0.5, 0.8]),
    box([0, 0, 5], [1, 0.5, 0.8]),
    cylinder([0, 0, 5], 0.6, 0.9, axis=0),
    cylinder([0, 0, 5], 0.6, 0.9, axis=1),
    cylinder([0, 0, 5], 0.6, 0.9, axis=2),
    capsule([-0.8, 0.2, 5], [0.6, 0.4, 4.5], 0.3),
    plane([0, -1, 5], [0, 1, -0.5]),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
@pytest.mark.parametrize("turn", [np.eye(3), ROTATION], ids=["straight", "turned"])
def test_rays_meet_a_shape_where_its_inside_begins(
    shape: Shape, turn: np.ndarray
) -> None:
    """The mask, the depth and the normal all come from this one answer; marching along the ray is the oracle."""
    turned = shape.moved(turn, np.array([0, 0, 5.0]) - turn @ np.array([0, 0, 5.0]))
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(300, 3)) * 0.15 + [0, 0, 1]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    origin = np.zeros((1, 3))
    found = turned.intersect(origin, rays)
    steps = np.arange(0, 12, 0.004)
    for ray, t in zip(rays, found, strict=True):
        inside = _inside(turned, steps[:, None] * ray)
        if inside.sum() < 3:  # grazing: marching may step over it
            continue
        assert abs(steps[inside.argmax()] - t) < 0.005
        point = (t * ray)[None]
        normal = turned.normal(point)
        assert not _inside(turned, point + 1e-3 * normal)[0]
        assert normal[0] @ ray < 0


def _inside(shape: Shape, points: np.ndarray) -> np.ndarray:
    """Tell by the definition of each unit shape whether world points lie inside."""
    x, y, z = shape.local(points).T
    if shape.kind == "ellipsoid":
        return x**2 + y**2 + z**2 <= 1
    if shape.kind == "box":
        return np.maximum(np.maximum(abs(x), abs(y)), abs(z)) <= 1
    if shape.kind == "cylinder":
        return (x**2 + z**2 <= 1) & (abs(y) <= 1)
    if shape.kind == "capsule":
        return x**2 + (y - np.clip(y, -shape.half, shape.half)) ** 2 + z**2 <= 1
    return y <= 0
