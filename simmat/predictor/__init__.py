"""The predictor: it encodes an image once and segments it by any number of prompts."""

from simmat.predictor.encoded import EncodedImage
from simmat.predictor.predictor import Prediction, Predictor
from simmat.predictor.reading import Choice
from simmat.predictor.zero_shot import ZeroShotPredictor

__all__ = ["Choice", "EncodedImage", "Prediction", "Predictor", "ZeroShotPredictor"]
