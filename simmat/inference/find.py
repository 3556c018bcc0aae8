"""Find in an open image what a request asks for: prompted objects, every object, the class of every pixel."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject, region_from_mask
from simmat.drawing.display import PictureArray, display_rgb
from simmat.errors import ConfigError
from simmat.foundation import MAX_PROMPTS
from simmat.inference.formats import ImageResult, LabelMap, PromptResult
from simmat.inference.images import ImageTask, prompts_on_map
from simmat.inference.options import prompt_values
from simmat.inference.outcome import Progress
from simmat.inference.request import TABLE, UNCERTAINTY, Request
from simmat.inference.window_store import WindowStore
from simmat.inference.writer import Found
from simmat.io.files import output_errors, release_pages
from simmat.measurement import Row, measurer
from simmat.predictor.open import picture_of
from simmat.predictor.prompts import check_inside
from simmat.predictor.tiles import WindowResult, merge_objects, most_likely
from simmat.types import Prompt, SensorImage, Window

if TYPE_CHECKING:
    from simmat.predictor import Prediction, TiledImage

_MAX_PIXELS = 2048**2
"""Largest image without georeference that, segmented in windows, gets a mask and a picture for each object."""


def find(
    image: TiledImage,
    task: ImageTask,
    request: Request,
    store: WindowStore | None,
    progress: Progress,
) -> Found:
    """Find in an image what a request asks for.

    Args:
        image: what `open_image` returned.
        task: the same image.
        request: what to find.
        store: keeps what is found in each window; None for an image of one window.
        progress: is told of each window of a store.

    Raises:
        NoValidPixelsError: nothing is measured in the image, or around a prompt.
        SimMATError: the image cannot be read, or a prompt is outside of it.
    """
    if request.options.is_promptless:
        return _find_without_prompts(image, task, request, store, progress)
    prompts = task.prompts
    if prompts is None:
        prompts = prompts_on_map(request.options, image.reader, task.name)
    for prompt in prompts.values():
        check_inside(prompt, image.reader)
    if request.kinds == ("prompts",) and not _is_large(image, request):
        return _find_each(image, task, request, prompts)
    return _find_together(image, task, request, prompts)


def _find_without_prompts(
    image: TiledImage,
    task: ImageTask,
    request: Request,
    store: WindowStore | None,
    progress: Progress,
) -> Found:
    """Find the objects of an image, the class of every pixel, or both, window by window."""
    model = image.encoder
    classes = None
    blender = None
    if request.options.semantic:
        classes = _empty_class_map(image, None if store is None else store.folder)
        blender = image.class_map_blender()
    objects = []
    empty = 0
    for answer in _answers(image, request, store, partial(progress.windows, task.name)):
        objects.append(answer.objects)
        empty += answer.is_empty
        if classes is not None and blender is not None:
            for y0, band in blender.add(answer.probabilities):
                labels, _ = most_likely(
                    band, model.required_dense().label_values, model.label_type()[1]
                )
                classes[y0 : y0 + len(labels)] = labels
                release_pages(classes)
    image.check_measured(empty)
    results = []
    if request.settings is not None:
        results.append(
            _objects_result(image, task, request, merge_objects(image.windows, objects))
        )
    if classes is not None:
        results.append(_classes_result(image, task, request, classes))
    count = len(image.windows)
    area_warning, note = _area_texts(image, request)
    if empty:
        note += f", {empty} of {count} windows without a measurement"
    windows = {
        "tile": image.tile,
        "overlap": image.overlap,
        "count": count,
        "without_measurement": empty,
    }
    return Found(
        task,
        image.reader,
        results,
        (task.name,),
        {"mosaic": request.options.mosaic, "windows": windows},
        warnings=(
            _own_warning(task, image.warning),
            image.shrink_warning(),
            area_warning,
        ),
        note=note,
    )


def _answers(
    image: TiledImage,
    request: Request,
    store: WindowStore | None,
    progress: Callable[[int, int], object],
) -> Iterator[WindowResult]:
    """Yield what is found in each window; a store has what was found before, and gets the rest."""
    if store is None:
        for window in image.windows:
            yield segment_window(image, window, request)
        return
    for index, window in enumerate(image.windows):
        answer = store.read(index)
        if answer is None:
            answer = store.write(index, segment_window(image, window, request))
        progress(index + 1, len(image.windows))
        yield answer


def segment_window(image: TiledImage, window: Window, request: Request) -> WindowResult:
    """Find in a window what a request asks for without prompts."""
    semantic = request.options.semantic
    return image.segment_window(
        window, request.settings, reference=request.reference, semantic=semantic
    )


def _find_together(
    image: TiledImage, task: ImageTask, request: Request, prompts: Mapping[str, Prompt]
) -> Found:
    """Find prompted objects, to write all to the same files."""
    request.formats_for_image("objects", image.reader)  # raises before any work
    objects: list[FoundObject] = []
    notes = []
    warning = ""
    for name, prompt, prediction in _predictions(image, request, prompts):
        one = prediction.found_object(_click(prompt))
        if one is not None:
            objects.append(one)
        warning = warning or _own_warning(task, prediction.warning)
        result = _prompt_result(image, name, prompt, prediction, warning)
        notes.append({"object": name, **prompt_values(prompt), **result.record()})
    area_warning, note = _area_texts(image, request)
    return Found(
        task,
        image.reader,
        [_objects_result(image, task, request, objects)],
        (task.name,),
        {"mosaic": request.options.mosaic, "prompts": notes},
        warnings=(warning, area_warning),
        note=note,
    )


def _find_each(
    image: TiledImage, task: ImageTask, request: Request, prompts: Mapping[str, Prompt]
) -> Found:
    """Find prompted objects, to write each to its own files."""
    whole = image.reader.read(Window(0, 0, *image.size_hw))
    channels = [
        {"name": one.name, "quantity": one.quantity, "unit": one.unit}
        for one in whole.channels
    ]
    area_warning, _ = _area_texts(image, request)
    return Found(
        task,
        image.reader,
        _each_result(image, whole, task, request, prompts),
        tuple(prompts),
        {"preview_hw": whole.preview_hw, "channels": channels},
        warnings=(whole.size_note, area_warning),
    )


def _each_result(
    image: TiledImage,
    whole: SensorImage,
    task: ImageTask,
    request: Request,
    prompts: Mapping[str, Prompt],
) -> Iterator[PromptResult]:
    """Yield the object of each prompt; few masks of the whole image are in memory at once."""
    shown = partial(_picture, whole, request.missing)
    for name, prompt, prediction in _predictions(image, request, prompts):
        own = _own_warning(task, prediction.warning)
        result = _prompt_result(image, name, prompt, prediction, own)
        uncertainty = None
        if request.uncertainty:
            uncertainty = image.uncertainty(
                prompt, request.options.mask, prediction.window
            )
        measurements = _measured_mask(image, request, prediction)
        if measurements is not None and uncertainty is not None:
            measurements |= measurer().mean_intervals(
                whole, uncertainty.mean, measurements
            )
        yield replace(
            result,
            mask=prediction.whole_mask(image.size_hw),
            channels=whole.channels,
            georeference=whole.georeference,
            picture=shown,
            uncertainty=uncertainty,
            measurements=measurements,
        )


def _picture(image: SensorImage, missing: Container[str]) -> PictureArray:
    """Return the display picture of an image, without the channels that its files lack."""
    kept = [
        index
        for index, channel in enumerate(image.channels)
        if channel.name not in missing
    ]
    if len(kept) < len(image.channels):
        image = image.select(kept)
    return display_rgb(image)


def _predictions(
    image: TiledImage, request: Request, prompts: Mapping[str, Prompt]
) -> Iterator[tuple[str, Prompt, Prediction]]:
    """Yield the name and mask of each prompt; some are decoded together, and only those are in memory."""
    names = list(prompts)
    for start in range(0, len(names), MAX_PROMPTS):
        together = names[start : start + MAX_PROMPTS]
        found = image.predict_prompts(
            [prompts[name] for name in together], request.options.mask
        )
        for name, prediction in zip(together, found, strict=True):
            yield name, prompts[name], prediction


def _own_warning(task: ImageTask, warning: str) -> str:
    """Return the warning of an image; "" if the values of all images of the call are warned of already."""
    if task.warning:
        return ""
    return warning


def _prompt_result(
    image: TiledImage, name: str, prompt: Prompt, found: Prediction, warning: str
) -> PromptResult:
    """Return the object of a prompt in its window."""
    class_name = None
    if found.class_id is not None:
        class_name = image.encoder.class_names.get(found.class_id, str(found.class_id))
    return PromptResult(
        name,
        found.mask,
        found.score,
        prompt,
        class_id=found.class_id,
        class_name=class_name,
        class_probability=found.class_probability,
        warning=warning,
    )


def _objects_result(
    image: TiledImage, task: ImageTask, request: Request, objects: Iterable[FoundObject]
) -> ImageResult:
    """Return the objects that the request keeps."""
    kept = []
    for one in objects:
        is_sure = request.min_score is None or one.score >= request.min_score
        if is_sure and (
            request.kept_classes is None
            or one.instance.class_id in request.kept_classes
        ):
            kept.append(one)
    result = replace(_empty_result(image, task), objects=tuple(kept))
    if request.options.measure:
        instances = [one.instance for one in result.ranked]
        areas, _ = measurer().pixel_areas(image.reader, request.options.pixel_size_um)
        measurements = measurer().measure(image.reader, instances, areas)
        result = replace(result, measurements=measurements)
    return result


def _measured_mask(
    image: TiledImage, request: Request, prediction: Prediction
) -> Row | None:
    """Measure the mask of a prompt, if that is asked for; of an empty one, every number is None."""
    if not request.options.measure:
        return None
    found = region_from_mask(prediction.mask, None, prediction.window[:2])
    if found is None:
        return dict.fromkeys(measurer().columns_of(prediction.image.channels))
    areas, _ = measurer().pixel_areas(image.reader, request.options.pixel_size_um)
    return measurer().measure(image.reader, [found], areas).row(0)


def _area_texts(image: TiledImage, request: Request) -> tuple[str, str]:
    """Return a warning and a note on the unit of measured areas; "" for none."""
    if not request.options.measure:
        return "", ""
    areas, contradiction = measurer().pixel_areas(
        image.reader, request.options.pixel_size_um
    )
    if areas is None:
        return contradiction, ", areas in pixels only"
    return "", ""


def _classes_result(
    image: TiledImage, task: ImageTask, request: Request, classes: LabelMap
) -> ImageResult:
    """Return the class map with the classes that the request keeps."""
    _, nodata = image.encoder.label_type()
    background = 0 if image.encoder.required_dense().background else None
    if request.kept_classes is not None:
        _drop_classes(classes, request.kept_classes, nodata, background)
    return replace(
        _empty_result(image, task),
        class_map=classes,
        nodata=nodata,
        background=background,
    )


def _empty_result(image: TiledImage, task: ImageTask) -> ImageResult:
    reader = image.reader
    return ImageResult(
        task.name,
        reader.size_hw,
        reader.georeference,
        image.encoder.class_names,
        partial(picture_of, reader),
    )


def _is_large(image: TiledImage, request: Request) -> bool:
    """Return whether prompted objects share files, because a mask of each would take many pixels."""
    named = {one.name for one in request.formats} - {TABLE, UNCERTAINTY}
    if named:
        return False
    reader = image.reader
    in_windows = request.options.tile is not None or not isinstance(reader, SensorImage)
    is_large = in_windows and (
        reader.georeference is not None or math.prod(reader.size_hw) > _MAX_PIXELS
    )
    if is_large and request.uncertainty:
        height, width = reader.size_hw
        raise ConfigError(
            f"{reader.origin}: --uncertainty needs a file for the mask of each object, but the masks of this "
            f"image share one file, because it has {width}x{height} pixels in windows. Cut the part out, or "
            "leave --uncertainty out"
        )
    return is_large


def _click(prompt: Prompt) -> tuple[float, float]:
    """Return the first point of a prompt, or the middle of its box."""
    if prompt.box is None or len(prompt.point_coords):
        x, y = prompt.point_coords[0].tolist()
    else:
        x, y = prompt.box.reshape(2, 2).mean(axis=0).tolist()
    return x, y


def _empty_class_map(image: TiledImage, folder: Path | None) -> npt.NDArray[Any]:
    """Return an empty class map; with `folder`, it is stored there, not in memory."""
    dtype, _ = image.encoder.label_type()
    if folder is None:
        return np.zeros(image.size_hw, dtype)
    with output_errors(folder), TemporaryFile(dir=folder) as stream:
        # if the disk became full later, SIGBUS would end the process
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(
                stream.fileno(), 0, math.prod(image.size_hw) * np.dtype(dtype).itemsize
            )
        return np.memmap(stream, dtype, "w+", shape=image.size_hw)


def _drop_classes(
    classes: npt.NDArray[Any], kept: frozenset[int], nodata: int, background: int | None
) -> None:
    """Set the pixels of other classes to background, or to nodata if there is no background; in place."""
    other = nodata if background is None else background
    values = [*kept, nodata, other]
    for y0 in range(0, len(classes), 512):
        band = classes[y0 : y0 + 512]
        band[~np.isin(band, values)] = other
        release_pages(classes)
