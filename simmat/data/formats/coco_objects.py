"""Objects that were found, as a COCO json that pycocotools and labelling tools read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from simmat.data.instances import Instance

NO_CLASS = 1, "object"
"""Category of objects without a class."""


@dataclass(frozen=True)
class ImageObjects:
    """The objects of one image.

    Attributes:
        file_name: as the document names the image.
        size_hw: (height, width) in pixels.
        instances: the objects.
        scores: one for each.
    """

    file_name: str
    size_hw: tuple[int, int]
    instances: Sequence[Instance]
    scores: Sequence[float]


def coco_document(images: Iterable[ImageObjects], class_names: Mapping[int, str]) -> dict[str, Any]:
    """Return objects as a COCO document: masks as compressed run lengths, boxes as x, y, width, height.

    Args:
        images: numbered from 1 in their order.
        class_names: of classes that may be found; others get their number as a name.
    """
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories = dict(class_names)
    for number, image in enumerate(images, start=1):
        height, width = image.size_hw
        entries.append({"id": number, "file_name": image.file_name, "height": height, "width": width})
        for instance, score in zip(image.instances, image.scores, strict=True):
            category = NO_CLASS[0] if instance.class_id is None else instance.class_id
            categories.setdefault(category, NO_CLASS[1] if instance.class_id is None else str(category))
            y0, x0, y1, x1 = instance.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": instance.area,
                    "iscrowd": 0,
                    "score": round(float(score), 6),
                    "segmentation": run_lengths(instance, image.size_hw),
                }
            )
    return {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": value, "name": name} for value, name in sorted(categories.items())],
    }


def run_lengths(instance: Instance, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Return the mask of an object as COCO's compressed run lengths."""
    code = coco_mask.encode(np.asfortranarray(instance.mask(size_hw).astype(np.uint8)))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}
