"""A synthetic scene, from which `ModalityAdapter.simulate` makes an image: maps on one pixel grid, materials, light.

Vectors are in the camera's frame: x right, y down, z away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simmat.types import FloatArray

IntArray = npt.NDArray[np.int32]
Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Material:
    """One material.

    Attributes:
        albedo_rgb: diffuse reflectance at red, green, blue, linear, 0 to 1.
        emissivity_lwir: at normal view, 8 to 14 um.
        refractive_index: real part n, visible.
        extinction: imaginary part k, visible; 0 for dielectrics, above 1 for metals.
        roughness: 0 (mirror) to 1 (matt).
        nir_reflectance: diffuse, about 0.85 um.
        swir1_reflectance: diffuse, about 1.6 um.
        swir2_reflectance: diffuse, about 2.2 um.
        backscatter_db: radar cross section per area (sigma nought), co-polarised, C band, about 35 degrees.
        backscatter_cross_db: the same, cross-polarised.
        transmits_visible: transmittance of visible light, 0 to 1.
        infrared_transmittance: that of about 0.85, 1.6 and 2.2 um, as a fraction of `transmits_visible`.
    """

    name: str
    albedo_rgb: Rgb
    emissivity_lwir: float
    refractive_index: float = 1.5
    extinction: float = 0.0
    roughness: float = 0.8
    nir_reflectance: float = 0.3
    swir1_reflectance: float = 0.25
    swir2_reflectance: float = 0.2
    backscatter_db: float = -12.0
    backscatter_cross_db: float = -19.0
    transmits_visible: float = 0.0
    infrared_transmittance: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def coloured(self, albedo_rgb: Rgb) -> Material:
        """Return the same material in another visible colour."""
        return replace(self, albedo_rgb=albedo_rgb)


@dataclass(frozen=True, slots=True)
class Surface:
    """The first surface on the ray of each pixel.

    Attributes:
        material: (H, W) int32 index into `Scene.materials`.
        depth_m: (H, W) distance along the optical axis in metres; infinite in the sky.
        normal: (3, H, W) unit vectors of the surface, towards the camera.
        temperature_k: (H, W) kinetic temperature; in the sky its radiometric (apparent) temperature.
        texture: (H, W) factor of the material's reflectance, about 1.
        sunlit: (H, W) 0 to 1, visible part of the sun (or lamp).
        sky_view: (H, W) 0 to 1, visible part of the sky (or room).
    """

    material: IntArray
    depth_m: FloatArray
    normal: FloatArray
    temperature_k: FloatArray
    texture: FloatArray
    sunlit: FloatArray
    sky_view: FloatArray


@dataclass(frozen=True, slots=True)
class Light:
    """The light sources of a scene.

    Attributes:
        sun_direction: (3,) unit vector towards the sun or lamp.
        sun_rgb: (3,) its linear irradiance on a surface that faces it; 0 at night.
        ambient_rgb: (3,) linear irradiance from the whole sky or room.
        up: (3,) unit vector against gravity.
        air_k: air temperature in kelvin.
        sky_k: apparent long-wave temperature of the zenith (of the walls, indoors).
        indoor: True in a room.
    """

    sun_direction: tuple[float, float, float]
    sun_rgb: tuple[float, float, float]
    ambient_rgb: tuple[float, float, float]
    up: tuple[float, float, float]
    air_k: float
    sky_k: float
    indoor: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """One view of a synthetic world.

    Attributes:
        instance: (H, W) int32, 0 background, 1 to N the objects; exact, at pixel centres.
        class_id: (H, W) int32, 0 background; the generator defines the other numbers.
        surface: the first surface of each pixel, which may be glass.
        behind: the first surface behind glass; elsewhere as `surface`.
        reflected_k: (H, W) apparent temperature of what each pixel's surface reflects.
        materials: the table that `Surface.material` indexes.
        light: sun, sky and air.
        focal_px: focal length in pixels; the principal point is the centre of the image.
    """

    instance: IntArray
    class_id: IntArray
    surface: Surface
    behind: Surface
    reflected_k: FloatArray
    materials: tuple[Material, ...]
    light: Light
    focal_px: float

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.instance.shape[0]), int(self.instance.shape[1])

    def toward_camera(self) -> FloatArray:
        """(3, H, W) unit vectors from each pixel's surface to the camera."""
        return -pixel_rays(self.size_hw, self.focal_px).astype(np.float32)

    def of_material(self, name: str, surface: Surface | None = None) -> FloatArray:
        """Return a property of the material at every pixel.

        Args:
            name: a field of `Material` ("emissivity_lwir", "albedo_rgb").
            surface: default: `Scene.surface`.

        Returns:
            (H, W) float32, or (3, H, W) for a colour.
        """
        table = np.asarray(
            [getattr(material, name) for material in self.materials], dtype=np.float32
        )
        values = table[(surface or self.surface).material]  # (H, W) or (H, W, 3)
        return (
            values
            if values.ndim == 2
            else np.ascontiguousarray(np.moveaxis(values, 2, 0))
        )


def pixel_rays(size_hw: tuple[int, int], focal_px: float) -> npt.NDArray[np.float64]:
    """Return (3, H, W) unit vectors from the camera through every pixel's centre."""
    height, width = size_hw
    x = np.arange(width) - (width - 1) / 2
    y = np.arange(height) - (height - 1) / 2
    # (3, H, W)
    rays = np.stack(
        [*np.meshgrid(x / focal_px, y / focal_px), np.ones((height, width))]
    )
    return np.asarray(rays / np.linalg.norm(rays, axis=0))
