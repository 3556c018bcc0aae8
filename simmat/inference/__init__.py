"""Segment images, and write what was found in them."""

from simmat.inference.coco import (
    coco_document,
    object_records,
    path_in_folder,
    run_lengths,
)
from simmat.inference.formats import (
    BAND_ROWS,
    ImageResult,
    LabelMap,
    PromptResult,
    draw_result,
    label_bands,
    label_type,
)
from simmat.inference.images import image_name, read_prompts
from simmat.inference.options import PredictOptions
from simmat.inference.outcome import ImageOutcome, Progress
from simmat.inference.request import files_key, request_digest
from simmat.inference.table import check_own_table, write_table
from simmat.inference.writer import check_written

__all__ = [
    "BAND_ROWS",
    "ImageOutcome",
    "ImageResult",
    "LabelMap",
    "PredictOptions",
    "Progress",
    "PromptResult",
    "check_own_table",
    "check_written",
    "coco_document",
    "draw_result",
    "files_key",
    "image_name",
    "label_bands",
    "label_type",
    "object_records",
    "path_in_folder",
    "read_prompts",
    "request_digest",
    "run_lengths",
    "write_table",
]
