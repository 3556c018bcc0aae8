"""Draw vehicles, boxes, stones, panes of glass, and objects on a table."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

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
