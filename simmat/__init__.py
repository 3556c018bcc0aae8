"""SimMAT: bring any image sensor to a vision foundation model.

    import simmat

    model = simmat.load("RUN")                     # or simmat.load(foundation="lite", modality="thermal")
    model.set_image("photo.tiff")
    found = model.predict(points=[(320, 240)])     # found.mask, found.score

The public names are imported when they are first used, so `import simmat` needs no torch. It sets how torch's threads
wait for each other, see `simmat.threads`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simmat.threads import prepare_threads
from simmat.version import __version__ as __version__

prepare_threads()  # before torch is imported

if TYPE_CHECKING:
    from simmat.api import evaluate as evaluate
    from simmat.api import list_foundations as list_foundations
    from simmat.api import list_modalities as list_modalities
    from simmat.api import load as load
    from simmat.api import open_dataset as open_dataset
    from simmat.api import predict as predict
    from simmat.api import train as train
    from simmat.callbacks import Callback as Callback
    from simmat.data.dataset import Dataset as Dataset
    from simmat.data.sequence import FrameSequence as FrameSequence
    from simmat.foundation import PromptBatch as PromptBatch
    from simmat.modules import MAT as MAT
    from simmat.modules import build as build
    from simmat.plugins.hooks import hookimpl as hookimpl
    from simmat.predictor import EverythingSettings as EverythingSettings
    from simmat.predictor import Predictor as Predictor
    from simmat.sensors.adapter import ModalityAdapter as ModalityAdapter
    from simmat.sensors.adapter import PathsBySource as PathsBySource
    from simmat.sensors.adapter import Source as Source
    from simmat.sensors.adapter import WindowedAdapter as WindowedAdapter
    from simmat.sensors.options import ModalityOptions as ModalityOptions
    from simmat.types import Channel as Channel
    from simmat.types import Prompt as Prompt
    from simmat.types import SensorImage as SensorImage
    from simmat.types import Window as Window

_NAMES = {
    "simmat.api": (
        "evaluate",
        "list_foundations",
        "list_modalities",
        "load",
        "open_dataset",
        "predict",
        "train",
    ),
    "simmat.callbacks": ("Callback",),
    "simmat.data.dataset": ("Dataset",),
    "simmat.data.sequence": ("FrameSequence",),
    "simmat.foundation": ("PromptBatch",),
    "simmat.modules": ("MAT", "build"),
    "simmat.plugins.hooks": ("hookimpl",),
    "simmat.predictor": ("EverythingSettings", "Predictor"),
    "simmat.sensors.adapter": (
        "ModalityAdapter",
        "PathsBySource",
        "Source",
        "WindowedAdapter",
    ),
    "simmat.sensors.options": ("ModalityOptions",),
    "simmat.types": ("Channel", "Prompt", "SensorImage", "Window"),
}
"""Module -> the public names in it."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'simmat' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
