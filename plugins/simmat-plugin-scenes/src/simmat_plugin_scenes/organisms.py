"""Draw people, animals and plants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simmat.sensors.scene import Material
from simmat_plugin_scenes.materials import MATERIALS
from simmat_plugin_scenes.shapes import Shape, capsule, cylinder, ellipsoid
from simmat_plugin_scenes.world import Builder, Climate, Look, Thing, bright_colour, colour

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
