"""Open an image, and find in it what a request asks for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject
from simmat.drawing.display import PictureArray, display_rgb
from simmat.errors import ConfigError, SimMATError
from simmat.foundation import MAX_PROMPTS
from simmat.inference.formats import ImageResult, LabelMap, PromptResult, Result
from simmat.inference.images import ImageTask, prompts_on_map
from simmat.inference.request import Request, files_key, prompt_values
from simmat.inference.window_store import WindowStore
from simmat.io.files import output_errors, release_pages
from simmat.predictor.prompts import check_inside
from simmat.predictor.results import picture_of
from simmat.predictor.tiles import SegmentOptions, WindowResult, merge_objects, most_likely
from simmat.types import ImageReader, Prompt, SensorImage, Window

if TYPE_CHECKING:
    from simmat.predictor import Prediction, Predictor, TiledImage

_MAX_PIXELS = 2048**2
"""Largest image without georeference that, segmented in windows, gets a mask and a picture for each object."""


@dataclass(frozen=True)
class Found:
    """What was found in one image.

    Attributes:
        task: the image.
        reader: the same, opened.
        results: what to write; those with the same name follow each other and share one json.
        names: names of the results.
        about: what their json contains besides.
        warnings: why the results may be wrong; empty texts are left out.
        note: what to append to the line about the image.
    """

    task: ImageTask
    reader: ImageReader
    results: Iterable[Result]
    names: tuple[str, ...]
    about: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    note: str = ""


def open_image(predictor: Predictor, task: ImageTask, request: Request) -> TiledImage:
    """Open an image of a call.

    Raises:
        DataError: it cannot be read, or a format that the user named cannot hold it.
        SimMATError: as `Predictor.open_image` raises it.
    """
    options = request.options
    if options.mosaic:
        tiles = list(task.files.values())
        image = predictor.open_mosaic(tiles, missing=options.missing, tile=options.tile, overlap=options.overlap)
    else:
        image = predictor.open_image(
            task.files, missing=options.missing, tile=options.tile, overlap=options.overlap, cache=options.cache
        )
    for kind in request.kinds:
        request.formats_for_image(kind, image.reader)  # raises before any work
    return image


def find(
    image: TiledImage,
    task: ImageTask,
    request: Request,
    *,
    store: WindowStore | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Found:
    """Find in an image what a request asks for.

    Args:
        image: what `open_image` returned.
        task: the same image.
        request: what to find.
        store: windows in it are read from it, and the others are added.
        progress: called with the number of finished windows and the number of all.

    Raises:
        NoValidPixelsError: nothing is measured in the image, or around a prompt.
        SimMATError: the image cannot be read, or a prompt is outside of it.
    """
    if request.search is not None:
        return _find_without_prompts(image, task, request, request.search, store, progress)
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
    search: SegmentOptions,
    store: WindowStore | None,
    progress: Callable[[int, int], object] | None,
) -> Found:
    """Find the objects of an image, the class of every pixel, or both, window by window."""
    predictor = image.predictor
    classes = None
    blender = None
    if search.semantic:
        classes = _empty_class_map(image, None if store is None else store.folder)
        blender = predictor.class_map_blender(image)
    objects = []
    empty = 0
    for answer in _answers(image, search, store, progress):
        objects.append(answer.objects)
        empty += answer.is_empty
        if classes is not None and blender is not None:
            for y0, band in blender.add(answer.probabilities):
                labels, _ = most_likely(band, predictor.required_dense().label_values, predictor.label_type()[1])
                classes[y0 : y0 + len(labels)] = labels
                release_pages(classes)
    image.check_measured(empty)
    results = []
    if search.objects is not None:
        results.append(_objects_result(image, task, request, merge_objects(image.windows, objects)))
    if classes is not None:
        results.append(_classes_result(image, task, request, classes))
    count = len(image.windows)
    windows = {"tile": image.tile, "overlap": image.overlap, "count": count, "without_measurement": empty}
    return Found(
        task,
        image.reader,
        results,
        (task.name,),
        {"mosaic": request.options.mosaic, "windows": windows},
        warnings=(_warning(image.warning), predictor.shrink_warning(image)),
        note=f", {empty} of {count} windows without a measurement" if empty else "",
    )


def _answers(
    image: TiledImage,
    search: SegmentOptions,
    store: WindowStore | None,
    progress: Callable[[int, int], object] | None,
) -> Iterator[WindowResult]:
    """Yield what is found in each window; a store has what was found before, and gets the rest."""
    for index, window in enumerate(image.windows):
        answer = None if store is None else store.read(index)
        if answer is None:
            answer = image.predictor.segment_window(image, window, search)
            if store is not None:
                answer = store.write(index, answer)
        if progress is not None:
            progress(index + 1, len(image.windows))
        yield answer


def _find_together(image: TiledImage, task: ImageTask, request: Request, prompts: Mapping[str, Prompt]) -> Found:
    """Find prompted objects, to write all to the same files."""
    request.formats_for_image("objects", image.reader)  # raises before any work
    objects: list[FoundObject] = []
    notes = []
    warning = ""
    for name, prompt, prediction in _predictions(image, request, prompts):
        one = prediction.found_object(_click(prompt))
        if one is not None:
            objects.append(one)
        warning = warning or prediction.warning
        result = _prompt_result(image, name, prompt, prediction)
        notes.append({"object": name, **prompt_values(prompt), **result.record()})
    return Found(
        task,
        image.reader,
        [_objects_result(image, task, request, objects)],
        (task.name,),
        {"mosaic": request.options.mosaic, "prompts": notes},
        warnings=(_warning(warning),),
    )


def _find_each(image: TiledImage, task: ImageTask, request: Request, prompts: Mapping[str, Prompt]) -> Found:
    """Find prompted objects, to write each to its own files."""
    whole = image.reader.read(Window(0, 0, *image.size_hw))
    channels = [{"name": one.name, "quantity": one.quantity, "unit": one.unit} for one in whole.channels]
    return Found(
        task,
        image.reader,
        _each_result(image, whole, request, prompts),
        tuple(prompts),
        {"preview_hw": whole.preview_hw, "channels": channels},
        warnings=(whole.size_note,),
    )


def _each_result(
    image: TiledImage, whole: SensorImage, request: Request, prompts: Mapping[str, Prompt]
) -> Iterator[PromptResult]:
    """Yield the object of each prompt; few masks of the whole image are in memory at once."""
    predictor = image.predictor
    shown = partial(_picture, whole, predictor.image_loader.missing_channels(request.options.missing))
    for name, prompt, prediction in _predictions(image, request, prompts):
        result = _prompt_result(image, name, prompt, prediction)
        uncertainty = None
        if request.uncertainty:
            uncertainty = predictor.uncertainty_in(image, prompt, request.options.mask, prediction.window)
        yield replace(
            result,
            mask=prediction.whole_mask(image.size_hw),
            channels=whole.channels,
            georeference=whole.georeference,
            picture=shown,
            uncertainty=uncertainty,
        )


def _picture(image: SensorImage, missing: Container[str]) -> PictureArray:
    """Return the display picture of an image, without the channels that its files lack."""
    kept = [index for index, channel in enumerate(image.channels) if channel.name not in missing]
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
        found = image.predict_prompts([prompts[name] for name in together], request.options.mask)
        for name, prediction in zip(together, found, strict=True):
            yield name, prompts[name], prediction


def _prompt_result(image: TiledImage, name: str, prompt: Prompt, found: Prediction) -> PromptResult:
    """Return the object of a prompt in its window."""
    class_name = None
    if found.class_id is not None:
        class_name = image.predictor.class_names.get(found.class_id, str(found.class_id))
    return PromptResult(
        name,
        found.mask,
        found.score,
        prompt,
        class_id=found.class_id,
        class_name=class_name,
        class_probability=found.class_probability,
        warning=_warning(found.warning),
    )


def _objects_result(
    image: TiledImage, task: ImageTask, request: Request, objects: Iterable[FoundObject]
) -> ImageResult:
    """Return the objects that the request keeps."""
    kept = []
    for one in objects:
        is_sure = request.min_score is None or one.score >= request.min_score
        if is_sure and (request.kept_classes is None or one.instance.class_id in request.kept_classes):
            kept.append(one)
    return replace(_empty_result(image, task), objects=tuple(kept))


def _classes_result(image: TiledImage, task: ImageTask, request: Request, classes: LabelMap) -> ImageResult:
    """Return the class map with the classes that the request keeps."""
    _, nodata = image.predictor.label_type()
    background = 0 if image.predictor.required_dense().background else None
    if request.kept_classes is not None:
        _drop_classes(classes, request.kept_classes, nodata, background)
    return replace(_empty_result(image, task), class_map=classes, nodata=nodata, background=background)


def _empty_result(image: TiledImage, task: ImageTask) -> ImageResult:
    reader = image.reader
    return ImageResult(
        task.name, reader.size_hw, reader.georeference, image.predictor.class_names, partial(picture_of, reader)
    )


def _is_large(image: TiledImage, request: Request) -> bool:
    """Return whether prompted objects share files, because a mask of each would take many pixels."""
    if request.formats and not request.uncertainty:
        return False
    reader = image.reader
    in_windows = request.options.tile is not None or not isinstance(reader, SensorImage)
    is_large = in_windows and (reader.georeference is not None or math.prod(reader.size_hw) > _MAX_PIXELS)
    if is_large and request.uncertainty:
        height, width = reader.size_hw
        raise ConfigError(
            f"{reader.origin}: --uncertainty is for images of which each object gets its own mask; this one has "
            f"{width}x{height} pixels in windows. Cut the part out, or leave it out"
        )
    return is_large


def _click(prompt: Prompt) -> tuple[float, float]:
    """Return the first point of a prompt, or the middle of its box."""
    if prompt.box is None or len(prompt.point_coords):
        x, y = prompt.point_coords[0].tolist()
    else:
        x, y = prompt.box.reshape(2, 2).mean(axis=0).tolist()
    return x, y


def _warning(values: str) -> str:
    """Return how the values of an image differ from those of training, with what to look at; "" if they do not."""
    if values:
        return f"{values}; are unit, bit depth and exposure the same?"
    return ""


def _empty_class_map(image: TiledImage, folder: Path | None) -> npt.NDArray[Any]:
    """Return an empty class map; with `folder`, it is stored there, not in memory."""
    dtype, _ = image.predictor.label_type()
    if folder is None:
        return np.zeros(image.size_hw, dtype)
    with output_errors(folder), TemporaryFile(dir=folder) as stream:
        if hasattr(os, "posix_fallocate"):  # if the disk became full later, SIGBUS would end the process
            os.posix_fallocate(stream.fileno(), 0, math.prod(image.size_hw) * np.dtype(dtype).itemsize)
        return np.memmap(stream, dtype, "w+", shape=image.size_hw)


def _drop_classes(classes: npt.NDArray[Any], kept: frozenset[int], nodata: int, background: int | None) -> None:
    """Set the pixels of other classes to background, or to nodata if there is no background; in place."""
    other = nodata if background is None else background
    values = [*kept, nodata, other]
    for y0 in range(0, len(classes), 512):
        band = classes[y0 : y0 + 512]
        band[~np.isin(band, values)] = other
        release_pages(classes)


def shared_windows(predictor: Predictor, task: ImageTask, request: Request) -> int:
    """Return the number of windows of an image that can be answered separately; 1 if it is read as a whole."""
    if request.search is None:  # prompts take the windows around them
        return 1
    try:
        if not request.options.mosaic:
            size_hw = predictor.adapter.window_size(task.files)
            if size_hw is None or max(size_hw) <= predictor.tile_size(size_hw):
                return 1
        return len(open_image(predictor, task, request).windows)
    except SimMATError:  # raised again when the image is segmented
        return 1


def window_store(image: TiledImage, task: ImageTask, request: Request, out: Path) -> WindowStore | None:
    """Return the folder that keeps the answers of the windows of an image; None if there is only one window."""
    if request.search is None or len(image.windows) == 1:
        return None
    question = [repr(request.search), list(request.options.missing), image.tile, image.overlap]
    key = json.dumps([image.predictor.digest, files_key(task.files), *question])
    return WindowStore(out / f".{task.name}.windows", key)


def answer_windows(predictor: Predictor, task: ImageTask, request: Request, out: Path, indices: Iterable[int]) -> None:
    """Segment some windows of an image, and store the answers for the process that joins them."""
    image = open_image(predictor, task, request)
    store = window_store(image, task, request, out)
    assert store is not None  # `shared_windows` has counted several
    assert request.search is not None
    for index in indices:
        if not store.has(index):
            store.write(index, predictor.segment_window(image, image.windows[index], request.search))
