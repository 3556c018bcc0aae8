"""The predictor: it encodes an image once and segments it by any number of prompts."""

from simmat.predictor.predictor import Choice, EncodedImage, Prediction, Predictor
from simmat.predictor.zero_shot import ZeroShotPredictor

__all__ = ["Choice", "EncodedImage", "Prediction", "Predictor", "ZeroShotPredictor"]
