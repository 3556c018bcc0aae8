"""Segment images, and write what was found in them."""

from simmat.inference.coco import coco_document, object_records, path_in_folder, run_lengths
from simmat.inference.formats import draw_result
from simmat.inference.job import ImageOutcome, Progress
from simmat.inference.options import PredictOptions
from simmat.inference.result import BAND_ROWS, ImageResult, LabelMap, label_bands, label_type

__all__ = [
    "BAND_ROWS",
    "ImageOutcome",
    "ImageResult",
    "LabelMap",
    "PredictOptions",
    "Progress",
    "coco_document",
    "draw_result",
    "label_bands",
    "label_type",
    "object_records",
    "path_in_folder",
    "run_lengths",
]
