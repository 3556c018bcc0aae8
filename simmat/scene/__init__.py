"""A synthetic world for sensors to look at: geometry, materials, temperatures, light. numpy only.

`generate_scene` composes one; an adapter's `simulate` turns it into what its sensor would see. All maps
share one pixel grid, so that simulated sensors are aligned with each other and with the instance masks.
"""

from simmat.scene.generate import generate_scene
from simmat.scene.materials import Material
from simmat.scene.values import CLASSES, Light, Scene, Surface

__all__ = ["CLASSES", "Light", "Material", "Scene", "Surface", "generate_scene"]
