"""Generate scenes: draw a world outdoors or on a table, keep the visible objects, render it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, unknown_name
from simmat_plugin_scenes.camera import Noise
from simmat_plugin_scenes.materials import MATERIALS
from simmat_plugin_scenes.objects import (
    animal,
    bottle,
    bush,
    crate,
    cup,
    fruit,
    glass_pane,
    kettle,
    person,
    potted_plant,
    stone,
    tree,
    vehicle,
)
from simmat_plugin_scenes.render import RayStage, render
from simmat_plugin_scenes.scene import Light, Scene, pixel_rays
from simmat_plugin_scenes.shapes import box, plane
from simmat_plugin_scenes.wet_floor import wet_floor
from simmat_plugin_scenes.world import Climate, Look, Thing, World, colour, coloured

Array = npt.NDArray[np.float64]
Make = Callable[[np.random.Generator, Climate], Thing]

MIN_SIDE_PX = 32
MAX_OBJECTS = 6
_MIN_SHARE = 0.0015
_TABLE_SHARE = 0.35
_TRIES = 20
_SWING = 0.4
"""How far an object of a video goes, as a share of half the width of the picture at its distance."""
_PERIOD = (60.0, 150.0)
"""Frames from one return of such an object to the next."""

OUTDOOR: tuple[tuple[Make, float], ...] = (
    (person, 0.38),
    (animal, 0.2),
    (vehicle, 0.14),
    (bush, 0.09),
    (stone, 0.08),
    (crate, 0.06),
    (glass_pane, 0.05),
)
"""Objects outdoors, with their relative frequencies."""

TABLE: tuple[tuple[Make, float], ...] = (
    (cup, 0.34),
    (bottle, 0.17),
    (potted_plant, 0.15),
    (fruit, 0.14),
    (kettle, 0.08),
    (lambda rng, climate: stone(rng, climate, rng.uniform(0.03, 0.05)), 0.06),
    (lambda rng, climate: crate(rng, climate, rng.uniform(0.03, 0.05)), 0.06),
)
"""Objects on a table, with their relative frequencies."""


def generate_scene(
    rng: np.random.Generator,
    size_hw: tuple[int, int] = (192, 256),
    kind: str = "everyday",
) -> Scene:
    """Draw a scene of 2 to 6 objects, each on at least 0.15 % of the pixels.

    Args:
        rng: the only source of randomness; the same state gives the same scene.
        size_hw: (height, width) in pixels, each at least 32.
        kind: a name of `KINDS`.

    Raises:
        ConfigError: the size is too small.
        UnknownNameError: there is no such kind.
    """
    return next(generate_frames(rng, size_hw, kind))


def generate_frames(
    rng: np.random.Generator,
    size_hw: tuple[int, int] = (192, 256),
    kind: str = "everyday",
) -> Iterator[Scene]:
    """Yield the scene of `generate_scene` as a video without end: its objects go to and fro, the camera stands still.

    An object keeps its id; others may hide it, and it may leave the picture. Arguments and errors as `generate_scene`.
    """
    if kind not in KINDS:
        raise unknown_name("kind of scenes", kind, KINDS)
    if min(size_hw) < MIN_SIDE_PX:
        raise ConfigError(
            f"a scene needs at least {MIN_SIDE_PX}x{MIN_SIDE_PX} pixels, got {size_hw[1]}x{size_hw[0]}"
        )
    for _ in range(_TRIES):
        world = KINDS[kind](rng)
        noise = Noise(rng)
        seen = only_visible(world, size_hw)
        if len(seen.things) >= 2:
            break
    else:
        raise ConfigError(
            f"no scene with two visible objects in {_TRIES} tries at {size_hw[1]}x{size_hw[0]} pixels"
        )
    yield render(seen, size_hw, noise)
    count = len(seen.things)
    pace = 2 * np.pi / rng.uniform(*_PERIOD, count)  # radians a frame
    start, heading = rng.uniform(0, 2 * np.pi, (2, count))
    for frame in itertools.count(1):
        swing = _SWING * (np.sin(start + pace * frame) - np.sin(start))
        things = []
        for thing, x, z in zip(
            seen.things, swing * np.cos(heading), swing * np.sin(heading), strict=True
        ):
            middle = np.mean([part.shape.centre for part in thing.parts], axis=0)
            reach = world.half_width * float(np.linalg.norm(middle - seen.position))
            things.append(thing.placed(float(reach * x), float(reach * z), 0.0))
        yield render(replace(seen, things=tuple(things)), size_hw, noise)


def only_visible(world: World, size_hw: tuple[int, int]) -> World:
    """Remove objects of which too few pixels are visible, one at a time, as each may reveal others."""
    rays = (
        pixel_rays(size_hw, (size_hw[1] / 2) / world.half_width)[:, ::2, ::2]
        .reshape(3, -1)
        .T
        @ world.axes
    )
    least = max(_MIN_SHARE * len(rays), 2)
    world = replace(world, things=world.things[:MAX_OBJECTS])
    while world.things:
        stage = RayStage(world)
        _, index = stage.trace(world.position[None], rays)
        owner = np.where(index >= 0, stage.owner[index], 0)
        pixels = np.bincount(owner, minlength=len(world.things) + 1)[1:]
        if pixels.min() >= least:
            return world
        hidden = int(pixels.argmin())
        world = replace(
            world, things=world.things[:hidden] + world.things[hidden + 1 :]
        )
    return world


def everyday(rng: np.random.Generator) -> World:
    """Draw a place outdoors, or in about a third of the scenes a table in a room."""
    return tabletop(rng) if rng.random() < _TABLE_SHARE else outdoors(rng)


def outdoors(rng: np.random.Generator) -> World:
    """Draw a place under the sky with up to 7 objects, most often people."""
    night, overcast = rng.random() < 0.15, rng.random() < 0.3
    sun = 0.0 if night else (0.12 if overcast else rng.uniform(0.6, 1))
    climate = Climate(rng.uniform(274, 299), sun)
    light = _daylight(rng, climate, night, overcast)
    axes = _camera_axes(np.deg2rad(rng.uniform(5, 13)), np.deg2rad(rng.uniform(-2, 2)))
    half_width = np.tan(np.deg2rad(rng.uniform(20, 27)))
    things = _place(
        rng, climate, OUTDOOR, int(rng.integers(3, 8)), (5.0, 13.0), half_width
    )
    position = np.array([0, rng.uniform(1.5, 2.4), 0])
    return World(things, _surroundings(rng, climate), light, position, axes, half_width)


def tabletop(rng: np.random.Generator) -> World:
    """Draw a table in a room with up to 7 objects, lit by a lamp or a window from the side."""
    climate = Climate(rng.uniform(291, 298), 0.15)
    warm = rng.uniform(0.75, 1)
    side = rng.choice([-1, 1]) * rng.uniform(0.3, 0.9)
    direction = _unit([side, rng.uniform(0.6, 1.0), rng.uniform(-0.6, 0.1)])
    power, fill = rng.uniform(0.5, 0.9), rng.uniform(0.25, 0.45)
    air = climate.air_k
    light = Light(
        direction,
        (power, power * warm, power * warm**2),
        (fill, fill, fill * 0.98),
        (0, 1, 0),
        air,
        air,
        True,
    )
    wood = MATERIALS["wood" if rng.random() < 0.6 else "plastic"]
    top = wood.coloured(
        colour(rng, wood.albedo_rgb if rng.random() < 0.6 else (0.5, 0.5, 0.48), 0.3)
    )
    back = Thing("background", climate)
    back.add(
        plane([0, 0, 0], [0, 1, 0]),
        top,
        air - 0.3,
        look=Look(0.05, 0.3, 0.02, "planks"),
        mottle_k=0.12,
    )
    plaster = coloured(rng, "plaster", (0.55, 0.53, 0.5), 0.4)
    wall = plane([0, 0, rng.uniform(1.1, 1.8)], [0, 0, -1])
    back.add(
        wall, plaster, air - rng.uniform(0.5, 2.0), look=Look(0.3, 0.05), mottle_k=0.25
    )
    axes = _camera_axes(np.deg2rad(rng.uniform(15, 24)), np.deg2rad(rng.uniform(-2, 2)))
    half_width = np.tan(np.deg2rad(rng.uniform(18, 23)))
    things = _place(
        rng, climate, TABLE, int(rng.integers(3, 8)), (0.55, 0.95), half_width
    )
    position = np.array([0, rng.uniform(0.28, 0.42), 0])
    return World(things, (back,), light, position, axes, half_width)


def _daylight(
    rng: np.random.Generator, climate: Climate, night: bool, overcast: bool
) -> Light:
    # never into the lens
    elevation, azimuth = (
        np.deg2rad(rng.uniform(20, 60)),
        rng.uniform(0.6, 2 * np.pi - 0.6),
    )
    direction = _unit([np.sin(azimuth), np.tan(elevation), np.cos(azimuth)])
    yellow = 1 - 0.3 * (1 - np.sin(elevation))
    power = 0.0 if night else (0.12 if overcast else 0.95)
    fill = 0.012 if night else (0.45 if overcast else 0.28)
    blue = 1.0 if overcast else 1.2
    clear_k = climate.air_k - rng.uniform(35, 55)
    return Light(
        direction,
        (power, power * yellow, power * yellow**2),
        (fill * 0.92, fill, fill * blue),
        (0, 1, 0),
        climate.air_k,
        climate.air_k - rng.uniform(4, 12) if overcast else clear_k,
        False,
    )


def _surroundings(rng: np.random.Generator, climate: Climate) -> tuple[Thing, ...]:
    """Draw the ground, and behind it trees, a building or the sky alone."""
    air = climate.air_k
    kind = str(
        rng.choice(
            ["grass", "soil", "asphalt", "concrete", "sand"],
            p=[0.35, 0.15, 0.25, 0.15, 0.1],
        )
    )
    gain = {"grass": 8, "soil": 14, "asphalt": 18, "concrete": 14, "sand": 16}[kind]
    ground = coloured(rng, kind)
    rough = kind in ("grass", "soil", "sand")
    look = Look(
        0.12 if rough else 0.06,
        0.45 if kind == "grass" else 0.25,
        0.6 if rough else 0.1,
    )
    if kind == "concrete":
        look = Look(0.6, 0.12, 0.05, "tiles")
    back = Thing("background", climate)
    ground_k = (
        air - (1.5 if climate.sun < 0.2 else 0.0) - (1.5 if kind == "grass" else 0)
    )
    mottle = 1.0 if rough else 0.4
    back.add(
        plane([0, 0, 0], [0, 1, 0]),
        ground,
        ground_k,
        look=look,
        mottle_k=mottle,
        solar_gain_k=gain,
    )
    pieces = [back]
    choice = rng.random()
    if choice < 0.35:
        pieces.append(_building(rng, climate))
    elif choice < 0.8:
        spots = rng.uniform([-14, 18], [14, 34], size=(int(rng.integers(4, 9)), 2))
        pieces += [tree(rng, climate).placed(x, z, rng.uniform(0, 6)) for x, z in spots]
    return tuple(pieces)


def _building(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a long facade with windows; it is heated, so the wall is a little warmer than the air."""
    house, z = Thing("background", climate), rng.uniform(16, 26)
    brick = coloured(rng, "brick", spread=0.3)
    wall_k = climate.air_k + rng.uniform(0.5, 2)
    house.add(
        box([0, 4, z + 3], [40, 4, 3]),
        brick,
        wall_k,
        look=Look(0.35, 0.3, 0.1, "tiles"),
        solar_gain_k=10,
    )
    step, left = rng.uniform(2.6, 4), rng.uniform(-1, 1)
    for column in range(-4, 5):
        for y in (1.7, 4.8):
            centre = [left + column * step, y, z]
            house.add(
                box(centre, [0.55, 0.75, 0.04]),
                "window",
                climate.air_k + rng.uniform(0, 3),
                look=Look(1, 0),
            )
    return house


def _place(
    rng: np.random.Generator,
    climate: Climate,
    menu: Sequence[tuple[Make, float]],
    count: int,
    depth_m: tuple[float, float],
    half_width: float,
) -> tuple[Thing, ...]:
    """Draw up to `count` objects and place them so that they do not intersect."""
    shares = np.array([share for _, share in menu])
    placed: list[Thing] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        thing = menu[int(rng.choice(len(menu), p=shares / shares.sum()))][0](
            rng, climate
        )
        reach = 0.85 * max(
            float(np.hypot(*p.shape.centre[[0, 2]])) + p.shape.radius_m
            for p in thing.parts
        )
        for _ in range(20):
            near = depth_m[0] + 1.5 * (reach if reach > 1 else 0)
            z = rng.uniform(near, max(depth_m[1], near + 3 * reach))
            x = rng.uniform(-0.85, 0.85) * half_width * z
            if all(np.hypot(x - ox, z - oz) > reach + other for ox, oz, other in taken):
                yaw = (
                    rng.uniform(-0.6, 0.6)
                    if thing.class_name == "glass"
                    else rng.uniform(0, 2 * np.pi)
                )
                placed.append(thing.placed(x, z, yaw))
                taken.append((x, z, reach))
                break
    return tuple(placed)


def _camera_axes(pitch_down: float, roll: float) -> Array:
    """Return the camera's x, y, z axes as rows, world frame."""
    right = np.array([1.0, 0, 0])
    down = np.array([0, -np.cos(pitch_down), -np.sin(pitch_down)])
    forward = np.array([0, -np.sin(pitch_down), np.cos(pitch_down)])
    turned_right = np.cos(roll) * right + np.sin(roll) * down
    turned_down = np.cos(roll) * down - np.sin(roll) * right
    return np.stack([turned_right, turned_down, forward])


def _unit(vector: npt.ArrayLike) -> tuple[float, float, float]:
    x, y, z = np.asarray(vector, dtype=float) / np.linalg.norm(vector)
    return float(x), float(y), float(z)


KINDS: Mapping[str, Callable[[np.random.Generator], World]] = {
    "everyday": everyday,
    "wet-floor": wet_floor,
}
"""Name of a kind of scenes -> draws a world of it."""
