"""Results made by hand, for tests of what is written of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from simmat.data.instances import FoundObject, Instance, region_from_mask
from simmat.inference import ImageResult, LabelMap, PredictOptions, writer
from simmat.inference.request import Request, choose_formats
from simmat.plugin_specs import ResultFormat
from simmat.plugins.loader import load_plugins
from simmat.types import BoolArray, Georeference, ImageReader, Window

PLACE = Georeference("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_300_000.0))


def formats_for(result: ImageResult, names: Sequence[str]) -> tuple[ResultFormat, ...]:
    """Return the formats that `simmat predict --format NAMES` writes for the image of a result."""
    image = SimpleNamespace(
        origin="a.tif", size_hw=result.size_hw, georeference=result.georeference
    )
    request = Request(
        PredictOptions(everything=True),
        (result.kind,),
        *choose_formats(names, [result.kind], load_plugins()),
    )
    return request.formats_for_image(result.kind, cast(ImageReader, image))


def write_result(result: ImageResult, names: Sequence[str], folder: Path) -> list[str]:
    """Write a result in the formats of these names."""
    return writer.write_result(result, formats_for(result, names), folder)


def found(
    mask: BoolArray, class_id: int | None = None, score: float = 0.5
) -> FoundObject:
    region = region_from_mask(mask, class_id)
    assert region is not None
    classes = None if class_id is None else {class_id: 0.75, class_id + 1: 0.25}
    return FoundObject(
        region, score, (float(region.window[1]), float(region.window[0])), classes
    )


def found_box(
    y0: int, x0: int, y1: int, x1: int, class_id: int | None = None, score: float = 0.5
) -> FoundObject:
    instance = Instance(
        class_id, Window(y0, x0, y1, x1), np.ones((y1 - y0, x1 - x0), np.bool_)
    )
    return FoundObject(instance, score, (float(x0), float(y0)))


def objects_result(
    size_hw: tuple[int, int],
    *objects: FoundObject,
    place: Georeference | None = None,
    name: str = "a",
) -> ImageResult:
    names = {1: "car", 2: "person"}
    return ImageResult(name, size_hw, place, names, lambda: _grey(size_hw), objects)


def classes_result(
    classes: LabelMap,
    *,
    place: Georeference | None = None,
    nodata: int | None = None,
    background: int | None = 0,
) -> ImageResult:
    size_hw = (int(classes.shape[0]), int(classes.shape[1]))
    names = {1: "water", 2: "forest"}
    return ImageResult(
        "a",
        size_hw,
        place,
        names,
        lambda: _grey(size_hw),
        None,
        classes,
        nodata,
        background,
    )


def _grey(size_hw: tuple[int, int]) -> np.ndarray:
    longest = max(size_hw)
    height, width = (min(side, side * 2048 // longest + 1) for side in size_hw)
    return np.full((height, width, 3), 128, np.uint8)
