"""Found objects as tasks of Label Studio, with a prediction each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat_plugin_convert.brush import MAX_PIXELS
from simmat_plugin_convert.image_files import stem_of
from simmat_plugin_convert.label_studio import Tags, region_of, save_tasks, task_data
from simmat_plugin_convert.labels import NO_CLASS

from simmat.data.formats.coco import draw_region
from simmat.errors import DataError
from simmat.inference import path_in_folder

if TYPE_CHECKING:
    from simmat.types import ImageReader


def check_size(image: ImageReader) -> None:
    """Raise DataError for an image with too many pixels."""
    if math.prod(image.size_hw) > MAX_PIXELS:
        height, width = image.size_hw
        raise DataError(
            f"{image.origin}: {width}x{height} are more pixels than Label Studio's brush can count (2^30)"
        )


def write_tasks(
    images: Iterable[tuple[str, Mapping[str, Any]]],
    class_names: Mapping[int, str],
    file: Path,
) -> int:
    """Write the objects of all images, given by name and json; return their number."""
    tasks = []
    for name, record in images:
        size_hw = tuple(record["size_hw"])
        regions = []
        for number, one in enumerate(record["objects"], start=1):
            instance = draw_region(one["segmentation"], size_hw, one["class"])
            assert instance is not None
            region = region_of(
                instance, size_hw, one["class_name"] or NO_CLASS, Tags(), str(number)
            )
            regions.append({**region, "score": one["score"]})
        scores = [one["score"] for one in regions]
        prediction = {
            "model_version": "simmat predict",
            "score": sum(scores) / max(len(scores), 1),
            "result": regions,
        }
        image = path_in_folder(Path(next(iter(record["files"].values()), name)), name)
        tasks.append({"predictions": [prediction], "data": task_data(stem_of(image))})
    save_tasks(file, tasks)
    return len(tasks)
