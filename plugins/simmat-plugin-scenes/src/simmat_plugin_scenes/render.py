"""Render a world into the maps of a scene by ray casting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat_plugin_scenes.camera import Noise, PicturedScene
from simmat_plugin_scenes.materials import MATERIALS
from simmat_plugin_scenes.scene import Light, Scene, Surface, pixel_rays
from simmat_plugin_scenes.world import CLASSES, Look, Part, Thing, World

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Hits = list[npt.NDArray[Any]]
"""The surfaces that N rays hit: the fields of `Surface` in order, flat, with (N, 3) normals in the world frame."""


def render(world: World, size_hw: tuple[int, int], noise: Noise) -> Scene:
    """Return the scene that the world's camera sees."""
    stage, focal_px = RayStage(world), (size_hw[1] / 2) / world.half_width
    # (H*W, 3), world frame
    rays = pixel_rays(size_hw, focal_px).reshape(3, -1).T @ world.axes
    origin = world.position[None]
    distance, index = stage.trace(origin, rays)
    front = stage.hits(rays, distance, index, focal_px, noise)
    clear = np.isin(
        index, stage.parts_with(lambda part: part.material.transmits_visible > 0)
    )
    back = front
    if clear.any():
        beyond = stage.hits(
            rays[clear], *stage.trace(origin, rays[clear], glass=False), focal_px, noise
        )
        back = [values.copy() for values in front]
        for values, new in zip(back, beyond, strict=True):
            values[clear] = new
    owner = np.where(index >= 0, stage.owner[index], 0)
    names = np.array(
        [0] + [CLASSES.index(thing.class_name) for thing in world.things],
        dtype=np.int32,
    )
    sun, up = (
        world.axes @ np.asarray(vector)
        for vector in (world.light.sun_direction, world.light.up)
    )
    return PicturedScene(
        instance=owner.reshape(size_hw).astype(np.int32),
        class_id=names[owner].reshape(size_hw),
        surface=_surface(front, world.axes, size_hw),
        behind=_surface(back, world.axes, size_hw),
        reflected_k=stage.reflected(rays, distance, index, front[2], noise)
        .reshape(size_hw)
        .astype(np.float32),
        materials=tuple(stage.materials),
        light=replace(world.light, sun_direction=_triple(sun), up=_triple(up)),
        focal_px=focal_px,
    )


def _surface(hits: Hits, axes: Array, size_hw: tuple[int, int]) -> Surface:
    """Reshape flat values to maps, with normals in the camera's frame."""
    material, depth, normals, *others = hits
    return Surface(
        material.reshape(size_hw).astype(np.int32),
        depth.reshape(size_hw).astype(np.float32),
        (normals @ axes.T).T.reshape(3, *size_hw).astype(np.float32),
        *(values.reshape(size_hw).astype(np.float32) for values in others),
    )


def _triple(vector: Array) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])


class RayStage:
    """A world prepared for ray casting, and the surfaces along rays.

    Attributes:
        parts: P parts, background first.
        owner: (P,) instance id of each part, 0 for the background.
        materials: the table; 0 is the sky.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        owned = [(part, 0) for thing in world.background for part in thing.parts]
        owned += [
            (part, number)
            for number, thing in enumerate(world.things, 1)
            for part in thing.parts
        ]
        self.parts = [part for part, _ in owned]
        self.owner = np.array([number for _, number in owned])
        self.materials = [MATERIALS["sky"]]
        for part in self.parts:
            if part.material not in self.materials:
                self.materials.append(part.material)
        self._material = np.array(
            [self.materials.index(part.material) for part in self.parts]
        )

    def parts_with(self, wanted: Callable[[Part], bool]) -> list[int]:
        """Return the indices of the parts that fulfil a condition."""
        return [number for number, part in enumerate(self.parts) if wanted(part)]

    def trace(
        self,
        origins: Array,
        directions: Array,
        *,
        glass: bool = True,
        planes: bool = True,
    ) -> tuple[Array, IntArray]:
        """Find the first part that each ray hits.

        Args:
            origins: (N, 3) or (1, 3), world frame.
            directions: (N, 3) unit vectors.
            glass: False lets rays pass through transparent parts.
            planes: False lets rays pass through the ground and walls.

        Returns:
            (N,) distance in metres, infinite without a hit; (N,) index of the part, -1 without a hit.
        """
        distance = np.full(len(directions), np.inf)
        index = np.full(len(directions), -1)
        for number, part in enumerate(self.parts):
            if (not glass and part.material.transmits_visible > 0) or (
                not planes and part.shape.kind == "plane"
            ):
                continue
            found = part.shape.intersect(origins, directions)
            nearer = found < distance
            distance[nearer] = found[nearer]
            index[nearer] = number
        return distance, index

    def hits(
        self,
        rays: Array,
        distance: Array,
        index: IntArray,
        focal_px: float,
        noise: Noise,
    ) -> Hits:
        """Return the surfaces that (N, 3) rays from the camera hit at (N,) distances on (N,) parts."""
        hit = index >= 0
        points = self._world.position + np.where(hit, distance, 0.0)[:, None] * rays
        smooth, normals = -rays, -rays.copy()
        texture = np.ones(len(rays))
        for number in np.unique(index[hit]):
            here = index == number
            part = self.parts[number]
            smooth[here] = part.shape.normal(points[here])
            footprint = distance[here] / focal_px
            texture[here], normals[here] = _detail(
                part, points[here], smooth[here], footprint, noise
            )
        facing = np.einsum("ij,ij->i", normals, -rays)
        # Bumps must not turn a surface away from the camera.
        normals = np.where((facing < 0.02)[:, None], smooth, normals)
        sunlit = self._sunlit(points, smooth, hit)
        return [
            np.where(hit, self._material[index], 0),
            np.where(hit, distance * (rays @ self._world.axes[2]), np.inf),
            normals,
            self._temperature(points, index, smooth, sunlit, rays, noise),
            texture,
            sunlit,
            np.where(hit, self._sky_view(points, smooth), 1.0),
        ]

    def _temperature(
        self,
        points: Array,
        index: IntArray,
        normals: Array,
        sunlit: Array,
        rays: Array,
        noise: Noise,
    ) -> Array:
        """Return (N,) kelvin of the surfaces that rays hit; the sky's apparent temperature without a hit."""
        result = sky_temperature(self._world.light, rays, noise)
        facing = np.einsum("ij,ij->i", normals, -rays).clip(0, 1)
        warmed = sunlit * (normals @ np.asarray(self._world.light.sun_direction)).clip(
            0, 1
        )
        for number in np.unique(index[index >= 0]):
            here = index == number
            part = self.parts[number]
            along = (
                part.shape.local(points[here])[:, part.axis] / (1 + part.shape.half)
            ).clip(-1, 1)
            values = part.start_k + (part.end_k - part.start_k) * (along + 1) / 2
            values -= part.edge_drop_k * (1 - facing[here]) ** 2
            values += (
                part.mottle_k
                * 1.5
                * noise(points[here] / (4 * part.look.scale_m) + 3.1 * number, 2)
            )
            dark = 1 - float(np.mean(part.material.albedo_rgb))
            result[here] = values + part.solar_gain_k * dark * warmed[here]
        return result

    def reflected(
        self,
        rays: Array,
        distance: Array,
        index: IntArray,
        normals: Array,
        noise: Noise,
    ) -> Array:
        """Return (N,) apparent kelvin along each mirrored ray, which is traced only from surfaces that mirror."""
        mirrored = rays - 2 * np.einsum("ij,ij->i", rays, normals)[:, None] * normals
        result = sky_temperature(self._world.light, mirrored, None)
        result = np.where(mirrored[:, 1] < 0, self._world.light.air_k, result)
        shiny = np.isin(
            index, self.parts_with(lambda part: part.material.emissivity_lwir < 0.9)
        )
        if shiny.any():
            starts = (
                self._world.position
                + distance[shiny, None] * rays[shiny]
                + 1e-3 * normals[shiny]
            )
            far, met = self.trace(starts, mirrored[shiny])
            places = starts + np.where(met >= 0, far, 0)[:, None] * mirrored[shiny]
            ups = np.broadcast_to(np.array([0.0, 1.0, 0.0]), places.shape)
            result[shiny] = self._temperature(
                places, met, ups, np.full(len(met), 0.3), mirrored[shiny], noise
            )
        return result

    def _sunlit(
        self, points: Array, normals: Array, hit: npt.NDArray[np.bool_]
    ) -> Array:
        """Return (N,) 1 where the sun or lamp is visible, else 0."""
        sun = np.asarray(self._world.light.sun_direction)
        result = np.zeros(len(points))
        faces = hit & (normals @ sun > 0) & (max(self._world.light.sun_rgb) > 0)
        if faces.any():
            starts = points[faces] + 2e-3 * normals[faces]
            towards = np.broadcast_to(sun, starts.shape)
            result[faces] = ~np.isfinite(
                self.trace(starts, towards, glass=False, planes=False)[0]
            )
        return result

    def _sky_view(self, points: Array, normals: Array) -> Array:
        """Return (N,) visible fraction of the sky: by the surface's tilt, less near objects (spheres, Quilez 2009)."""
        view = (
            0.5 + 0.5 * normals[:, 1]
            if not self._world.light.indoor
            else 0.75 + 0.25 * normals[:, 1]
        )
        for centre, radius in map(_sphere_around, self._world.things):
            towards = centre - points
            squared = np.maximum(np.einsum("ij,ij->i", towards, towards), radius**2)
            cosine = (np.einsum("ij,ij->i", towards, normals) / np.sqrt(squared)).clip(
                0, 1
            )
            view = view * (1 - 0.8 * cosine * radius**2 / squared)
        return np.asarray(view)


def _sphere_around(thing: Thing) -> tuple[Array, float]:
    """Return centre and radius of a sphere that shades as much as an object."""
    centres = np.array([part.shape.centre for part in thing.parts])
    middle = centres.mean(axis=0)
    spread = np.sqrt(((centres - middle) ** 2).sum(axis=1).mean())
    return middle, (
        spread + np.mean([part.shape.radius_m for part in thing.parts]) * 0.5
    ) * 0.8


def sky_temperature(light: Light, rays: Array, noise: Noise | None) -> Array:
    """Return (N,) apparent long-wave kelvin of the sky along world-frame rays: near air at the horizon, cold above."""
    if light.indoor:
        return np.full(len(rays), light.air_k)
    horizon = light.air_k - 3
    up = rays[:, 1].clip(0, 1)
    result = light.sky_k + (horizon - light.sky_k) * (1 - up) ** 4
    if noise is not None:  # clouds are warmer than the clear sky
        result = result + (horizon - result) * (noise(rays * 6, 3) * 1.4).clip(0, 0.6)
    return np.asarray(result)


def _detail(
    part: Part, points: Array, normals: Array, footprint_m: Array, noise: Noise
) -> tuple[Array, Array]:
    """Return (N,) texture factors and (N, 3) bumped normals; details smaller than a pixel fade out."""
    look = part.look
    inside = points - part.shape.centre
    visible = (look.scale_m / (2 * footprint_m)).clip(0, 1)
    texture = noise(inside / look.scale_m) * 1.6 + _pattern(
        look, part.shape.local(points) if part.shape.kind == "plane" else inside
    )
    coarse = noise(inside / (look.scale_m * 12), 2)
    factor = (1 + look.contrast * (visible * texture + 0.5 * coarse)).clip(0.15, 2.5)
    if look.bump:
        slopes = (
            noise.gradient(inside / look.scale_m) * (look.bump * visible)[:, None] * 0.5
        )
        bumped = normals - (
            slopes - np.einsum("ij,ij->i", slopes, normals)[:, None] * normals
        )
        normals = bumped / np.linalg.norm(bumped, axis=1, keepdims=True)
    return factor, normals


def _pattern(look: Look, points: Array) -> Array:
    """Return (N,) the part of the texture from a look's pattern, which is added to its noise."""
    place = points / look.scale_m
    if look.pattern == "stripes":
        return np.asarray(np.sign(np.sin(place[:, 1] * np.pi)) * 0.8)
    if look.pattern == "planks":
        return np.asarray(
            -2.5 * (np.abs(place[:, 0] / 2 % 1 - 0.5) > 0.47)
            + 0.6 * np.sin(np.floor(place[:, 0] / 2) * 12.9)
        )
    if look.pattern == "tiles":
        row = np.floor(place[:, 1] + place[:, 2])
        joint = (np.abs((place[:, 1] + place[:, 2]) % 1 - 0.5) > 0.44) | (
            np.abs((place[:, 0] / 2 + 0.5 * (row % 2)) % 1 - 0.5) > 0.47
        )
        return np.asarray(-2.0 * joint)
    return np.zeros(len(points))
