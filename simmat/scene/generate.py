"""Compose a scene: draw a world, look at it, keep the objects that show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simmat.errors import ConfigError
from simmat.scene.noise import Noise
from simmat.scene.render import Stage, cast, render
from simmat.scene.values import Scene, pixel_rays
from simmat.scene.worlds import World, outdoors, tabletop

SMALLEST_PX = 32
MOST_OBJECTS = 6
_SMALLEST_SHARE = 0.0015
_TABLE_SHARE = 0.35
_TRIES = 20


def generate_scene(rng: np.random.Generator, size_hw: tuple[int, int] = (192, 256)) -> Scene:
    """Draw a scene of 2 to 6 objects, each with at least 0.15 % of the pixels in view.

    About two thirds are outdoors (people, animals, cars, plants, stones, boxes, panes of glass; sun, cloud or night),
    the rest a table in a room (cups, bottles, plants, fruit, kettles).

    Args:
        rng: the only source of chance; the same state gives the same scene.
        size_hw: (height, width) in pixels, each at least 32.

    Raises:
        ConfigError: the size is too small.
    """
    if min(size_hw) < SMALLEST_PX:
        raise ConfigError(f"a scene needs at least {SMALLEST_PX}x{SMALLEST_PX} pixels, got {size_hw[1]}x{size_hw[0]}")
    for _ in range(_TRIES):
        world = tabletop(rng) if rng.random() < _TABLE_SHARE else outdoors(rng)
        noise = Noise(rng)
        seen = only_visible(world, size_hw)
        if len(seen.things) >= 2:
            return render(seen, Stage.of(seen), size_hw, noise)
    raise ConfigError(f"no scene with two visible objects in {_TRIES} tries at {size_hw[1]}x{size_hw[0]} pixels")


def only_visible(world: World, size_hw: tuple[int, int]) -> World:
    """Take away objects of which too little shows; what they hid may show then, so look again after each."""
    rays = pixel_rays(size_hw, (size_hw[1] / 2) / world.half_width)[:, ::2, ::2].reshape(3, -1).T @ world.axes
    least = max(_SMALLEST_SHARE * len(rays), 2)
    world = replace(world, things=world.things[:MOST_OBJECTS])
    while world.things:
        stage = Stage.of(world)
        _, index = cast(stage.parts, world.position[None], rays)
        owner = np.where(index >= 0, stage.owner[index], 0)
        pixels = np.bincount(owner, minlength=len(world.things) + 1)[1:]
        if pixels.min() >= least:
            return world
        hidden = int(pixels.argmin())
        world = replace(world, things=world.things[:hidden] + world.things[hidden + 1 :])
    return world
