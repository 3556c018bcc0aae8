"""Found objects as json values, and as a COCO document that pycocotools and labelling tools read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmat.data.predicted import FOUND_BY_PREDICT
from simmat.errors import DataError
from simmat.inference.formats import ImageResult
from simmat.io.files import atomic_write_json

if TYPE_CHECKING:
    from simmat.data.instances import Instance
    from simmat.types import ImageReader

MAX_PIXELS = 2**32
"""Pixels of an image that COCO's run lengths cannot count any more."""
INFO = {"description": FOUND_BY_PREDICT}
NO_CLASS = "object"
"""Category of objects without a class."""


ImageRecords = tuple[str, tuple[int, int], Sequence[Mapping[str, Any]]]
"""File name, (height, width) and objects of one image, as a COCO document needs them."""


def object_records(result: ImageResult) -> list[dict[str, Any]]:
    """Return the objects of an image as json values, by falling score.

    Each has class (label value or None), class_name, score, class_probability, box_xyxy (outer edges), area in pixels,
    area_m2 (None if the image has no place on the earth), point_xy and segmentation (COCO's compressed run lengths
    at the size of the image; None if it has more pixels than they can count); and measurements if they were made.
    """
    counts = [found.instance.area for found in result.ranked]
    centres = [_centroid_xy(found.instance) for found in result.ranked]
    areas_m2 = result.areas_m2(np.reshape(centres, (-1, 2)), counts)
    is_countable = math.prod(result.size_hw) < MAX_PIXELS
    records = []
    for index, found in enumerate(result.ranked):
        x, y = found.point_xy
        record = result.record(found)
        record["box_xyxy"] = list(found.instance.box_xyxy)
        record["area"] = counts[index]
        record["area_m2"] = areas_m2[index]
        record["point_xy"] = [round(float(x), 2), round(float(y), 2)]
        record["segmentation"] = None
        if is_countable:
            record["segmentation"] = run_lengths(found.instance, result.size_hw)
        if result.measurements is not None:
            record["measurements"] = result.measurements.row(index)
        records.append(record)
    return records


def _centroid_xy(instance: Instance) -> tuple[float, float]:
    """Return the centroid of an object in pixels, the corner of the first one at 0, 0."""
    y0, x0, y1, x1 = instance.window
    pixels_of_row = instance.crop.sum(axis=1)
    pixels_of_column = instance.crop.sum(axis=0)
    count = pixels_of_row.sum()
    x = np.arange(x0, x1) @ pixels_of_column / count + 0.5
    y = np.arange(y0, y1) @ pixels_of_row / count + 0.5
    return float(x), float(y)


def coco_document(
    images: Iterable[ImageRecords], class_names: Mapping[int, str]
) -> dict[str, Any]:
    """Return objects as a COCO document: masks as compressed run lengths, boxes as x, y, width, height.

    Args:
        images: numbered from 1 in their order. An object with a track_id has it in its annotation, too, and one with
            measurements has them as attributes.
        class_names: names of classes that may be found; others get their number as a name.
    """
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories = dict(class_names)
    for number, (file_name, (height, width), records) in enumerate(images, start=1):
        entries.append(
            {"id": number, "file_name": file_name, "height": height, "width": width}
        )
        for record in records:
            category = record["class"]
            if category is not None:
                categories.setdefault(category, str(category))
            annotations.append(_annotation(record, len(annotations) + 1, number))
    unnamed = [one for one in annotations if one["category_id"] is None]
    if unnamed:
        free = 1 if 1 not in categories else max(categories) + 1
        categories[free] = NO_CLASS
        for one in unnamed:
            one["category_id"] = free
    return {
        "images": entries,
        "annotations": annotations,
        "categories": [
            {"id": value, "name": name} for value, name in sorted(categories.items())
        ],
    }


def _annotation(record: Mapping[str, Any], number: int, image: int) -> dict[str, Any]:
    """Return the annotation of an object with its number and that of its image."""
    x0, y0, x1, y1 = record["box_xyxy"]
    annotation = {
        "id": number,
        "image_id": image,
        "category_id": record["class"],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": record["area"],
        "iscrowd": 0,
        "score": record["score"],
        "segmentation": record["segmentation"],
    }
    if "track_id" in record:
        annotation["track_id"] = record["track_id"]
    if "measurements" in record:
        annotation["attributes"] = record["measurements"]
    return annotation


def write_coco(
    images: Iterable[tuple[str, Mapping[str, Any]]],
    class_names: Mapping[int, str],
    file: Path,
) -> int:
    """Write the objects of all images, given by name and json, but those too large for COCO; return their number."""
    found: list[ImageRecords] = []
    for name, record in images:
        height, width = record["size_hw"]
        if height * width >= MAX_PIXELS:
            continue
        image = name
        if not record.get("mosaic"):
            image = next(iter(record["files"].values()), name)
        found.append(
            (path_in_folder(Path(image), name), (height, width), record["objects"])
        )
    atomic_write_json(file, {"info": INFO, **coco_document(found, class_names)})
    return len(found)


def check_size(image: ImageReader) -> None:
    """Raise DataError for an image with too many pixels."""
    if math.prod(image.size_hw) >= MAX_PIXELS:
        raise DataError(
            f"{image.origin}: {image.size_hw[1]}x{image.size_hw[0]} are more pixels than COCO's run lengths can count "
            "(2^32); use --format gpkg or geotiff"
        )


def path_in_folder(file: Path, output: str) -> str:
    """Return the path of an image in the folder that was segmented, "a/b.png" for the output "a__b"; else its name."""
    for depth in range(1, len(file.parts)):
        path = Path(*file.parts[-depth:])
        if path.with_suffix("").as_posix().replace("/", "__") == output:
            return path.as_posix()
    return file.name


def run_lengths(instance: Instance, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Return the mask of an object as COCO's compressed run lengths, without a mask of the whole image."""
    from pycocotools import mask as coco_mask  # slow to import

    height, width = size_hw
    if height * width >= MAX_PIXELS:
        raise DataError(
            f"an image of {width}x{height} has more pixels than COCO's run lengths can count (2^32)"
        )
    y0, x0, y1, x1 = instance.window
    # each column of the crop between two zeros
    columns = np.zeros((x1 - x0, y1 - y0 + 2), np.int8)
    columns[:, 1:-1] = instance.crop.T
    change = np.diff(columns, axis=1)
    first, begin = np.nonzero(change == 1)
    last, end = np.nonzero(change == -1)
    starts = (x0 + first) * height + y0 + begin  # column-major positions
    ends = (x0 + last) * height + y0 + end
    # a column that is covered to its end goes on in the next one
    is_joined = starts[1:] == ends[:-1]
    starts = starts[np.r_[True, ~is_joined]]
    ends = ends[np.r_[~is_joined, True]]
    edges = np.stack([starts, ends], axis=1).ravel()  # (2 * runs,)
    counts = np.diff(edges, prepend=0, append=height * width)
    if counts[-1] == 0:
        counts = counts[:-1]
    code = coco_mask.frPyObjects(
        {"size": [height, width], "counts": counts.tolist()}, height, width
    )
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}
