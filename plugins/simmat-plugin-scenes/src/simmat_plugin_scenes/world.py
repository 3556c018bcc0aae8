"""The elements of a world: objects with their parts, materials, textures and temperatures; background; light."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from simmat_plugin_scenes.materials import MATERIALS
from simmat_plugin_scenes.scene import Light, Material
from simmat_plugin_scenes.shapes import Shape

Array = npt.NDArray[np.float64]

CLASSES = (
    "background",
    "person",
    "animal",
    "vehicle",
    "plant",
    "stone",
    "box",
    "cup",
    "bottle",
    "kettle",
    "fruit",
    "glass",
    "water",
    "ice",
)
"""Class names; `Scene.class_id` holds indices into them."""


@dataclass(frozen=True, slots=True)
class Look:
    """The texture and the bumps of a part's surface.

    Attributes:
        scale_m: size of a texture cell in metres.
        contrast: amplitude of the texture relative to the mean reflectance.
        bump: slope of random bumps; 0 is smooth.
        pattern: "noise" alone, or with stripes (cloth), planks (wood), tiles (bricks, paving).
    """

    scale_m: float = 0.05
    contrast: float = 0.15
    bump: float = 0.0
    pattern: Literal["noise", "stripes", "planks", "tiles"] = "noise"


@dataclass(frozen=True, slots=True)
class Part:
    """One solid of an object; its temperature is a function of position.

    Attributes:
        start_k: temperature at local y = -1 (a capsule's start, the bottom of an upright shape).
        end_k: temperature at local y = +1.
        axis: the local axis along which it changes from start to end.
        edge_drop_k: cooling where the surface turns away from the camera, as for thin limbs and thin fur.
        mottle_k: amplitude of random patches.
        solar_gain_k: warming of a surface that faces the sun, for an albedo of 0.
    """

    shape: Shape
    material: Material
    start_k: float
    end_k: float
    look: Look
    axis: int
    edge_drop_k: float
    mottle_k: float
    solar_gain_k: float


@dataclass(frozen=True, slots=True)
class Climate:
    """The conditions that set temperatures.

    Attributes:
        air_k: air temperature.
        sun: 0 at night, about 0.1 if overcast or in a room, 0.6 to 1 in sunlight.
    """

    air_k: float
    sun: float


@dataclass(slots=True)
class Thing:
    """An object, or a piece of the background where `class_name` is "background"."""

    class_name: str
    climate: Climate
    parts: list[Part] = field(default_factory=list)

    def add(
        self,
        shape: Shape,
        material: str | Material,
        temperature_k: float | tuple[float, float],
        *,
        look: Look | None = None,
        axis: int = 1,
        edge_drop_k: float = 0.0,
        mottle_k: float = 0.15,
        solar_gain_k: float = 6.0,
    ) -> None:
        """Add one part, with one temperature or those of its start and end; the gain is that in full sun."""
        start, end = (
            temperature_k
            if isinstance(temperature_k, tuple)
            else (temperature_k, temperature_k)
        )
        known = MATERIALS[material] if isinstance(material, str) else material
        gain = solar_gain_k * self.climate.sun
        self.parts.append(
            Part(
                shape,
                known,
                start,
                end,
                look or Look(),
                axis,
                edge_drop_k,
                mottle_k,
                gain,
            )
        )

    def placed(self, x_m: float, z_m: float, yaw: float) -> Thing:
        """Return the object rotated by `yaw` about the vertical and moved to (x, 0, z), world frame."""
        cosine, sine = np.cos(yaw), np.sin(yaw)
        rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        offset = np.array([x_m, 0.0, z_m])
        moved = [
            replace(part, shape=part.shape.moved(rotation, offset))
            for part in self.parts
        ]
        return Thing(self.class_name, self.climate, moved)


@dataclass(frozen=True, slots=True)
class World:
    """Objects, background, light and the position of the camera; world frame x right, y up, z forward.

    Attributes:
        things: the objects; their order gives the instance ids.
        background: ground, walls, trees.
        light: as in a scene, with directions in the world frame.
        position: (3,) of the camera in metres.
        axes: (3, 3) the camera's x, y, z axes as rows, world frame.
        half_width: tangent of half the horizontal field of view.
    """

    things: tuple[Thing, ...]
    background: tuple[Thing, ...]
    light: Light
    position: Array
    axes: Array
    half_width: float


def colour(
    rng: np.random.Generator, base: npt.ArrayLike, spread: float = 0.25
) -> tuple[float, float, float]:
    """Vary a linear colour in brightness by ±`spread` and in hue by a third of it; stays within 0.01 to 0.9."""
    factor = (1 + rng.uniform(-spread, spread)) * (
        1 + rng.uniform(-spread, spread, 3) / 3
    )
    red, green, blue = np.clip(np.asarray(base) * factor, 0.01, 0.9)
    return float(red), float(green), float(blue)


def coloured(
    rng: np.random.Generator,
    material: str,
    base: npt.ArrayLike = (),
    spread: float = 0.25,
) -> Material:
    """Return a material whose colour varies around `base`, by default its own; see `colour`."""
    known = MATERIALS[material]
    return known.coloured(
        colour(rng, base if np.size(base) else known.albedo_rgb, spread)
    )


def bright_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw a colour of clothes or paint: any hue, mostly muted, some white or black."""
    value = rng.choice([0.04, 0.12, 0.3, 0.55], p=[0.25, 0.3, 0.3, 0.15])
    saturation = rng.uniform(0, 0.8)
    hue = rng.dirichlet([0.8, 0.8, 0.8]) * 3
    return colour(rng, value * ((1 - saturation) + saturation * hue), 0.1)
