"""Predict the images of a call: skip finished ones, open each of the others, find what is asked, and write it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import (
    Callable,
    Container,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject, region_from_mask
from simmat.drawing.display import PictureArray, display_rgb
from simmat.errors import ConfigError, OutputError, SimMATError
from simmat.foundation import MAX_PROMPTS
from simmat.inference import shared
from simmat.inference.formats import ImageResult, LabelMap, PromptResult
from simmat.inference.images import ImageTask, image_tasks, prompts_on_map
from simmat.inference.outcome import ImageOutcome, Progress
from simmat.inference.request import (
    LOCAL,
    TABLE,
    UNCERTAINTY,
    PredictOptions,
    Request,
    files_key,
    prompt_values,
    resolve,
)
from simmat.inference.window_store import WindowStore
from simmat.inference.writer import Found, Writer
from simmat.io.files import output_errors, release_pages, remove_temporary
from simmat.measurement import (
    Row,
    columns_of,
    mean_intervals,
    measure,
    pixel_areas,
)
from simmat.predictor.input_check import files_warning
from simmat.predictor.objects import grid_note
from simmat.predictor.open import NoValidPixelsError, picture_of
from simmat.predictor.tiles import (
    WindowResult,
    check_inside,
    merge_objects,
    most_likely,
)
from simmat.types import Prompt, SensorImage, Window

if TYPE_CHECKING:
    from simmat.nn.device import Processes
    from simmat.plugins.registry import Registry
    from simmat.predictor import Prediction, Predictor, TiledImage

Outcomes = Generator[ImageOutcome | None, None, None]
"""What becomes of images; None for some windows of one, whose results are stored for the process that joins them."""
_MAX_PIXELS = 2048**2
"""Largest image without georeference that, segmented in windows, gets a mask and a picture for each object."""


def predict_files(
    predictor: Predictor,
    files: Sequence[Path] | Mapping[str, Path],
    out: Path,
    options: PredictOptions,
    registry: Registry,
    processes: Processes,
    load: partial[Predictor],
    progress: Progress,
) -> list[ImageOutcome]:
    """Segment images as `simmat.predict` does; return what became of each, in the main process.

    Args:
        predictor: the model.
        files: files and folders; for sensors with several sources, folders, or source -> file of one image.
        out: folder of the results.
        options: what the user asks for.
        registry: has the formats.
        processes: those that share the images, of which this is one.
        load: loads the model on other machines, with the arguments of `simmat.load`.
        progress: is told what is done.

    Raises:
        SimMATError: options do not suit the model, files of others would be replaced, or results cannot be written.
    """
    if options.executor != LOCAL:
        files, out, options = shared.with_absolute_paths(files, out, options)
    tasks = image_tasks(predictor, files, out, options, progress.note)
    request = resolve(options, predictor, registry, progress.note)
    writer = Writer(out, request, predictor)
    writer.check(tasks)
    outcomes = _finished(tasks, writer, processes)
    left = [task for task in tasks if task.name not in outcomes]
    warning = _input_warning(predictor, left, options)
    request = replace(request, input_warning=warning)
    writer = Writer(out, request, predictor)
    if processes.is_main:
        remove_temporary(out)
        replaced = writer.replaced_tables(tasks)
        for text in _notes_before(request, predictor, replaced, len(left)):
            progress.note(text)
        progress.started(len(tasks), len(outcomes))
    segment = partial(_segment, predictor, request, writer, progress)
    try:
        if options.executor != LOCAL:
            _collect(
                _segment_there(left, predictor, request, load, out), outcomes, progress
            )
        elif processes.count > 1:
            pieces = shared.pieces_of_process(
                left, partial(_windows_of, predictor, request), processes
            )
            _collect(_segment_here(pieces, segment), outcomes, progress)
            for of_process in processes.gather(outcomes):
                outcomes |= of_process
        if processes.is_main:
            rest = [(task, None) for task in left if task.name not in outcomes]
            _collect(_segment_here(rest, segment), outcomes, progress)
    except BaseException:
        done = [
            task
            for task in left
            if task.name in outcomes and outcomes[task.name].error is None
        ]
        if done:
            progress.note(
                f"{len(done)} of {len(left)} images are done; their results are in {out}"
            )
        raise
    if not processes.is_main:
        return []
    successful = [
        outcomes[task.name] for task in tasks if outcomes[task.name].error is None
    ]
    for line in writer.finish(successful):
        progress.wrote(line)
    if (
        request.settings is not None
        and successful
        and not any(outcome.objects for outcome in successful)
    ):
        progress.note(
            "Warning: no object found; try a lower --min-score, other --classes, prompts, or more training"
        )
    return [outcomes[task.name] for task in tasks]


def _notes_before(
    request: Request, predictor: Predictor, replaced: str, left: int
) -> Iterator[str]:
    """Yield what the user should know before `left` images are segmented."""
    for warning in (request.input_warning, replaced):
        if warning:
            yield f"Warning: {warning}"
    every_object = request.settings is not None and request.reference is None
    if left and every_object and predictor.dense is None:
        yield f"note: {grid_note(left)}"


def _input_warning(
    predictor: Predictor, tasks: Sequence[ImageTask], options: PredictOptions
) -> str:
    """Return how the first images differ from the training images; "" if they do not, or for tiles of one map."""
    if options.mosaic or options.missing:
        return ""
    files = (task.files for task in tasks)
    return files_warning(
        predictor.bundle, predictor.adapter, files, predictor.max_untiled_side
    )


def _finished(
    tasks: Iterable[ImageTask], writer: Writer, processes: Processes
) -> dict[str, ImageOutcome]:
    """Return the outcomes of the images that an earlier call has done, by name."""
    done: dict[str, ImageOutcome] = {}
    for task in tasks:
        outcome = writer.earlier_outcome(task)
        if outcome is not None:
            done[task.name] = outcome
    # another process may finish an image while this one checks
    return dict(processes.gather(done)[0])


def _collect(
    found: Outcomes, outcomes: dict[str, ImageOutcome], progress: Progress
) -> None:
    """Add the first outcome of each image to `outcomes` when it is there; None is a part of an image."""
    with closing(found):
        for outcome in found:
            if outcome is not None and outcome.name not in outcomes:
                outcomes[outcome.name] = outcome
                progress.image(outcome)


def _segment_here(
    pieces: Iterable[shared.Piece],
    segment: Callable[[ImageTask, Sequence[int] | None], ImageOutcome | None],
) -> Outcomes:
    """Segment one piece of work after the other."""
    for task, indices in pieces:
        yield _attempt(task.name, partial(segment, task, indices))


def _segment_there(
    tasks: Sequence[ImageTask],
    predictor: Predictor,
    request: Request,
    load: partial[Predictor],
    out: Path,
) -> Outcomes:
    """Segment images on the workers of a dask scheduler, which load the model themselves."""
    arguments = {name: shared.absolute(value) for name, value in load.keywords.items()}
    needed = [value for value in arguments.values() if isinstance(value, Path)]
    if tasks:
        needed += tasks[0].files.values()
    pieces = shared.pieces_for_workers(tasks, partial(_windows_of, predictor, request))
    segment = partial(
        _segment_on_worker,
        partial(load.func, **arguments),
        predictor.digest,
        request,
        out,
    )
    with shared.dask_pool(request.options.executor, out, needed) as pool:
        for name, result in shared.done_by_workers(pool, segment, pieces):
            yield _attempt(name, result)


def _attempt(
    name: str, function: Callable[[], ImageOutcome | None]
) -> ImageOutcome | None:
    """Return what a function makes of an image, also if that fails; an OutputError, such as a full disk, is raised."""
    try:
        return function()
    except OutputError:
        raise
    except SimMATError as error:
        return ImageOutcome(name, error=error)


_PREDICTORS: dict[str, Predictor] = {}
"""Digest and arguments -> the one model of a worker process, which is loaded once, not for each task."""


def _segment_on_worker(
    load: partial[Predictor],
    model: str,
    request: Request,
    out: Path,
    task: ImageTask,
    indices: Sequence[int] | None,
) -> ImageOutcome | None:
    """Segment an image, or some windows of it for the process that joins them."""
    key = repr((model, sorted(load.keywords.items())))
    if key not in _PREDICTORS:
        _PREDICTORS.clear()
        _PREDICTORS[key] = load()
    predictor = _PREDICTORS[key]
    return _segment(
        predictor, request, Writer(out, request, predictor), Progress(), task, indices
    )


def _segment(
    predictor: Predictor,
    request: Request,
    writer: Writer,
    progress: Progress,
    task: ImageTask,
    indices: Sequence[int] | None,
) -> ImageOutcome | None:
    """Segment an image and write what is found; or only store what is found in some of its windows."""
    if indices is None:
        return segment_image(predictor, request, writer, task, progress)
    _answer_windows(predictor, task, request, writer.out, indices)
    return None


def segment_image(
    predictor: Predictor,
    request: Request,
    writer: Writer,
    task: ImageTask,
    progress: Progress,
) -> ImageOutcome:
    """Segment an image, and write what is found."""
    image = open_image(predictor, task, request)
    store = window_store(image, task, request, writer.out)
    try:
        outcome = writer.add(find(image, task, request, store, progress))
    except NoValidPixelsError:
        if store is not None:
            store.remove()
        raise
    if store is not None:
        store.remove()
    return outcome


def open_image(predictor: Predictor, task: ImageTask, request: Request) -> TiledImage:
    """Open an image of a call.

    Raises:
        DataError: it cannot be read, or a format that the user named cannot hold it.
        SimMATError: as `Predictor.open_image` raises it.
    """
    options = request.options
    if options.mosaic:
        tiles = list(task.files.values())
        image = predictor.open_mosaic(
            tiles, missing=options.missing, tile=options.tile, overlap=options.overlap
        )
    else:
        image = predictor.open_image(
            task.files,
            missing=options.missing,
            tile=options.tile,
            overlap=options.overlap,
            cache=options.cache,
        )
    for kind in request.kinds:
        request.formats_for_image(kind, image.reader)  # raises before any work
    return image


def window_store(
    image: TiledImage, task: ImageTask, request: Request, out: Path
) -> WindowStore | None:
    """Return the folder that keeps the answers of the windows of an image; None if there is only one window."""
    if not request.options.is_promptless or len(image.windows) == 1:
        return None
    asked = repr(
        (
            request.settings,
            request.reference,
            request.options.semantic,
            request.options.missing,
        )
    )
    key = json.dumps(
        [image.encoder.digest, files_key(task.files), asked, image.tile, image.overlap]
    )
    return WindowStore(out, task.name, key)


def _answer_windows(
    predictor: Predictor,
    task: ImageTask,
    request: Request,
    out: Path,
    indices: Iterable[int],
) -> None:
    """Segment some windows of an image, and store the results for the process that joins them."""
    image = open_image(predictor, task, request)
    store = window_store(image, task, request, out)
    assert store is not None  # `_windows_of` has counted several
    for index in indices:
        if not store.has(index):
            store.write(index, _segment_window(image, image.windows[index], request))


def _windows_of(predictor: Predictor, request: Request, task: ImageTask) -> int:
    """Return the number of windows of an image that can be segmented separately; 1 if it is read as a whole."""
    if not request.options.is_promptless:  # prompts take the windows around them
        return 1
    try:
        if not request.options.mosaic:
            size_hw = predictor.adapter.window_size(task.files)
            if size_hw is None or max(size_hw) <= predictor.tile_size(size_hw):
                return 1
        return len(open_image(predictor, task, request).windows)
    except SimMATError:  # raised again when the image is segmented
        return 1


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
            _own_warning(request, image.warning),
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
            yield _segment_window(image, window, request)
        return
    for index, window in enumerate(image.windows):
        answer = store.read(index)
        if answer is None:
            answer = store.write(index, _segment_window(image, window, request))
        progress(index + 1, len(image.windows))
        yield answer


def _segment_window(
    image: TiledImage, window: Window, request: Request
) -> WindowResult:
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
        warning = warning or _own_warning(request, prediction.warning)
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
        _each_result(image, whole, request, prompts),
        tuple(prompts),
        {"preview_hw": whole.preview_hw, "channels": channels},
        warnings=(whole.size_note, area_warning),
    )


def _each_result(
    image: TiledImage,
    whole: SensorImage,
    request: Request,
    prompts: Mapping[str, Prompt],
) -> Iterator[PromptResult]:
    """Yield the object of each prompt; few masks of the whole image are in memory at once."""
    shown = partial(_picture, whole, request.missing)
    for name, prompt, prediction in _predictions(image, request, prompts):
        own = _own_warning(request, prediction.warning)
        result = _prompt_result(image, name, prompt, prediction, own)
        uncertainty = None
        if request.uncertainty:
            uncertainty = image.uncertainty(
                prompt, request.options.mask, prediction.window
            )
        measurements = _measured_mask(image, request, prediction)
        if measurements is not None and uncertainty is not None:
            measurements |= mean_intervals(whole, uncertainty.mean, measurements)
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


def _own_warning(request: Request, warning: str) -> str:
    """Return the warning of an image; "" if the values of all images of the call are warned of already."""
    if request.input_warning:
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
        areas, _ = pixel_areas(image.reader, request.options.pixel_size_um)
        measurements = measure(image.reader, instances, areas)
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
        return dict.fromkeys(columns_of(prediction.image.channels))
    areas, _ = pixel_areas(image.reader, request.options.pixel_size_um)
    return measure(image.reader, [found], areas).row(0)


def _area_texts(image: TiledImage, request: Request) -> tuple[str, str]:
    """Return a warning and a note on the unit of measured areas; "" for none."""
    if not request.options.measure:
        return "", ""
    areas, contradiction = pixel_areas(image.reader, request.options.pixel_size_um)
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
