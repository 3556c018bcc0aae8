"""Render a world into the maps of a scene by ray casting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.sensors.simulated_scene import Light, Material, Scene, Surface, pixel_rays
from simmat_plugin_scenes.materials import MATERIALS
from simmat_plugin_scenes.noise import Noise
from simmat_plugin_scenes.world import CLASSES, Look, Part, Thing, World

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stage:
    """A world prepared for ray casting.

    Attributes:
        parts: P parts, background first.
        owner: (P,) instance id of each part, 0 for the background.
        material: (P,) index of each part's material.
        materials: the table; 0 is the sky.
        blockers: (T, 4) a sphere (x, y, z, radius) per object, for soft shading.
    """

    parts: tuple[Part, ...]
    owner: IntArray
    material: IntArray
    materials: tuple[Material, ...]
    blockers: Array

    @classmethod
    def of(cls, world: World) -> Stage:
        """Prepare a world."""
        owned = [(part, 0) for thing in world.background for part in thing.parts]
        owned += [(part, number) for number, thing in enumerate(world.things, 1) for part in thing.parts]
        table = [MATERIALS["sky"]]
        index = []
        for part, _ in owned:
            if part.material not in table:
                table.append(part.material)
            index.append(table.index(part.material))
        blockers = np.array([_sphere_of(thing) for thing in world.things]).reshape(-1, 4)
        return cls(
            tuple(part for part, _ in owned), np.array([n for _, n in owned]), np.array(index), tuple(table), blockers
        )


def trace_rays(
    parts: Sequence[Part], origins: Array, directions: Array, *, glass: bool = True
) -> tuple[Array, IntArray]:
    """Find the first part that each ray hits.

    Args:
        parts: P parts.
        origins: (N, 3) or (1, 3), world frame.
        directions: (N, 3) unit vectors.
        glass: False lets rays pass through transparent parts.

    Returns:
        (N,) distance in metres, infinite without a hit; (N,) index of the part, -1 without a hit.
    """
    distance = np.full(len(directions), np.inf)
    index = np.full(len(directions), -1)
    for number, part in enumerate(parts):
        if not glass and part.material.transmits_visible > 0:
            continue
        found = part.shape.intersect(origins, directions)
        nearer = found < distance
        distance[nearer] = found[nearer]
        index[nearer] = number
    return distance, index


def render(world: World, stage: Stage, size_hw: tuple[int, int], noise: Noise) -> Scene:
    """Return the scene that the world's camera sees."""
    focal_px = (size_hw[1] / 2) / world.half_width
    rays = pixel_rays(size_hw, focal_px).reshape(3, -1).T @ world.axes  # (H*W, 3), world frame
    origin = world.position[None]
    distance, index = trace_rays(stage.parts, origin, rays)
    eye = _RayCamera(world, stage, focal_px, noise)
    front = eye.look(rays, distance, index)
    transparent = [number for number, part in enumerate(stage.parts) if part.material.transmits_visible > 0]
    clear = np.isin(index, transparent)
    back = front
    if clear.any():
        beyond = eye.look(rays[clear], *trace_rays(stage.parts, origin, rays[clear], glass=False))
        back = _RayHits(*(_replaced(all_of, clear, some) for all_of, some in zip(front, beyond, strict=True)))
    owner = np.where(index >= 0, stage.owner[index], 0)
    names = np.array([0] + [CLASSES.index(thing.class_name) for thing in world.things], dtype=np.int32)
    return Scene(
        instance=owner.reshape(size_hw).astype(np.int32),
        class_id=names[owner].reshape(size_hw),
        surface=_surface(front, world.axes, size_hw),
        behind=_surface(back, world.axes, size_hw),
        reflected_k=eye.reflected(rays, distance, index, front.normals).reshape(size_hw).astype(np.float32),
        materials=stage.materials,
        light=_in_camera_frame(world.light, world.axes),
        focal_px=focal_px,
    )


class _RayHits(NamedTuple):
    """The surfaces that N rays hit: `Surface` as flat arrays, with (N, 3) normals in the world frame."""

    material: IntArray
    depth_m: Array
    normals: Array
    temperature_k: Array
    texture: Array
    sunlit: Array
    sky_view: Array


def _replaced(values: npt.NDArray[Any], where: npt.NDArray[np.bool_], new: npt.NDArray[Any]) -> npt.NDArray[Any]:
    result = values.copy()
    result[where] = new
    return result


def _surface(seen: _RayHits, axes: Array, size_hw: tuple[int, int]) -> Surface:
    """Reshape flat values to maps, with normals in the camera's frame."""

    def grid(values: Array) -> npt.NDArray[np.float32]:
        return values.reshape(size_hw).astype(np.float32)

    return Surface(
        material=seen.material.reshape(size_hw).astype(np.int32),
        depth_m=grid(seen.depth_m),
        normal=(seen.normals @ axes.T).T.reshape(3, *size_hw).astype(np.float32),
        temperature_k=grid(seen.temperature_k),
        texture=grid(seen.texture),
        sunlit=grid(seen.sunlit),
        sky_view=grid(seen.sky_view),
    )


@dataclass(frozen=True, slots=True)
class _RayCamera:
    """The camera of a world, which evaluates surfaces along rays."""

    world: World
    stage: Stage
    focal_px: float
    noise: Noise

    def look(self, rays: Array, distance: Array, index: IntArray) -> _RayHits:
        """Return the surfaces that (N, 3) rays from the camera hit at (N,) distances on (N,) parts."""
        hit = index >= 0
        points = self.world.position + np.where(hit, distance, 0.0)[:, None] * rays
        smooth, normals = -rays, -rays.copy()
        texture = np.ones(len(rays))
        for number in np.unique(index[hit]):
            here = index == number
            part = self.stage.parts[number]
            smooth[here] = part.shape.normal(points[here])
            footprint = distance[here] / self.focal_px
            texture[here], normals[here] = _detail(part, points[here], smooth[here], footprint, self.noise)
        facing = np.einsum("ij,ij->i", normals, -rays)
        normals = np.where(
            (facing < 0.02)[:, None], smooth, normals
        )  # bumps must not turn a surface away from the camera
        sunlit = self._sunlit(points, smooth, hit)
        return _RayHits(
            material=np.where(hit, self.stage.material[index], 0),
            depth_m=np.where(hit, distance * (rays @ self.world.axes[2]), np.inf),
            normals=normals,
            temperature_k=self.temperature(points, index, smooth, sunlit, rays),
            texture=texture,
            sunlit=sunlit,
            sky_view=np.where(hit, self._sky_view(points, smooth), 1.0),
        )

    def temperature(self, points: Array, index: IntArray, normals: Array, sunlit: Array, rays: Array) -> Array:
        """Return (N,) kelvin of the surfaces that rays hit; the sky's apparent temperature without a hit."""
        result = sky_temperature(self.world.light, rays, self.noise)
        facing = np.einsum("ij,ij->i", normals, -rays).clip(0, 1)
        warmed = sunlit * (normals @ np.asarray(self.world.light.sun_direction)).clip(0, 1)
        for number in np.unique(index[index >= 0]):
            here = index == number
            part = self.stage.parts[number]
            heat = part.heat
            along = (part.shape.local(points[here])[:, heat.axis] / (1 + part.shape.half)).clip(-1, 1)
            values = heat.start_k + (heat.end_k - heat.start_k) * (along + 1) / 2
            values -= heat.edge_drop_k * (1 - facing[here]) ** 2
            values += heat.mottle_k * 1.5 * self.noise(points[here] / (4 * part.look.scale_m) + 3.1 * number, 2)
            dark = 1 - float(np.mean(part.material.albedo_rgb))
            result[here] = values + heat.solar_gain_k * dark * warmed[here]
        return result

    def reflected(self, rays: Array, distance: Array, index: IntArray, normals: Array) -> Array:
        """Return (N,) apparent kelvin along each mirrored ray, which is traced only from surfaces that mirror."""
        mirrored = rays - 2 * np.einsum("ij,ij->i", rays, normals)[:, None] * normals
        result = sky_temperature(self.world.light, mirrored, None)
        result = np.where(mirrored[:, 1] < 0, self.world.light.air_k, result)
        shiny = np.isin(index, [i for i, p in enumerate(self.stage.parts) if p.material.emissivity_lwir < 0.9])
        if shiny.any():
            starts = self.world.position + distance[shiny, None] * rays[shiny] + 1e-3 * normals[shiny]
            far, met = trace_rays(self.stage.parts, starts, mirrored[shiny])
            places = starts + np.where(met >= 0, far, 0)[:, None] * mirrored[shiny]
            half = np.full(len(met), 0.3)
            ups = np.broadcast_to(np.array([0.0, 1.0, 0.0]), places.shape)
            result[shiny] = self.temperature(places, met, ups, half, mirrored[shiny])
        return result

    def _sunlit(self, points: Array, normals: Array, hit: npt.NDArray[np.bool_]) -> Array:
        """Return (N,) 1 where the sun or lamp is visible, else 0."""
        sun = np.asarray(self.world.light.sun_direction)
        result = np.zeros(len(points))
        faces = hit & (normals @ sun > 0) & (max(self.world.light.sun_rgb) > 0)
        if faces.any():
            casters = [part for part in self.stage.parts if part.shape.kind != "plane"]
            starts = points[faces] + 2e-3 * normals[faces]
            towards = np.broadcast_to(sun, starts.shape)
            result[faces] = ~np.isfinite(trace_rays(casters, starts, towards, glass=False)[0])
        return result

    def _sky_view(self, points: Array, normals: Array) -> Array:
        """Return (N,) visible fraction of the sky: by the surface's tilt, less near objects (spheres, Quilez 2009)."""
        view = 0.5 + 0.5 * normals[:, 1] if not self.world.light.indoor else 0.75 + 0.25 * normals[:, 1]
        for x, y, z, radius in self.stage.blockers:
            towards = np.array([x, y, z]) - points
            squared = np.maximum(np.einsum("ij,ij->i", towards, towards), radius**2)
            cosine = (np.einsum("ij,ij->i", towards, normals) / np.sqrt(squared)).clip(0, 1)
            view = view * (1 - 0.8 * cosine * radius**2 / squared)
        return np.asarray(view)


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


def _detail(part: Part, points: Array, normals: Array, footprint_m: Array, noise: Noise) -> tuple[Array, Array]:
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
        slopes = noise.gradient(inside / look.scale_m) * (look.bump * visible)[:, None] * 0.5
        bumped = normals - (slopes - np.einsum("ij,ij->i", slopes, normals)[:, None] * normals)
        normals = bumped / np.linalg.norm(bumped, axis=1, keepdims=True)
    return factor, normals


def _pattern(look: Look, points: Array) -> Array:
    """Return (N,) the part of the texture from a look's pattern, which is added to its noise."""
    place = points / look.scale_m
    if look.pattern == "stripes":
        return np.asarray(np.sign(np.sin(place[:, 1] * np.pi)) * 0.8)
    if look.pattern == "planks":
        return np.asarray(
            -2.5 * (np.abs(place[:, 0] / 2 % 1 - 0.5) > 0.47) + 0.6 * np.sin(np.floor(place[:, 0] / 2) * 12.9)
        )
    if look.pattern == "tiles":
        row = np.floor(place[:, 1] + place[:, 2])
        joint = (np.abs((place[:, 1] + place[:, 2]) % 1 - 0.5) > 0.44) | (
            np.abs((place[:, 0] / 2 + 0.5 * (row % 2)) % 1 - 0.5) > 0.47
        )
        return np.asarray(-2.0 * joint)
    return np.zeros(len(points))


def _sphere_of(thing: Thing) -> Array:
    centres = np.array([part.shape.centre for part in thing.parts])
    middle = centres.mean(axis=0)
    reach = (
        np.sqrt(((centres - middle) ** 2).sum(axis=1).mean()) + np.mean([p.shape.radius_m for p in thing.parts]) * 0.5
    )
    return np.array([*middle, reach * 0.8])


def _in_camera_frame(light: Light, axes: Array) -> Light:
    sun, up = axes @ np.asarray(light.sun_direction), axes @ np.asarray(light.up)
    return replace(light, sun_direction=_triple(sun), up=_triple(up))


def _triple(vector: Array) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])
