"""Predict the images of a call: skip finished ones, open each of the others, find what is asked, and write it."""

from __future__ import annotations

import json
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.errors import OutputError, SimMATError
from simmat.inference import shared
from simmat.inference.find import find, segment_window
from simmat.inference.images import ImageTask, image_tasks
from simmat.inference.options import LOCAL, PredictOptions
from simmat.inference.outcome import ImageOutcome, Progress
from simmat.inference.request import Request, files_key, resolve
from simmat.inference.table import Columns
from simmat.inference.window_store import WindowStore
from simmat.inference.writer import Writer
from simmat.io.files import remove_temporary
from simmat.measurement import measurer
from simmat.predictor.input_check import files_warning
from simmat.predictor.objects import grid_note
from simmat.predictor.open import NoValidPixelsError
from simmat.types import Window

if TYPE_CHECKING:
    from simmat.nn.device import Processes
    from simmat.plugins.registry import Registry
    from simmat.predictor import Predictor, TiledImage
    from simmat.types import ImageReader

Outcomes = Generator[ImageOutcome | None, None, None]
"""What becomes of images; None for some windows of one, whose results are stored for the process that joins them."""


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
    columns = _measured_columns(predictor, tasks, options)
    request = resolve(options, predictor, registry, columns, progress.note)
    writer = Writer(out, request, predictor)
    writer.check(tasks)
    outcomes = _finished(tasks, writer, processes)
    left = [task for task in tasks if task.name not in outcomes]
    warning = _input_warning(predictor, left, options)
    left = [replace(task, warning=warning) for task in left]
    if processes.is_main:
        remove_temporary(out)
        replaced = writer.replaced_tables(tasks)
        for text in _notes_before(request, predictor, (warning, replaced), len(left)):
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
    request: Request, predictor: Predictor, warnings: Iterable[str], left: int
) -> Iterator[str]:
    """Yield what the user should know before `left` images are segmented."""
    for warning in warnings:
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


def _measured_columns(
    predictor: Predictor, tasks: Sequence[ImageTask], options: PredictOptions
) -> Columns | None:
    """Return the columns of the first image that can be read; None if no other image can differ from it."""
    # a bundle takes images of its channels only
    if not options.measure or predictor.bundle is not None or len(tasks) == 1:
        return None
    for task in tasks:
        with suppress(SimMATError):
            image = predictor.image_loader.reader(task.files, options.missing, 0)
            return Columns(image.origin, _columns_of(image))
    return None


def _columns_of(image: ImageReader) -> tuple[str, ...]:
    """Return the columns of the measurements in an image."""
    return measurer().columns_of(image.read(Window(0, 0, 1, 1)).channels)


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
        DataError: it cannot be read, a format that the user named cannot hold it, or the table of measurements cannot,
            because of its channels.
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
    if request.columns is not None:
        request.columns.check(image.reader.origin, _columns_of(image.reader))
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
            store.write(index, segment_window(image, image.windows[index], request))


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
