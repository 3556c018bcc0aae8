"""The predictor: it encodes an image once and segments it by any number of prompts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simmat.predictor.encoded import EncodedImage
from simmat.predictor.prediction import Choice, Prediction
from simmat.predictor.predictor import Predictor
from simmat.predictor.zero_shot import ZeroShotPredictor

if TYPE_CHECKING:
    from simmat.predictor.large import LargeImage

__all__ = ["Choice", "EncodedImage", "LargeImage", "Prediction", "Predictor", "ZeroShotPredictor"]


def __getattr__(name: str) -> Any:
    if name == "LargeImage":  # imports scipy, which prediction by clicks does not need
        return import_module("simmat.predictor.large").LargeImage
    raise AttributeError(f"module 'simmat.predictor' has no attribute {name!r}")
