"""Draw people, animals, plants, vehicles, boxes, stones, panes of glass, and objects on a table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from simmat.sensors.simulated_scene import Material
from simmat_plugin_scenes.materials import MATERIALS
from simmat_plugin_scenes.shapes import Shape, box, capsule, cylinder, ellipsoid
from simmat_plugin_scenes.world import Builder, Climate, Look, Thing, bright_colour, colour

SMOOTH = Look(0.2, 0.03)


def vehicle(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a car: bonnet and wheels are warm if it was driven, windows mirror the cold sky."""
    build, air = Builder(climate), climate.air_k
    driven = rng.random() < 0.7
    engine = rng.uniform(8, 25) if driven else 0.0
    paint = MATERIALS["paint"].coloured(bright_colour(rng))
    length, height = rng.uniform(1.75, 2.2), rng.uniform(1.35, 1.7)  # length is half of the car's
    panel = {"look": SMOOTH, "solar_gain_k": 14.0, "mottle_k": 0.4}
    build.add(box([0, 0.6, -0.25 * length], [0.85, 0.32, 0.75 * length]), paint, air + 0.5, **panel)  # type: ignore[arg-type]
    bonnet = box([0, 0.55, 0.62 * length], [0.84, 0.27, 0.38 * length])
    build.add(bonnet, paint, (air + 0.4 * engine, air + engine), axis=2, **panel)  # type: ignore[arg-type]
    roof = ellipsoid([0, height - 0.13, -0.2 * length], [0.7, 0.15, 0.5 * length])
    build.add(roof, paint, air - 1, **panel)  # type: ignore[arg-type]
    cabin = ellipsoid([0, 0.9, -0.2 * length], [0.86, height - 0.9, 0.72 * length])
    build.add(cabin, "window", air + 0.5, look=SMOOTH, solar_gain_k=3)
    alloy = MATERIALS["paint"].coloured(colour(rng, (0.3, 0.3, 0.31)))
    dark = MATERIALS["plastic"].coloured((0.05, 0.05, 0.05))
    build.add(box([0, 0.62, length], [0.55, 0.1, 0.02]), dark, air + 0.7 * engine, look=Look(0.05, 0.3, 0, "stripes"))
    for side in (-1, 1):
        build.add(ellipsoid([side * 0.66, 0.66, length * 0.99], [0.14, 0.08, 0.05]), "window", air + 0.5 * engine)
        for z in (-0.62 * length, 0.62 * length):
            tyre_k = air + (rng.uniform(6, 14) if driven else 1.0)
            build.add(cylinder([side * 0.76, 0.32, z], 0.32, 0.12, axis=0), "rubber", tyre_k)
            rim_k = tyre_k + (rng.uniform(0, 10) if driven else 0)
            build.add(cylinder([side * 0.79, 0.32, z], 0.19, 0.105, axis=0), alloy, rim_k)
    return build.thing("vehicle")


def stone(rng: np.random.Generator, climate: Climate, size_m: float | None = None) -> Thing:
    """Draw a stone of several lumps; its sunny side is warm."""
    build = Builder(climate)
    size = size_m or rng.uniform(0.25, 0.6)
    grey = MATERIALS["stone"].coloured(colour(rng, MATERIALS["stone"].albedo_rgb, 0.4))
    half = size * rng.uniform(0.7, 1.1, 3) * [1.0, 0.7, 1.0]
    temperature = climate.air_k + rng.uniform(-1, 2.5)
    look = Look(size * 0.15, 0.35, 0.5)
    build.add(ellipsoid([0, half[1] * 0.6, 0], half), grey, temperature, look=look, mottle_k=0.4, solar_gain_k=13)
    for _ in range(4):
        place = rng.uniform(-0.6, 0.6, 3) * half + [0, half[1] * 0.6, 0]
        lump = half * rng.uniform(0.45, 0.75, 3)
        build.add(ellipsoid(place, lump), grey, temperature, look=look, mottle_k=0.4, solar_gain_k=13)
    return build.thing("stone")


def crate(rng: np.random.Generator, climate: Climate, size_m: float | None = None) -> Thing:
    """Draw a wooden crate or a cardboard box."""
    build = Builder(climate)
    half = (size_m or rng.uniform(0.25, 0.55)) * rng.uniform(0.7, 1.2, 3)
    wooden = rng.random() < 0.5
    look = Look(float(half.min()) * 0.4, 0.35, 0.1, "planks") if wooden else Look(float(half.min()), 0.06, 0.05)
    material = "wood" if wooden else "cardboard"
    build.add(box([0, half[1], 0], half), material, climate.air_k + rng.uniform(-0.5, 1), look=look, solar_gain_k=9)
    tape = half * [0.12, 1, 1] + 0.002
    if not wooden:
        build.add(box([0, half[1], 0], tape), "plastic", climate.air_k, look=SMOOTH, solar_gain_k=9)
    return build.thing("box")


def glass_pane(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a pane in a metal frame: transparent in visible light, a mirror in the long-wave infrared."""
    build, air = Builder(climate), climate.air_k
    frame = MATERIALS["paint"].coloured(colour(rng, (0.25, 0.25, 0.26), 0.6))
    half, high = rng.uniform(0.6, 1.1), rng.uniform(1.6, 2.1)
    build.add(
        box([0, high / 2 + 0.15, 0], [half, high / 2, 0.006]), "glass", air - 0.5, look=Look(1, 0), solar_gain_k=1
    )
    for x in (-half, half):
        build.add(box([x, high / 2 + 0.1, 0], [0.035, high / 2 + 0.1, 0.035]), frame, air, look=SMOOTH)
    for y in (0.13, high + 0.17):
        build.add(box([0, y, 0], [half, 0.035, 0.035]), frame, air, look=SMOOTH)
    return build.thing("glass")


def cup(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a mug at air temperature or hot: cooler toward rim and handle, and the drink hotter than the wall."""
    build, air = Builder(climate), climate.air_k
    radius, high = rng.uniform(0.036, 0.046), rng.uniform(0.08, 0.11)
    heat = rng.uniform(15, 50) if rng.random() < 0.75 else 0.0
    full = rng.uniform(0.6, 0.92)
    glaze = MATERIALS["ceramic"].coloured(bright_colour(rng))
    wall = (air + 0.85 * heat, air + 0.75 * heat)
    build.add(cylinder([0, high * full / 2, 0], radius, high * full / 2), glaze, wall, look=SMOOTH, solar_gain_k=2)
    rest = high * (1 - full)
    rim = (air + 0.75 * heat, air + 0.3 * heat)
    build.add(cylinder([0, high - rest / 2, 0], radius, rest / 2), glaze, rim, look=SMOOTH, solar_gain_k=2)
    build.add(cylinder([0, high - 0.002, 0], radius * 0.87, 0.0035), "liquid", air + heat, look=SMOOTH, mottle_k=0.6)
    angles = np.linspace(-1.25, 1.25, 7)
    arc = np.stack(
        [radius * 0.95 + 0.026 * np.cos(angles), high * 0.52 + 0.3 * high * np.sin(angles), 0 * angles], axis=1
    )
    for index in range(6):
        cool = abs(index - 2.5) / 2.5  # the middle of the handle is the coolest
        build.add(capsule(arc[index], arc[index + 1], 0.0065), glaze, air + heat * (0.1 + 0.35 * cool), look=SMOOTH)
    return build.thing("cup")


def bottle(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a bottle, cold up to its filling level or near room temperature."""
    build, air = Builder(climate), climate.air_k
    radius, high = rng.uniform(0.03, 0.042), rng.uniform(0.14, 0.19)
    cold = air - (rng.uniform(6, 16) if rng.random() < 0.75 else 0.3)
    body = MATERIALS["plastic"].coloured(
        colour(rng, (0.05, 0.22, 0.1) if rng.random() < 0.5 else (0.3, 0.12, 0.04), 0.5)
    )
    level = rng.uniform(0.4, 0.9)
    build.add(cylinder([0, high * level / 2, 0], radius, high * level / 2), body, (cold, cold + 1), look=SMOOTH)
    upper = capsule([0, high * level, 0], [0, high, 0], radius * 0.99)
    build.add(upper, body, (cold + 2, 0.5 * (cold + air)), look=SMOOTH)
    build.add(capsule([0, high, 0], [0, high * 1.32, 0], radius * 0.36), body, 0.3 * cold + 0.7 * air, look=SMOOTH)
    build.add(cylinder([0, high * 1.38, 0], radius * 0.44, 0.011), "plastic", air, look=SMOOTH)
    label = MATERIALS["cardboard"].coloured(bright_colour(rng))
    build.add(cylinder([0, high * 0.42, 0], radius * 1.012, high * 0.2), label, cold + 1, look=Look(0.02, 0.3))
    return build.thing("bottle")


def kettle(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a polished steel kettle: in the infrared it mirrors the room, so only handle and knob show its heat."""
    build, air = Builder(climate), climate.air_k
    hot = air + (rng.uniform(25, 65) if rng.random() < 0.7 else 0)
    size = rng.uniform(0.065, 0.085)
    build.add(ellipsoid([0, size * 0.85, 0], [size, size * 0.85, size]), "steel", (hot, hot - 6), look=SMOOTH)
    build.add(
        capsule([size * 0.8, size * 0.8, 0], [size * 1.5, size * 1.5, 0], size * 0.15), "steel", hot - 6, look=SMOOTH
    )
    build.add(ellipsoid([0, size * 1.76, 0], [size * 0.16] * 3), "rubber", air + 0.5 * (hot - air))
    angles = np.linspace(0.15, np.pi - 0.15, 8)
    arc = np.stack([0.8 * size * np.cos(angles), 1.35 * size + size * np.sin(angles), 0 * angles], axis=1)
    for a, b in pairwise(arc):
        build.add(capsule(a, b, size * 0.1), "rubber", air + 0.25 * (hot - air))
    return build.thing("kettle")


def fruit(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw one to three fruits close together, at room temperature or colder."""
    build = Builder(climate)
    cold = climate.air_k - rng.choice([0.4, 7.0])
    for index in range(int(rng.integers(1, 4))):
        radius = rng.uniform(0.03, 0.042)
        peel = MATERIALS["peel"].coloured(
            colour(rng, [(0.5, 0.06, 0.04), (0.75, 0.3, 0.03), (0.3, 0.42, 0.06)][index], 0.3)
        )
        angle = index * 2.1
        place = np.array([0.042 * np.cos(angle), radius * 0.96, 0.042 * np.sin(angle)])
        up = np.array([0, radius, 0])
        body: Shape = ellipsoid(place, [radius, radius * 0.95, radius])
        build.add(body, peel, (cold - 0.3, cold + 0.3), look=Look(0.01, 0.12, 0.05), solar_gain_k=2)
        build.add(capsule(place + up * 0.85, place + up * 1.2, 0.0025), "bark", cold)
    return build.thing("fruit")


Array = npt.NDArray[np.float64]
CORE_K = 309.0  # body temperature of an animal
CLOTH = Look(0.04, 0.2, 0.25)
FUR = Look(0.05, 0.3, 0.35)


@dataclass(frozen=True, slots=True)
class _Figure:
    """A body under construction; coordinates are multiplied by `size`."""

    build: Builder
    size: float

    def at(self, x: float, y: float, z: float) -> Array:
        return np.array([x, y, z]) * self.size

    def fur(self, shape: Shape, fur: Material, temperature_k: float | tuple[float, float], drop_k: float = 1.5) -> None:
        self.build.add(shape, fur, temperature_k, look=FUR, edge_drop_k=drop_k, mottle_k=0.5)

    def cloth(self, shape: Shape, cloth: Material, temperature_k: float | tuple[float, float]) -> None:
        self.build.add(shape, cloth, temperature_k, look=CLOTH, edge_drop_k=1.0)


@dataclass(frozen=True, slots=True)
class _Outfit:
    """Clothes and skin of a person, with their temperatures in kelvin."""

    skin: Material
    shirt: Material
    trousers: Material
    hair: Material
    skin_k: float
    shirt_k: float
    trousers_k: float
    hand_k: float
    shoe_k: float
    bare_arms: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, air_k: float) -> _Outfit:
        skin_k = 306.5 - 0.1 * max(288 - air_k, 0)
        over = skin_k - air_k
        warmth = rng.uniform(0.3, 0.6)  # of the clothes, between air and skin
        tone = colour(rng, np.array([0.45, 0.27, 0.2]) * rng.uniform(0.3, 1.25), 0.1)
        shirt, trousers = (MATERIALS["cloth"].coloured(bright_colour(rng)) for _ in range(2))
        return cls(
            skin=MATERIALS["skin"].coloured(tone),
            shirt=shirt,
            trousers=trousers,
            hair=MATERIALS["hair"].coloured(colour(rng, (0.06, 0.04, 0.03), 0.6)),
            skin_k=skin_k,
            shirt_k=air_k + warmth * over,
            trousers_k=air_k + 0.85 * warmth * over,
            hand_k=air_k + rng.uniform(0.55, 0.9) * over,
            shoe_k=air_k + 0.2 * over,
            bare_arms=bool(rng.random() < 0.5),
        )


def person(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a person of 1.5 to 1.9 m who stands or walks: head and hands are warm, clothes between skin and air."""
    body = _Figure(Builder(climate), rng.uniform(1.5, 1.9) / 1.75)
    wear = _Outfit.draw(rng, climate.air_k)
    wide = rng.uniform(0.9, 1.15)
    _trunk_and_head(body, wear, wide)
    stride = rng.uniform(0, 0.32) * rng.choice([-1, 1])
    for side in (-1, 1):
        _leg(body, wear, side, side * stride)
        _arm(body, wear, side, -side * stride, wide, rng.uniform(0, 0.15))
    return body.build.thing("person")


def _trunk_and_head(body: _Figure, wear: _Outfit, wide: float) -> None:
    at, add, size = body.at, body.build.add, body.size
    torso_k = (wear.shirt_k - 0.8, wear.shirt_k + 0.8)
    body.cloth(ellipsoid(at(0, 1.18, 0), at(0.2 * wide, 0.34, 0.13 * wide)), wear.shirt, torso_k)
    body.cloth(capsule(at(-0.14, 1.38, 0), at(0.14, 1.38, 0), 0.08 * size), wear.shirt, wear.shirt_k)
    body.cloth(ellipsoid(at(0, 0.93, 0), at(0.17 * wide, 0.17, 0.13)), wear.trousers, wear.trousers_k)
    add(capsule(at(0, 1.4, 0), at(0, 1.53, 0.01), 0.055 * size), wear.skin, wear.skin_k + 0.5)
    face_k = (wear.skin_k - 1, wear.skin_k)
    add(ellipsoid(at(0, 1.62, 0.02), at(0.078, 0.115, 0.095)), wear.skin, face_k, edge_drop_k=0.8)
    add(ellipsoid(at(0, 1.6, 0.115), at(0.014, 0.02, 0.02)), wear.skin, wear.skin_k - 3)  # the nose is cool
    hair_k = 0.55 * body.build.climate.air_k + 0.45 * wear.skin_k
    add(ellipsoid(at(0, 1.66, -0.02), at(0.085, 0.095, 0.095)), wear.hair, hair_k, look=FUR)


def _leg(body: _Figure, wear: _Outfit, side: int, step: float) -> None:
    at, size, warm = body.at, body.size, wear.trousers_k
    hip, knee = at(side * 0.09, 0.9, 0), at(side * 0.1, 0.49, step * 0.6 + 0.03)
    ankle = at(side * 0.1, 0.09, step * 1.1 - (0.1 if step < 0 else 0))
    body.cloth(capsule(hip, knee, 0.082 * size), wear.trousers, (warm, warm - 0.8))
    body.cloth(capsule(knee, ankle, 0.06 * size), wear.trousers, (warm - 0.8, warm - 2))
    body.build.add(ellipsoid(ankle + at(0, -0.035, 0.05), at(0.048, 0.05, 0.13)), "leather", wear.shoe_k)


def _arm(body: _Figure, wear: _Outfit, side: int, step: float, wide: float, reach: float) -> None:
    at, size = body.at, body.size
    shoulder, elbow = at(side * 0.21 * wide, 1.37, 0), at(side * 0.26 * wide, 1.1, step * 0.5 - 0.02)
    hand = at(side * 0.25 * wide, 0.86, step * 0.9 + reach)
    sleeve, arm_k = (wear.skin, wear.skin_k - 1.5) if wear.bare_arms else (wear.shirt, wear.shirt_k)
    body.cloth(capsule(shoulder, elbow, 0.052 * size), wear.shirt, wear.shirt_k)
    body.build.add(capsule(elbow, hand, 0.04 * size), sleeve, (arm_k, min(arm_k, wear.hand_k) - 0.5), edge_drop_k=0.6)
    body.build.add(ellipsoid(hand, at(0.042, 0.07, 0.042)), wear.skin, wear.hand_k)


def animal(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a four-legged animal of the size of a dog to a cow: trunk and head are warm, legs and fur edges cooler."""
    body = _Figure(Builder(climate), rng.uniform(0.5, 1.35))
    air, at, size = climate.air_k, body.at, body.size
    fur_k = air + rng.uniform(0.3, 0.55) * (CORE_K - air)
    shade = np.array([0.22, 0.15, 0.1]) * rng.choice([0.3, 1, 2.5])
    fur = MATERIALS["fur"].coloured(colour(rng, shade, 0.3))
    slim = rng.uniform(0.8, 1.15)
    body.fur(ellipsoid(at(0, 0.78, -0.1), at(0.19 * slim, 0.2 * slim, 0.42)), fur, fur_k)
    body.fur(ellipsoid(at(0, 0.8, 0.2), at(0.18 * slim, 0.22, 0.24)), fur, fur_k + 0.5)
    head = at(0, 0.98 + rng.uniform(-0.2, 0.14), 0.62)
    body.fur(capsule(at(0, 0.85, 0.3), head - at(0, 0.05, 0.08), 0.11 * size), fur, (fur_k, fur_k + 0.8))
    _animal_head(body, fur, head, fur_k)
    for side in (-1, 1):
        for z in (-0.38, 0.26):
            swing = rng.uniform(-0.12, 0.12)
            knee, hoof = at(side * 0.12, 0.36, z + swing), at(side * 0.12, 0.05, z + swing * 0.6)
            body.fur(capsule(at(side * 0.12, 0.68, z), knee, 0.075 * size), fur, (fur_k, fur_k - 1), 1)
            body.fur(capsule(knee, hoof, 0.045 * size), fur, (fur_k - 1, air + 3), 1)
    tip = at(rng.uniform(-0.1, 0.1), 0.5, -0.62)
    body.fur(capsule(at(0, 0.88, -0.5), tip, 0.03 * size), fur, (fur_k, air + 2), 0.5)
    return body.build.thing("animal")


def _animal_head(body: _Figure, fur: Material, head: Array, fur_k: float) -> None:
    """Add skull, muzzle with a cool nose, warm eyes and ears."""
    at = body.at
    air = body.build.climate.air_k
    body.fur(ellipsoid(head, at(0.1, 0.11, 0.14)), fur, fur_k + 1.5)
    muzzle = capsule(head + at(0, -0.03, 0.1), head + at(0, -0.07, 0.24), 0.055 * body.size)
    body.fur(muzzle, fur, (fur_k + 1, fur_k + 3))
    nose = ellipsoid(head + at(0, -0.07, 0.29), at(0.03, 0.028, 0.02))
    body.build.add(nose, "leather", air + 0.35 * (CORE_K - air))
    for side in (-1, 1):
        body.build.add(ellipsoid(head + at(side * 0.085, 0.03, 0.07), at(0.02, 0.02, 0.02)), "hair", CORE_K - 2)
        body.fur(ellipsoid(head + at(side * 0.1, 0.1, -0.03), at(0.035, 0.08, 0.03)), fur, fur_k + 2)


def leaf_cluster(rng: np.random.Generator, build: Builder, centre: Array, half_m: Array, count: int) -> None:
    """Add `count` small ellipsoids of leaves in a large one, so that its outline is uneven."""
    leaf = MATERIALS["leaf"].coloured(colour(rng, MATERIALS["leaf"].albedo_rgb, 0.4))
    for _ in range(count):
        direction = rng.normal(size=3)
        place = centre + direction / np.linalg.norm(direction) * half_m * rng.uniform(0.3, 0.85)
        size = half_m * rng.uniform(0.2, 0.42, 3)
        look = Look(max(float(half_m.mean()) * 0.12, 0.01), 0.6, 0.9)
        build.add(
            ellipsoid(place, size),
            leaf,
            build.climate.air_k - rng.uniform(0, 1.2),
            look=look,
            mottle_k=0.8,
            solar_gain_k=4,
        )


def bush(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a shrub of 0.6 to 1.4 m, close to air temperature."""
    build = Builder(climate)
    half = np.array([rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.75), rng.uniform(0.4, 0.8)])
    leaf_cluster(rng, build, np.array([0, half[1] * 0.95, 0]), half, 30)
    build.add(capsule([0, 0, 0], [0, half[1], 0], 0.05), "bark", climate.air_k)
    return build.thing("plant")


def tree(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a tree for the background."""
    build = Builder(climate)
    height = rng.uniform(4, 9)
    crown = np.array([height * 0.28, height * 0.32, height * 0.28])
    build.add(
        capsule([0, 0, 0], [0, height * 0.6, 0], height * 0.03), "bark", climate.air_k + 0.5, look=Look(0.1, 0.4, 0.5)
    )
    leaf_cluster(rng, build, np.array([0, height * 0.68, 0]), crown, 14)
    return build.thing("background")


def potted_plant(rng: np.random.Generator, climate: Climate) -> Thing:
    """Draw a small plant in a clay pot; the moist soil cools the pot by evaporation."""
    build = Builder(climate)
    radius, height = rng.uniform(0.035, 0.05), rng.uniform(0.06, 0.09)
    build.add(cylinder([0, height / 2, 0], radius, height / 2), "terracotta", climate.air_k - rng.uniform(0.5, 2))
    build.add(cylinder([0, height - 0.006, 0], radius * 1.1, 0.008), "terracotta", climate.air_k - 0.5)
    build.add(cylinder([0, height, 0], radius * 0.9, 0.004), "soil", climate.air_k - 2.5, look=Look(0.01, 0.4, 0.5))
    half = np.array([1, rng.uniform(0.8, 1.4), 1]) * rng.uniform(0.05, 0.08)
    leaf_cluster(rng, build, np.array([0, height + half[1] * 0.8, 0]), half, 18)
    return build.thing("plant")
