"""Materials: how a surface reflects and emits from the visible to radar.

The numbers are typical ones: long-wave emissivities and reflectances as the ECOSTRESS/ASTER spectral libraries
show for such surfaces, backscatter as in Ulaby and Dobson, Handbook of Radar Scattering Statistics for Terrain (1989).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Material:
    """One material.

    Attributes:
        name: what it is ("skin", "grass").
        albedo_rgb: diffuse reflectance at red, green, blue, linear, 0 to 1.
        emissivity_lwir: at normal view, 8 to 14 um.
        refractive_index: real part n, visible.
        extinction: imaginary part k, visible; 0 for dielectrics, above 1 for metals.
        roughness: 0 a mirror, 1 matt.
        nir_reflectance: diffuse, about 0.85 um.
        swir1_reflectance: diffuse, about 1.6 um.
        swir2_reflectance: diffuse, about 2.2 um.
        backscatter_db: radar cross section per area (sigma nought), co-polarised, C band, about 35 degrees.
        backscatter_cross_db: the same, cross-polarised.
        transmits_visible: share of visible light that goes straight through, 0 to 1.
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

    def coloured(self, albedo_rgb: Rgb) -> Material:
        """Return the same material in another visible colour."""
        return replace(self, albedo_rgb=albedo_rgb)


def _table() -> Mapping[str, Material]:
    rows = (
        Material("sky", (0.35, 0.55, 0.9), 1.0, 1.0, 0.0, 1.0, 0.05, 0.02, 0.01, -60.0, -60.0),
        Material("grass", (0.07, 0.15, 0.04), 0.982, 1.4, 0.0, 0.95, 0.48, 0.25, 0.12, -11.0, -17.0),
        Material("soil", (0.24, 0.17, 0.11), 0.965, 1.5, 0.0, 0.95, 0.33, 0.38, 0.33, -13.0, -21.0),
        Material("sand", (0.45, 0.36, 0.25), 0.95, 1.5, 0.0, 0.95, 0.5, 0.55, 0.5, -18.0, -27.0),
        Material("asphalt", (0.09, 0.09, 0.09), 0.96, 1.6, 0.0, 0.9, 0.13, 0.16, 0.17, -17.0, -26.0),
        Material("concrete", (0.36, 0.35, 0.33), 0.945, 1.55, 0.0, 0.9, 0.4, 0.42, 0.4, -10.0, -20.0),
        Material("brick", (0.33, 0.15, 0.1), 0.935, 1.55, 0.0, 0.9, 0.4, 0.45, 0.42, -8.0, -18.0),
        Material("leaf", (0.05, 0.12, 0.03), 0.98, 1.42, 0.0, 0.7, 0.5, 0.27, 0.12, -9.0, -14.0),
        Material("bark", (0.14, 0.1, 0.07), 0.95, 1.5, 0.0, 0.95, 0.3, 0.33, 0.25, -9.0, -16.0),
        Material("wood", (0.36, 0.22, 0.12), 0.93, 1.5, 0.0, 0.6, 0.55, 0.5, 0.35, -14.0, -22.0),
        Material("stone", (0.3, 0.29, 0.27), 0.93, 1.6, 0.0, 0.9, 0.36, 0.4, 0.37, -9.0, -19.0),
        Material("skin", (0.45, 0.26, 0.19), 0.98, 1.44, 0.0, 0.6, 0.55, 0.2, 0.1, -10.0, -20.0),
        Material("hair", (0.05, 0.035, 0.025), 0.96, 1.55, 0.0, 0.6, 0.25, 0.3, 0.25, -12.0, -20.0),
        Material("fur", (0.2, 0.13, 0.08), 0.965, 1.5, 0.0, 0.95, 0.4, 0.35, 0.28, -12.0, -19.0),
        Material("cloth", (0.25, 0.25, 0.28), 0.95, 1.5, 0.0, 0.98, 0.5, 0.45, 0.35, -12.0, -19.0),
        Material("leather", (0.06, 0.05, 0.045), 0.95, 1.5, 0.0, 0.5, 0.35, 0.4, 0.3, -12.0, -20.0),
        Material("paint", (0.4, 0.05, 0.05), 0.92, 1.5, 0.0, 0.15, 0.35, 0.3, 0.25, 0.0, -12.0),
        Material("rubber", (0.03, 0.03, 0.03), 0.95, 1.52, 0.0, 0.8, 0.05, 0.05, 0.05, -14.0, -24.0),
        Material("steel", (0.12, 0.12, 0.12), 0.18, 2.7, 3.3, 0.2, 0.62, 0.68, 0.72, 5.0, -15.0),
        Material("window", (0.02, 0.02, 0.025), 0.86, 1.52, 0.0, 0.03, 0.05, 0.05, 0.05, -10.0, -25.0),
        Material("glass", (0.01, 0.012, 0.011), 0.86, 1.52, 0.0, 0.02, 0.02, 0.02, 0.04, -15.0, -30.0, 0.9),
        Material("ceramic", (0.6, 0.58, 0.55), 0.92, 1.55, 0.0, 0.2, 0.65, 0.6, 0.55, -12.0, -22.0),
        Material("terracotta", (0.42, 0.19, 0.11), 0.93, 1.55, 0.0, 0.9, 0.5, 0.52, 0.48, -11.0, -20.0),
        Material("plastic", (0.1, 0.25, 0.4), 0.93, 1.49, 0.0, 0.25, 0.5, 0.4, 0.3, -16.0, -26.0),
        Material("liquid", (0.05, 0.025, 0.012), 0.96, 1.33, 0.0, 0.05, 0.02, 0.01, 0.0, -22.0, -32.0),
        Material("cardboard", (0.42, 0.29, 0.17), 0.92, 1.5, 0.0, 0.95, 0.6, 0.5, 0.38, -16.0, -25.0),
        Material("plaster", (0.6, 0.58, 0.54), 0.93, 1.5, 0.0, 0.95, 0.65, 0.6, 0.52, -14.0, -24.0),
        Material("peel", (0.5, 0.12, 0.05), 0.95, 1.45, 0.0, 0.3, 0.6, 0.25, 0.12, -14.0, -22.0),
    )
    return {row.name: row for row in rows}


MATERIALS = _table()
"""Name -> material, as scenes are made of them."""
