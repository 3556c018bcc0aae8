"""What was found in an image, and the files it is written to."""

from simmat.results.coco import ImageRecords, coco_document, object_records, run_lengths
from simmat.results.overlay import draw_result
from simmat.results.result import ImageResult
from simmat.results.write import FORMATS, check_formats, check_place, write_result

__all__ = [
    "FORMATS",
    "ImageRecords",
    "ImageResult",
    "check_formats",
    "check_place",
    "coco_document",
    "draw_result",
    "object_records",
    "run_lengths",
    "write_result",
]
