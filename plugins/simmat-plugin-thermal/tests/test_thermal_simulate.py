"""The simulated thermal camera obeys Planck, Kirchhoff and its own noise figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simmat_plugin_scenes import Scene
from simmat_plugin_scenes.camera import Noise
from simmat_plugin_scenes.generate import generate_scene, outdoors
from simmat_plugin_scenes.render import render
from simmat_plugin_scenes.world import CLASSES
from simmat_plugin_thermal.adapter import Thermal
from simmat_plugin_thermal.camera import (
    NOISE_K,
    apparent_temperature,
    band_radiance,
)

SIZE_HW = (48, 64)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Return an outdoor scene."""
    world = outdoors(np.random.default_rng(4))
    return render(world, SIZE_HW, Noise(np.random.default_rng(0)))


def test_band_radiance_has_the_textbook_value() -> None:
    """A black body at 300 K gives 37.6 % of sigma T^4 / pi between 8 and 14 um (tables of the Planck fraction)."""
    whole = 5.670374e-8 * 300**4 / np.pi
    assert float(band_radiance(300.0)) / whole == pytest.approx(0.3758, abs=0.0005)


def test_a_black_world_reads_its_own_temperature(scene: Scene) -> None:
    """With emissivity 1 and rough surfaces nothing is mirrored."""
    black = replace(
        scene,
        materials=tuple(
            replace(m, emissivity_lwir=1.0, roughness=1.0) for m in scene.materials
        ),
    )
    near = np.isfinite(scene.surface.depth_m) & (
        np.einsum("chw,chw->hw", scene.surface.normal, scene.toward_camera()) > 0.5
    )
    np.testing.assert_allclose(
        apparent_temperature(black)[near], scene.surface.temperature_k[near], atol=0.25
    )


def test_a_mirror_reads_what_it_mirrors(scene: Scene) -> None:
    """This is why glass and steel look cold under a clear sky, whatever their temperature."""
    mirror = replace(
        scene, materials=tuple(replace(m, emissivity_lwir=0.0) for m in scene.materials)
    )
    near = np.isfinite(scene.surface.depth_m) & (scene.surface.depth_m < 10)
    np.testing.assert_allclose(
        apparent_temperature(mirror)[near], scene.reflected_k[near], atol=0.5
    )


def test_noise_is_that_of_an_uncooled_camera() -> None:
    """Two frames of one scene differ by the temporal noise and the drift of the pattern, not more."""
    view = generate_scene(np.random.default_rng(1), SIZE_HW)
    first, second = (
        Thermal().simulate(view, np.random.default_rng(seed)).data[0] for seed in (1, 2)
    )
    inner = (first - second)[16:32, 20:44]
    assert NOISE_K < inner.std() / np.sqrt(2) < 3 * NOISE_K


def test_people_stand_out_at_night() -> None:
    """The case for a thermal camera: what the eye does not see, it does."""
    worlds = (outdoors(np.random.default_rng(seed)) for seed in range(200))
    world = next(
        w
        for w in worlds
        if max(w.light.sun_rgb) == 0
        and any(thing.class_name == "person" for thing in w.things)
    )
    view = render(world, SIZE_HW, Noise(np.random.default_rng(0)))
    image = Thermal().simulate(view, np.random.default_rng(0)).data[0]
    people = view.class_id == CLASSES.index("person")
    ground = (view.instance == 0) & np.isfinite(view.surface.depth_m)
    assert image[people].mean() > image[ground].mean() + 1
