"""Light in scenes, from blue to short-wave infrared, and the noise of a detector that counts electrons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simmat_plugin_scenes import Scene
from simmat_plugin_scenes.camera import Noise
from simmat_plugin_scenes.generate import generate_scene, outdoors
from simmat_plugin_scenes.optics import BANDS, detected, irradiance, radiance
from simmat_plugin_scenes.render import render
from simmat_plugin_scenes.world import CLASSES

from simmat.errors import ConfigError

SIZE_HW = (48, 64)


@pytest.fixture(scope="module")
def scene() -> Scene:
    worlds = (outdoors(np.random.default_rng(seed)) for seed in range(200))
    world = next(
        w
        for w in worlds
        if max(w.light.sun_rgb) > 0.5
        and any(thing.class_name == "plant" for thing in w.things)
    )
    return render(world, SIZE_HW, Noise(np.random.default_rng(0)))


def test_leaves_are_bright_in_the_near_infrared_and_dark_in_red(scene: Scene) -> None:
    """The red edge of chlorophyll is what every vegetation index lives on."""
    plants = scene.class_id == CLASSES.index("plant")
    red, nir = radiance(scene, ("red", "nir"))
    assert nir[plants].mean() > 4 * red[plants].mean()


def test_the_clear_sky_darkens_toward_long_waves(scene: Scene) -> None:
    """Rayleigh scattering: the blue sky is all but black at 2.2 um."""
    sky = ~np.isfinite(scene.surface.depth_m)
    levels = radiance(scene, tuple(BANDS))[:, sky].mean(axis=1)
    assert sky.any()
    assert (np.diff(levels) < 0).all()


def test_shadows_are_deeper_in_the_infrared(scene: Scene) -> None:
    """They are lit by the sky alone, which has little infrared."""
    sun, ambient = irradiance(scene, ("red", "nir", "swir1"))
    share = ambient / (sun + ambient)
    assert share[0] > share[1] > share[2]


def test_an_unknown_band_is_refused_with_those_there_are(scene: Scene) -> None:
    """A misspelt band must not become another one."""
    with pytest.raises(ConfigError, match=r"\['swir3'\].*\['blue'"):
        radiance(scene, ("nir", "swir3"))


@pytest.mark.parametrize("exposure", [0.0, 0.01, 0.9])
def test_noise_is_that_of_counted_electrons_and_of_reading_them(
    exposure: float,
) -> None:
    """Variance in electrons: as many as there are, and the square of the read noise."""
    light = np.full((2, 200, 200), exposure)
    seen = detected(light, full_well=5000, read_noise=6, rng=np.random.default_rng(0))
    electrons = seen * 5000
    assert electrons.mean() == pytest.approx(5000 * exposure, abs=1)
    assert electrons.var() == pytest.approx(5000 * exposure + 36, rel=0.03)


def test_films_of_water_and_ice_show_in_the_short_wave_infrared_alone() -> None:
    """Clear to the eye and to near-infrared; water is darker at 2.2 um, ice at 1.6 um."""
    scene = generate_scene(np.random.default_rng(0), SIZE_HW, "wet-floor")
    dry = replace(scene, surface=scene.behind)
    for name, darker, other in (("water", "swir2", "swir1"), ("ice", "swir1", "swir2")):
        film = scene.class_id == CLASSES.index(name)
        seen, floor = (
            radiance(one, tuple(BANDS))[:, film].sum(axis=1) for one in (scene, dry)
        )
        ratio = dict(zip(BANDS, seen / floor, strict=True))
        assert all(
            abs(ratio[band] - 1) < 0.2 for band in ("blue", "green", "red", "nir")
        )
        assert ratio[darker] < ratio[other] < 0.85
