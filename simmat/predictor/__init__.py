"""The predictor: it encodes an image once and segments it by any number of prompts."""

from simmat.predictor.encoded import (
    ClassMap,
    EncodedImage,
    Encoder,
    Prediction,
    encode_image,
)
from simmat.predictor.objects import EverythingSettings, FoundObjects, find_objects
from simmat.predictor.open import ImageLike, ImageLoader, NoValidPixelsError
from simmat.predictor.predictor import FollowedFrame, Predictor
from simmat.predictor.prompts import MaskSelection, check_inside, prompt_of
from simmat.predictor.reference import Reference, matching_features
from simmat.predictor.tiled_image import TiledImage
from simmat.predictor.uncertainty import Uncertainty
from simmat.predictor.zero_shot import ZeroShotPredictor

__all__ = [
    "ClassMap",
    "EncodedImage",
    "Encoder",
    "EverythingSettings",
    "FollowedFrame",
    "FoundObjects",
    "ImageLike",
    "ImageLoader",
    "MaskSelection",
    "NoValidPixelsError",
    "Prediction",
    "Predictor",
    "Reference",
    "TiledImage",
    "Uncertainty",
    "ZeroShotPredictor",
    "check_inside",
    "encode_image",
    "find_objects",
    "matching_features",
    "prompt_of",
]
