"""What was found in an image, and the files it is written to."""

from simmat.results.coco import ImageRecords, coco_document, object_records, run_lengths
from simmat.results.overlay import draw_result
from simmat.results.result import ImageResult
from simmat.results.write import (
    AUTO,
    FORMATS,
    check_formats,
    check_place,
    formats_of_image,
    possible_formats,
    write_result,
)

__all__ = [
    "AUTO",
    "FORMATS",
    "ImageRecords",
    "ImageResult",
    "check_formats",
    "check_place",
    "coco_document",
    "draw_result",
    "formats_of_image",
    "object_records",
    "possible_formats",
    "run_lengths",
    "write_result",
]
