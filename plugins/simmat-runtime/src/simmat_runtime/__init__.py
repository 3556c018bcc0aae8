"""Run models that `simmat export` wrote, with numpy and onnxruntime alone.

>>> model = simmat_runtime.load("exported")
>>> model.set_image(planes)                       # (C, H, W) in the sensor's units, NaN where nothing was measured
>>> model.predict(points=[(320, 240)]).mask       # (H, W) bool
>>> model.everything()                            # every object, best first
"""

from simmat_runtime.everything import Settings
from simmat_runtime.letterbox import Letterbox
from simmat_runtime.manifest import Channel, Manifest, ModelError
from simmat_runtime.model import ClassMap, Model, Prediction, load
from simmat_runtime.network import Network
from simmat_runtime.objects import FoundObject

__all__ = [
    "Channel",
    "ClassMap",
    "FoundObject",
    "Letterbox",
    "Manifest",
    "Model",
    "ModelError",
    "Network",
    "Prediction",
    "Settings",
    "load",
]
