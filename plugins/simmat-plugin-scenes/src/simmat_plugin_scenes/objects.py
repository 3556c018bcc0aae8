"""Draw people, animals, plants, vehicles, boxes, stones, panes of glass, and objects on a table."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat_plugin_scenes.materials import MATERIALS
from simmat_plugin_scenes.scene import Material
from simmat_plugin_scenes.shapes import Shape, box, capsule, cylinder, ellipsoid
from simmat_plugin_scenes.world import (
    Climate,
    Look,
    Thing,
    bright_colour,
    colour,
    coloured,
)

Array = npt.NDArray[np.float64]
SMOOTH, CLOTH, FUR = Look(0.2, 0.03), Look(0.04, 0.2, 0.25), Look(0.05, 0.3, 0.35)
CORE_K = 309.0  # body temperature of an animal
_SIDES = (-1, 1)


def vehicle(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a car: bonnet and wheels are warm if it was driven, windows mirror the cold sky."""
    car, air = Thing("vehicle", climate), climate.air_k
    driven = rng.random() < 0.7
    engine = rng.uniform(8, 25) if driven else 0.0
    paint = MATERIALS["paint"].coloured(bright_colour(rng))
    # length is half of the car's
    length, height = rng.uniform(1.75, 2.2), rng.uniform(1.35, 1.7)
    panel: dict[str, Any] = {"look": SMOOTH, "solar_gain_k": 14.0, "mottle_k": 0.4}
    car.add(
        box([0, 0.6, -0.25 * length], [0.85, 0.32, 0.75 * length]),
        paint,
        air + 0.5,
        **panel,
    )
    bonnet = box([0, 0.55, 0.62 * length], [0.84, 0.27, 0.38 * length])
    car.add(bonnet, paint, (air + 0.4 * engine, air + engine), axis=2, **panel)
    car.add(
        ellipsoid([0, height - 0.13, -0.2 * length], [0.7, 0.15, 0.5 * length]),
        paint,
        air - 1,
        **panel,
    )
    cabin = ellipsoid([0, 0.9, -0.2 * length], [0.86, height - 0.9, 0.72 * length])
    car.add(cabin, "window", air + 0.5, look=SMOOTH, solar_gain_k=3)
    alloy = coloured(rng, "paint", (0.3, 0.3, 0.31))
    dark = MATERIALS["plastic"].coloured((0.05, 0.05, 0.05))
    car.add(
        box([0, 0.62, length], [0.55, 0.1, 0.02]),
        dark,
        air + 0.7 * engine,
        look=Look(0.05, 0.3, 0, "stripes"),
    )
    for side in _SIDES:
        car.add(
            ellipsoid([side * 0.66, 0.66, length * 0.99], [0.14, 0.08, 0.05]),
            "window",
            air + 0.5 * engine,
        )
        for z in (-0.62 * length, 0.62 * length):
            tyre_k = air + (rng.uniform(6, 14) if driven else 1.0)
            car.add(
                cylinder([side * 0.76, 0.32, z], 0.32, 0.12, axis=0), "rubber", tyre_k
            )
            rim_k = tyre_k + (rng.uniform(0, 10) if driven else 0)
            car.add(cylinder([side * 0.79, 0.32, z], 0.19, 0.105, axis=0), alloy, rim_k)
    return car


def stone(
    rng: np.random.Generator, climate: Climate, size_m: float | None = None
) -> Thing:
    """Draw a stone of several lumps; its sunny side is warm."""
    size = size_m or rng.uniform(0.25, 0.6)
    grey = coloured(rng, "stone", spread=0.4)
    half = size * rng.uniform(0.7, 1.1, 3) * [1.0, 0.7, 1.0]
    temperature = climate.air_k + rng.uniform(-1, 2.5)
    made, middle = Thing("stone", climate), np.array([0, half[1] * 0.6, 0])
    look: dict[str, Any] = {
        "look": Look(size * 0.15, 0.35, 0.5),
        "mottle_k": 0.4,
        "solar_gain_k": 13,
    }
    made.add(ellipsoid(middle, half), grey, temperature, **look)
    for _ in range(4):
        place = rng.uniform(-0.6, 0.6, 3) * half + middle
        made.add(
            ellipsoid(place, half * rng.uniform(0.45, 0.75, 3)),
            grey,
            temperature,
            **look,
        )
    return made


def crate(
    rng: np.random.Generator, climate: Climate, size_m: float | None = None
) -> Thing:
    """Draw a wooden crate or a cardboard box."""
    made = Thing("box", climate)
    half = (size_m or rng.uniform(0.25, 0.55)) * rng.uniform(0.7, 1.2, 3)
    wooden = rng.random() < 0.5
    look = (
        Look(float(half.min()) * 0.4, 0.35, 0.1, "planks")
        if wooden
        else Look(float(half.min()), 0.06, 0.05)
    )
    material = "wood" if wooden else "cardboard"
    made.add(
        box([0, half[1], 0], half),
        material,
        climate.air_k + rng.uniform(-0.5, 1),
        look=look,
        solar_gain_k=9,
    )
    if not wooden:
        tape = box([0, half[1], 0], half * [0.12, 1, 1] + 0.002)
        made.add(tape, "plastic", climate.air_k, look=SMOOTH, solar_gain_k=9)
    return made


def glass_pane(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a pane in a metal frame: transparent in visible light, a mirror in the long-wave infrared."""
    made, air = Thing("glass", climate), climate.air_k
    frame = coloured(rng, "paint", (0.25, 0.25, 0.26), 0.6)
    half, high = rng.uniform(0.6, 1.1), rng.uniform(1.6, 2.1)
    pane = box([0, high / 2 + 0.15, 0], [half, high / 2, 0.006])
    made.add(pane, "glass", air - 0.5, look=Look(1, 0), solar_gain_k=1)
    for x in (-half, half):
        made.add(
            box([x, high / 2 + 0.1, 0], [0.035, high / 2 + 0.1, 0.035]),
            frame,
            air,
            look=SMOOTH,
        )
    for y in (0.13, high + 0.17):
        made.add(box([0, y, 0], [half, 0.035, 0.035]), frame, air, look=SMOOTH)
    return made


def cup(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a mug at air temperature or hot: cooler toward rim and handle, and the drink hotter than the wall."""
    made, air = Thing("cup", climate), climate.air_k
    radius, high = rng.uniform(0.036, 0.046), rng.uniform(0.08, 0.11)
    heat = rng.uniform(15, 50) if rng.random() < 0.75 else 0.0
    full = rng.uniform(0.6, 0.92)
    glaze = MATERIALS["ceramic"].coloured(bright_colour(rng))
    wall = (air + 0.85 * heat, air + 0.75 * heat)
    made.add(
        cylinder([0, high * full / 2, 0], radius, high * full / 2),
        glaze,
        wall,
        look=SMOOTH,
        solar_gain_k=2,
    )
    rest = high * (1 - full)
    rim = (air + 0.75 * heat, air + 0.3 * heat)
    made.add(
        cylinder([0, high - rest / 2, 0], radius, rest / 2),
        glaze,
        rim,
        look=SMOOTH,
        solar_gain_k=2,
    )
    made.add(
        cylinder([0, high - 0.002, 0], radius * 0.87, 0.0035),
        "liquid",
        air + heat,
        look=SMOOTH,
        mottle_k=0.6,
    )
    angles = np.linspace(-1.25, 1.25, 7)
    arc = np.stack(
        [
            radius * 0.95 + 0.026 * np.cos(angles),
            high * 0.52 + 0.3 * high * np.sin(angles),
            0 * angles,
        ],
        axis=1,
    )
    for index in range(6):
        cool = abs(index - 2.5) / 2.5  # the middle of the handle is the coolest
        made.add(
            capsule(arc[index], arc[index + 1], 0.0065),
            glaze,
            air + heat * (0.1 + 0.35 * cool),
            look=SMOOTH,
        )
    return made


def bottle(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a bottle, cold up to its filling level or near room temperature."""
    made, air = Thing("bottle", climate), climate.air_k
    radius, high = rng.uniform(0.03, 0.042), rng.uniform(0.14, 0.19)
    cold = air - (rng.uniform(6, 16) if rng.random() < 0.75 else 0.3)
    body = coloured(
        rng,
        "plastic",
        (0.05, 0.22, 0.1) if rng.random() < 0.5 else (0.3, 0.12, 0.04),
        0.5,
    )
    level = rng.uniform(0.4, 0.9)
    made.add(
        cylinder([0, high * level / 2, 0], radius, high * level / 2),
        body,
        (cold, cold + 1),
        look=SMOOTH,
    )
    upper = capsule([0, high * level, 0], [0, high, 0], radius * 0.99)
    made.add(upper, body, (cold + 2, 0.5 * (cold + air)), look=SMOOTH)
    made.add(
        capsule([0, high, 0], [0, high * 1.32, 0], radius * 0.36),
        body,
        0.3 * cold + 0.7 * air,
        look=SMOOTH,
    )
    made.add(
        cylinder([0, high * 1.38, 0], radius * 0.44, 0.011), "plastic", air, look=SMOOTH
    )
    label = MATERIALS["cardboard"].coloured(bright_colour(rng))
    made.add(
        cylinder([0, high * 0.42, 0], radius * 1.012, high * 0.2),
        label,
        cold + 1,
        look=Look(0.02, 0.3),
    )
    return made


def kettle(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a polished steel kettle: in the infrared it mirrors the room, so only handle and knob show its heat."""
    made, air = Thing("kettle", climate), climate.air_k
    hot = air + (rng.uniform(25, 65) if rng.random() < 0.7 else 0)
    size = rng.uniform(0.065, 0.085)
    made.add(
        ellipsoid([0, size * 0.85, 0], [size, size * 0.85, size]),
        "steel",
        (hot, hot - 6),
        look=SMOOTH,
    )
    spout = capsule(
        [size * 0.8, size * 0.8, 0], [size * 1.5, size * 1.5, 0], size * 0.15
    )
    made.add(spout, "steel", hot - 6, look=SMOOTH)
    made.add(
        ellipsoid([0, size * 1.76, 0], [size * 0.16] * 3),
        "rubber",
        air + 0.5 * (hot - air),
    )
    angles = np.linspace(0.15, np.pi - 0.15, 8)
    arc = np.stack(
        [0.8 * size * np.cos(angles), 1.35 * size + size * np.sin(angles), 0 * angles],
        axis=1,
    )
    for a, b in pairwise(arc):
        made.add(capsule(a, b, size * 0.1), "rubber", air + 0.25 * (hot - air))
    return made


def fruit(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw one to three fruits close together, at room temperature or colder."""
    made = Thing("fruit", climate)
    cold = climate.air_k - rng.choice([0.4, 7.0])
    for index in range(int(rng.integers(1, 4))):
        radius = rng.uniform(0.03, 0.042)
        peel = coloured(
            rng,
            "peel",
            [(0.5, 0.06, 0.04), (0.75, 0.3, 0.03), (0.3, 0.42, 0.06)][index],
            0.3,
        )
        angle = index * 2.1
        place, up = (
            np.array([0.042 * np.cos(angle), radius * 0.96, 0.042 * np.sin(angle)]),
            np.array([0, radius, 0]),
        )
        body = ellipsoid(place, [radius, radius * 0.95, radius])
        made.add(
            body,
            peel,
            (cold - 0.3, cold + 0.3),
            look=Look(0.01, 0.12, 0.05),
            solar_gain_k=2,
        )
        made.add(capsule(place + up * 0.85, place + up * 1.2, 0.0025), "bark", cold)
    return made


def person(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a person of 1.5 to 1.9 m who stands or walks: head and hands are warm, clothes between skin and air."""
    made, air, size = (
        Thing("person", climate),
        climate.air_k,
        rng.uniform(1.5, 1.9) / 1.75,
    )
    skin_k = 306.5 - 0.1 * max(288 - air, 0)
    over = skin_k - air
    warmth = rng.uniform(0.3, 0.6)  # of the clothes, between air and skin
    skin = MATERIALS["skin"].coloured(
        colour(rng, np.array([0.45, 0.27, 0.2]) * rng.uniform(0.3, 1.25), 0.1)
    )
    shirt, trousers = (
        MATERIALS["cloth"].coloured(bright_colour(rng)) for _ in range(2)
    )
    hair = coloured(rng, "hair", (0.06, 0.04, 0.03), 0.6)
    shirt_k, legs_k = air + warmth * over, air + 0.85 * warmth * over
    hand_k = air + rng.uniform(0.55, 0.9) * over
    bare_arms = rng.random() < 0.5

    def at(x: float, y: float, z: float) -> Array:
        return np.array([x, y, z]) * size

    def dress(
        shape: Shape, cloth: Material, temperature_k: float | tuple[float, float]
    ) -> None:
        made.add(shape, cloth, temperature_k, look=CLOTH, edge_drop_k=1.0)

    wide = rng.uniform(0.9, 1.15)
    dress(
        ellipsoid(at(0, 1.18, 0), at(0.2 * wide, 0.34, 0.13 * wide)),
        shirt,
        (shirt_k - 0.8, shirt_k + 0.8),
    )
    dress(capsule(at(-0.14, 1.38, 0), at(0.14, 1.38, 0), 0.08 * size), shirt, shirt_k)
    dress(ellipsoid(at(0, 0.93, 0), at(0.17 * wide, 0.17, 0.13)), trousers, legs_k)
    made.add(
        capsule(at(0, 1.4, 0), at(0, 1.53, 0.01), 0.055 * size), skin, skin_k + 0.5
    )
    made.add(
        ellipsoid(at(0, 1.62, 0.02), at(0.078, 0.115, 0.095)),
        skin,
        (skin_k - 1, skin_k),
        edge_drop_k=0.8,
    )
    # the nose is cool
    made.add(ellipsoid(at(0, 1.6, 0.115), at(0.014, 0.02, 0.02)), skin, skin_k - 3)
    made.add(
        ellipsoid(at(0, 1.66, -0.02), at(0.085, 0.095, 0.095)),
        hair,
        0.55 * air + 0.45 * skin_k,
        look=FUR,
    )
    stride = rng.uniform(0, 0.32) * rng.choice([-1, 1])
    sleeve, arm_k = (skin, skin_k - 1.5) if bare_arms else (shirt, shirt_k)
    for side in _SIDES:
        step = side * stride
        knee = at(side * 0.1, 0.49, step * 0.6 + 0.03)
        ankle = at(side * 0.1, 0.09, step * 1.1 - (0.1 if step < 0 else 0))
        dress(
            capsule(at(side * 0.09, 0.9, 0), knee, 0.082 * size),
            trousers,
            (legs_k, legs_k - 0.8),
        )
        dress(capsule(knee, ankle, 0.06 * size), trousers, (legs_k - 0.8, legs_k - 2))
        made.add(
            ellipsoid(ankle + at(0, -0.035, 0.05), at(0.048, 0.05, 0.13)),
            "leather",
            air + 0.2 * over,
        )
        shoulder, elbow = (
            at(side * 0.21 * wide, 1.37, 0),
            at(side * 0.26 * wide, 1.1, -step * 0.5 - 0.02),
        )
        hand = at(side * 0.25 * wide, 0.86, -step * 0.9 + rng.uniform(0, 0.15))
        dress(capsule(shoulder, elbow, 0.052 * size), shirt, shirt_k)
        made.add(
            capsule(elbow, hand, 0.04 * size),
            sleeve,
            (arm_k, min(arm_k, hand_k) - 0.5),
            edge_drop_k=0.6,
        )
        made.add(ellipsoid(hand, at(0.042, 0.07, 0.042)), skin, hand_k)
    return made


def animal(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a four-legged animal of the size of a dog to a cow: trunk and head are warm, legs and fur edges cooler."""
    made, air, size = Thing("animal", climate), climate.air_k, rng.uniform(0.5, 1.35)
    fur_k = air + rng.uniform(0.3, 0.55) * (CORE_K - air)
    fur = coloured(
        rng, "fur", np.array([0.22, 0.15, 0.1]) * rng.choice([0.3, 1, 2.5]), 0.3
    )
    slim = rng.uniform(0.8, 1.15)

    def at(x: float, y: float, z: float) -> Array:
        return np.array([x, y, z]) * size

    def cover(
        shape: Shape, temperature_k: float | tuple[float, float], drop_k: float = 1.5
    ) -> None:
        made.add(shape, fur, temperature_k, look=FUR, edge_drop_k=drop_k, mottle_k=0.5)

    cover(ellipsoid(at(0, 0.78, -0.1), at(0.19 * slim, 0.2 * slim, 0.42)), fur_k)
    cover(ellipsoid(at(0, 0.8, 0.2), at(0.18 * slim, 0.22, 0.24)), fur_k + 0.5)
    head = at(0, 0.98 + rng.uniform(-0.2, 0.14), 0.62)
    cover(
        capsule(at(0, 0.85, 0.3), head - at(0, 0.05, 0.08), 0.11 * size),
        (fur_k, fur_k + 0.8),
    )
    cover(ellipsoid(head, at(0.1, 0.11, 0.14)), fur_k + 1.5)
    cover(
        capsule(head + at(0, -0.03, 0.1), head + at(0, -0.07, 0.24), 0.055 * size),
        (fur_k + 1, fur_k + 3),
    )
    made.add(
        ellipsoid(head + at(0, -0.07, 0.29), at(0.03, 0.028, 0.02)),
        "leather",
        air + 0.35 * (CORE_K - air),
    )
    for side in _SIDES:  # warm eyes, and ears
        made.add(
            ellipsoid(head + at(side * 0.085, 0.03, 0.07), at(0.02, 0.02, 0.02)),
            "hair",
            CORE_K - 2,
        )
        cover(
            ellipsoid(head + at(side * 0.1, 0.1, -0.03), at(0.035, 0.08, 0.03)),
            fur_k + 2,
        )
    for side in _SIDES:
        for z in (-0.38, 0.26):
            swing = rng.uniform(-0.12, 0.12)
            knee, hoof = (
                at(side * 0.12, 0.36, z + swing),
                at(side * 0.12, 0.05, z + swing * 0.6),
            )
            cover(
                capsule(at(side * 0.12, 0.68, z), knee, 0.075 * size),
                (fur_k, fur_k - 1),
                1,
            )
            cover(capsule(knee, hoof, 0.045 * size), (fur_k - 1, air + 3), 1)
    tip = at(rng.uniform(-0.1, 0.1), 0.5, -0.62)
    cover(capsule(at(0, 0.88, -0.5), tip, 0.03 * size), (fur_k, air + 2), 0.5)
    return made


def _add_leaves(
    rng: np.random.Generator, made: Thing, centre: Array, half_m: Array, count: int
) -> None:
    """Add `count` small ellipsoids of leaves in a large one, so that its outline is uneven."""
    leaf = coloured(rng, "leaf", spread=0.4)
    look = Look(max(float(half_m.mean()) * 0.12, 0.01), 0.6, 0.9)
    for _ in range(count):
        direction = rng.normal(size=3)
        place = centre + direction / np.linalg.norm(direction) * half_m * rng.uniform(
            0.3, 0.85
        )
        shape = ellipsoid(place, half_m * rng.uniform(0.2, 0.42, 3))
        made.add(
            shape,
            leaf,
            made.climate.air_k - rng.uniform(0, 1.2),
            look=look,
            mottle_k=0.8,
            solar_gain_k=4,
        )


def bush(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a shrub of 0.6 to 1.4 m, close to air temperature."""
    made = Thing("plant", climate)
    half = np.array(
        [rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.75), rng.uniform(0.4, 0.8)]
    )
    _add_leaves(rng, made, np.array([0, half[1] * 0.95, 0]), half, 30)
    made.add(capsule([0, 0, 0], [0, half[1], 0], 0.05), "bark", climate.air_k)
    return made


def tree(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a tree for the background."""
    made, height = Thing("background", climate), rng.uniform(4, 9)
    trunk = capsule([0, 0, 0], [0, height * 0.6, 0], height * 0.03)
    made.add(trunk, "bark", climate.air_k + 0.5, look=Look(0.1, 0.4, 0.5))
    _add_leaves(
        rng,
        made,
        np.array([0, height * 0.68, 0]),
        height * np.array([0.28, 0.32, 0.28]),
        14,
    )
    return made


def potted_plant(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a small plant in a clay pot; the moist soil cools the pot by evaporation."""
    made, air = Thing("plant", climate), climate.air_k
    radius, height = rng.uniform(0.035, 0.05), rng.uniform(0.06, 0.09)
    made.add(
        cylinder([0, height / 2, 0], radius, height / 2),
        "terracotta",
        air - rng.uniform(0.5, 2),
    )
    made.add(
        cylinder([0, height - 0.006, 0], radius * 1.1, 0.008), "terracotta", air - 0.5
    )
    made.add(
        cylinder([0, height, 0], radius * 0.9, 0.004),
        "soil",
        air - 2.5,
        look=Look(0.01, 0.4, 0.5),
    )
    half = np.array([1, rng.uniform(0.8, 1.4), 1]) * rng.uniform(0.05, 0.08)
    _add_leaves(rng, made, np.array([0, height + half[1] * 0.8, 0]), half, 18)
    return made
