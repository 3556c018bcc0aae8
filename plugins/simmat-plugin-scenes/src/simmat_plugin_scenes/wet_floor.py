"""Draw a tiled floor at 0 °C with thin films of water and of clear ice on it, seen from above.

Both films are clear in visible light. In the short-wave infrared they absorb: water more at 2.2 µm than at 1.6 µm, and
ice the other way round. Road weather sensors tell them apart by this.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from simmat_plugin_scenes.materials import MATERIALS
from simmat_plugin_scenes.scene import Light, Material
from simmat_plugin_scenes.shapes import box, cylinder, plane
from simmat_plugin_scenes.world import Climate, Look, Thing, World, bright_colour

ABSORPTION_PER_MM = {"water": (0.004, 0.67, 1.65), "ice": (0.003, 2.26, 1.46)}
"""At 0.85, 1.6 and 2.2 µm: water, Hale and Querry (1973); ice, Warren and Brandt (2008)."""
_CLIMATE = Climate(273.0, 0.1)
_FROM_ABOVE = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, -1.0, 0.0]])


def wet_floor(rng: np.random.Generator) -> World:
    """Draw about a square metre of glazed tiles with three to six films, under a lamp and a grey sky."""
    names = [
        str(name)
        for name in rng.choice(list(ABSORPTION_PER_MM), int(rng.integers(3, 7)))
    ]
    films: list[Thing] = []
    taken: list[tuple[float, float, float]] = []
    for name in names:
        reach = float(rng.uniform(0.06, 0.11))
        for x, z in rng.uniform([-0.42, -0.3], [0.42, 0.3], (20, 2)):
            if all(
                np.hypot(x - ox, z - oz) > 1.6 * (reach + other)
                for ox, oz, other in taken
            ):
                films.append(_film(rng, name, reach).placed(float(x), float(z), 0.0))
                taken.append((float(x), float(z), reach))
                break
    power, air, lamp = (
        rng.uniform(0.3, 0.7),
        _CLIMATE.air_k,
        np.array([*rng.uniform(-0.5, 0.5, 2), 1.0]),
    )
    x, z, y = (float(value) for value in lamp / np.linalg.norm(lamp))
    light = Light(
        (x, y, z),
        (power, power, power),
        (0.4, 0.4, 0.42),
        (0, 1, 0),
        air,
        air - 8,
        False,
    )
    half_width = float(rng.uniform(0.44, 0.52))
    return World(
        tuple(films),
        (_tiles(rng),),
        light,
        np.array([0.0, 1.0, 0.0]),
        _FROM_ABOVE,
        half_width,
    )


def _film(rng: np.random.Generator, name: str, reach_m: float) -> Thing:
    """Draw a film of 0.15 to 0.4 mm, which light passes twice; its outline is that of four discs."""
    path_mm = 2 * rng.uniform(0.15, 0.4)
    near, short, longer = (
        float(np.exp(-path_mm * rate)) for rate in ABSORPTION_PER_MM[name]
    )
    material = replace(MATERIALS[name], infrared_transmittance=(near, short, longer))
    film = Thing(name, _CLIMATE)
    for x, z in np.concatenate(
        [np.zeros((1, 2)), rng.uniform(-0.8 * reach_m, 0.8 * reach_m, (3, 2))]
    ):
        disc = cylinder([x, 0.003, z], reach_m * rng.uniform(0.5, 1.0), 1e-4)
        film.add(disc, material, _CLIMATE.air_k, look=Look(1, 0))
    return film


def _tiles(rng: np.random.Generator) -> Thing:
    """Draw tiles of all colours, most with an ornament."""
    floor, side, yaw = (
        Thing("background", _CLIMATE),
        rng.uniform(0.1, 0.15),
        rng.uniform(0, np.pi),
    )
    floor.add(plane([0, 0, 0], [0, 1, 0]), "concrete", _CLIMATE.air_k)
    half, look = np.array([side * 0.48, 1e-4, side * 0.48]), Look(0.01, 0.08)
    for x, z in _grid(side, yaw):
        floor.add(box([x, 1e-3, z], half), _glaze(rng), _CLIMATE.air_k, look=look)
        if rng.random() < 0.7:
            ornament = box([x, 2e-3, z], half * rng.uniform([0.2, 1, 0.2], 1.0))
            floor.add(ornament, _glaze(rng), _CLIMATE.air_k, look=look)
    return floor.placed(0, 0, yaw)


def _grid(side_m: float, yaw: float) -> npt.NDArray[np.float64]:
    """Return the (N, 2) centres of the tiles that are in view once the floor is rotated."""
    steps = np.arange(-int(0.75 / side_m), int(0.75 / side_m) + 1) * side_m
    centres = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    cosine, sine = np.cos(yaw), np.sin(yaw)
    rotated = np.abs(centres @ np.array([[cosine, -sine], [sine, cosine]]))
    return np.asarray(centres[(rotated < np.array([0.5, 0.4]) + side_m).all(axis=1)])


def _glaze(rng: np.random.Generator) -> Material:
    """Draw a glaze of any colour, and in the infrared of any brightness."""
    ceramic, bright = MATERIALS["ceramic"], rng.uniform(0.25, 1.1)
    return replace(
        ceramic.coloured(bright_colour(rng)),
        nir_reflectance=ceramic.nir_reflectance * bright,
        swir1_reflectance=ceramic.swir1_reflectance * bright,
        swir2_reflectance=ceramic.swir2_reflectance * bright,
    )
