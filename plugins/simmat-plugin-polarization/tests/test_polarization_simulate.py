"""The simulated camera obeys Fresnel: what is polarized, how much, and in which direction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simmat_plugin_polarization.angles import FourAngles
from simmat_plugin_polarization.camera import (
    diffuse_degree,
    four_angles,
    radiance,
    reflectances,
    through_pane,
)
from simmat_plugin_polarization.stokes import angle_of, degree_of
from simmat_plugin_scenes import Scene
from simmat_plugin_scenes.generate import generate_scene

SIZE_HW = (48, 64)


def array(*values: float) -> np.ndarray:
    """Return a float array."""
    return np.array(values)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Return a scene on a table."""
    return next(
        view
        for seed in range(9)
        if (view := generate_scene(np.random.default_rng(seed), SIZE_HW)).light.indoor
    )


def tilted(
    scene: Scene, degrees: float, azimuth_deg: float, **material: object
) -> Scene:
    """Return one flat surface, tilted from the view of every pixel toward an azimuth in the picture."""
    view = scene.toward_camera().astype(np.float64)
    azimuth, tilt = np.deg2rad(azimuth_deg), np.deg2rad(degrees)
    aside = np.array([np.cos(azimuth), -np.sin(azimuth), 0.0])[
        :, None, None
    ] * np.ones_like(view)
    aside -= (aside * view).sum(axis=0) * view
    aside /= np.linalg.norm(aside, axis=0)
    normal = (np.cos(tilt) * view + np.sin(tilt) * aside).astype(np.float32)
    surface = replace(
        scene.surface,
        normal=normal,
        depth_m=np.ones(SIZE_HW, dtype=np.float32),
        material=np.zeros(SIZE_HW, dtype=np.int32),
        sunlit=np.zeros(SIZE_HW, dtype=np.float32),
    )
    base = {
        "extinction": 0.0,
        "refractive_index": 1.5,
        "roughness": 0.0,
        "transmits_visible": 0.0,
    }
    made = replace(scene.materials[1], **{**base, **material})
    return replace(scene, surface=surface, behind=surface, materials=(made,))


def centre(scene: Scene) -> tuple[float, float]:
    """Return degree and angle (in degrees) of the light at the centre, in green."""
    stokes = radiance(scene)[1, :, 24:26, 32:34].mean(axis=(1, 2))
    return float(degree_of(stokes)), float(np.rad2deg(angle_of(stokes[1], stokes[2])))


def test_reflection_at_brewsters_angle_is_wholly_polarized() -> None:
    """tan θ = n; and straight on, (n-1)²/(n+1)² of both."""
    brewster = np.cos(np.arctan(1.5))
    across, within = reflectances(
        array(brewster, 1.0), array(1.5, 1.5), array(0.0, 0.0)
    )
    assert within[0] == pytest.approx(0, abs=1e-12)
    assert across[0] == pytest.approx(0.1479, abs=1e-4)
    np.testing.assert_allclose([across[1], within[1]], 0.04)


def test_scattered_light_is_polarized_at_the_limb_only() -> None:
    """None straight on; 0.385 at grazing view for n = 1.5, the bound of Atkinson and Hancock's curve."""
    degrees = diffuse_degree(array(1.0, 0.5, 0.0), array(1.5, 1.5, 1.5))
    assert degrees[0] == 0
    assert degrees[2] == pytest.approx(
        (1.5 - 1 / 1.5) ** 2 / (2 + 2 * 1.5**2 - (1.5 + 1 / 1.5) ** 2)
    )
    assert 0 < degrees[1] < degrees[2]


@pytest.mark.parametrize("azimuth_deg", [20.0, 75.0, 140.0])
def test_the_angle_follows_the_normal(scene: Scene, azimuth_deg: float) -> None:
    """A matt surface is polarized along the normal's azimuth, a mirroring dark one across it."""
    matt = tilted(scene, 65, azimuth_deg, albedo_rgb=(0.9,) * 3, roughness=0.95)
    degree, angle = centre(matt)
    glossy_degree, glossy_angle = centre(
        tilted(scene, 55, azimuth_deg, albedo_rgb=(0.0,) * 3)
    )
    assert (glossy_angle - azimuth_deg) % 180 == pytest.approx(90, abs=1)
    assert glossy_degree > 0.9
    assert 0.01 < degree < 0.2
    assert (angle - azimuth_deg + 90) % 180 == pytest.approx(90, abs=1)


def test_glass_is_polarized_where_the_wall_behind_is_not(scene: Scene) -> None:
    """This is why polarization cameras find glass."""
    wall = tilted(scene, 0, 0, albedo_rgb=(0.2,) * 3, roughness=0.95)
    glass = tilted(scene, 56, 30, albedo_rgb=(0.0,) * 3, transmits_visible=0.9)
    through = replace(
        glass, behind=replace(wall.surface, material=np.ones(SIZE_HW, dtype=np.int32))
    )
    through = replace(through, materials=(glass.materials[0], wall.materials[0]))
    assert centre(wall)[0] < 0.02
    degree, angle = centre(through)
    assert degree > 0.1
    assert angle == pytest.approx(30 + 90, abs=2)


def test_light_through_a_pane_is_polarized_along_the_plane_of_incidence() -> None:
    """What is not mirrored goes on; and turning pane and light together turns the result."""
    ts, tp = np.full((1, 1), 0.6), np.full((1, 1), 0.9)
    plain = np.zeros((3, 3, 1, 1))
    plain[:, 0] = 1
    through = through_pane(plain, ts, tp, np.full((1, 1), np.deg2rad(20)))[0]
    assert float(degree_of(through)[0, 0]) == pytest.approx(0.3 / 1.5)
    assert np.rad2deg(angle_of(through[1], through[2]))[0, 0] == pytest.approx(20)
    found = []
    for turn in np.deg2rad((0, 35)):
        light = plain.copy()
        light[:, 1], light[:, 2] = (
            0.5 * np.cos(2 * turn + 1),
            0.5 * np.sin(2 * turn + 1),
        )
        seen = through_pane(light, ts, tp, np.full((1, 1), turn))[0, :, 0, 0]
        found.append(
            [
                seen[0],
                np.hypot(seen[1], seen[2]),
                (np.arctan2(seen[2], seen[1]) - 2 * turn) % (2 * np.pi),
            ]
        )
    np.testing.assert_allclose(found[0], found[1])


def test_the_clear_sky_is_polarized_across_the_direction_of_the_sun(
    scene: Scene,
) -> None:
    """Rayleigh: most at a right angle from the sun; none under clouds."""
    sky = replace(scene.surface, depth_m=np.full(SIZE_HW, np.inf, dtype=np.float32))
    light = replace(
        scene.light,
        indoor=False,
        sun_rgb=(3.0,) * 3,
        ambient_rgb=(1.0,) * 3,
        sun_direction=(1.0, 0.0, 0.0),
    )
    clear = replace(scene, surface=sky, behind=sky, light=light)
    degree, angle = centre(clear)
    assert degree == pytest.approx(0.75, abs=0.01)
    assert angle == pytest.approx(90, abs=1)
    assert centre(replace(clear, light=replace(light, sun_rgb=(0.1,) * 3)))[
        0
    ] == pytest.approx(0)


def test_counts_are_those_of_a_12_bit_camera(scene: Scene) -> None:
    """The two pairs of crossed polarizers measure the same light, but for noise."""
    counts = four_angles(scene, np.random.default_rng(0))
    assert (counts == np.rint(counts)).all()
    assert counts.min() >= 0
    assert 1000 < np.percentile(counts, 98) <= 4095
    open_ = (counts < 4095).all(axis=0)
    apart = (counts[0] + counts[2] - counts[1] - counts[3])[open_]
    assert abs(apart.mean()) < 5
    assert 1 < apart.std() < 100


def test_saturated_and_dark_pixels_come_back_as_such(
    tmp_path: Path, scene: Scene
) -> None:
    """An invalid pixel written as a plain one would be believed."""
    image = FourAngles().simulate(scene, np.random.default_rng(0))
    data, valid = image.data.copy(), image.valid.copy()
    data[0, 3, 3], data[0, 5, 5], data[0, 7, 7] = 3000, 3, 8190
    for place in (3, 5, 7):
        valid[1:, place, place] = False
    # 4094.7 counts behind each, known not to be full
    data[:, 9, 9], valid[:, 9, 9] = (8189.4, 0.5, 0.0), True
    files = {
        source.name: tmp_path / f"{source.name}.tif" for source in FourAngles().sources
    }
    FourAngles().save(replace(image, data=data, valid=valid), files)
    back = FourAngles().load(files)
    assert back.valid[:, 9, 9].all()
    for place in (3, 5, 7):
        assert back.valid[:, place, place].tolist() == [True, False, False]
        assert back.data[0, place, place] == pytest.approx(
            max(data[0, place, place], 0), abs=2
        )
