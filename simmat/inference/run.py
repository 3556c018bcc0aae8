"""Segment the images of a call: skip finished ones, share the rest between processes, collect what failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.errors import DataError, OutputError, SimMATError
from simmat.inference.dask import absolute, dask_pool, with_absolute_paths
from simmat.inference.find import answer_windows, find, open_image, shared_windows, window_store
from simmat.inference.images import ImageTask, image_tasks
from simmat.inference.outcome import ImageOutcome, Progress
from simmat.inference.request import LOCAL, PredictOptions, Request, resolve
from simmat.inference.writer import Writer
from simmat.io.files import remove_temporary
from simmat.predictor.open import NoValidPixelsError

if TYPE_CHECKING:
    from simmat.nn.device import Processes
    from simmat.plugins.registry import Registry
    from simmat.predictor import Predictor

WINDOWS_TOGETHER = 16
"""Number of windows in one task of an executor."""

Segment = Callable[[ImageTask, Sequence[int] | None], ImageOutcome | None]
"""Segments an image; or some windows of it, for the process that joins them, and then returns None."""


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
        files: files and folders; or source -> file of one image, for sensors with several.
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
        files, out, options = with_absolute_paths(files, out, options)
    tasks = image_tasks(predictor, files, out, options, progress.note)
    request = resolve(options, predictor, registry, progress.note)
    writer = Writer(out, request, predictor)
    writer.check(tasks)
    run = ImageRun(predictor, request, writer, tasks, progress)
    if options.executor == LOCAL:
        run.run(processes)
    else:
        arguments = {name: absolute(value) for name, value in load.keywords.items()}
        needed = [value for value in arguments.values() if isinstance(value, Path)]
        if tasks:
            needed += tasks[0].files.values()
        load_there = partial(load.func, **arguments)
        with dask_pool(options.executor, out, needed) as pool:
            run.run(processes, pool, partial(_segment_on_worker, load_there, predictor.digest, request, out))
    if not processes.is_main:
        return []
    done = []
    for task in tasks:
        if run.outcomes[task.name].error is None:
            done.append((task, run.outcomes[task.name]))
    for line in writer.finish(done):
        progress.wrote(line)
    finds_objects = request.search is not None and request.search.objects is not None
    if finds_objects and done and not any(outcome.objects for _, outcome in done):
        progress.note("Warning: no object found; try a lower --min-score, other --classes, prompts, or more training")
    return [run.outcomes[task.name] for task in tasks]


def segment_image(
    predictor: Predictor, request: Request, writer: Writer, task: ImageTask, progress: Progress
) -> ImageOutcome:
    """Segment an image, and write what is found."""
    image = open_image(predictor, task, request)
    store = window_store(image, task, request, writer.out)
    shown = None if store is None else partial(progress.windows, task.name)
    try:
        found = find(image, task, request, store=store, progress=shown)
        outcome = writer.add(found)
    except NoValidPixelsError:
        if store is not None:
            store.remove()
        raise
    if store is not None:
        store.remove()
    return outcome


@dataclass
class ImageRun:
    """The images of a call and what became of them.

    Attributes:
        predictor: the model.
        request: what is asked of each image.
        writer: writes the results.
        tasks: the images, the same in all processes.
        progress: told what is done.
        outcomes: name of an image -> what became of it, of those that are done or have failed.
    """

    predictor: Predictor
    request: Request
    writer: Writer
    tasks: Sequence[ImageTask]
    progress: Progress
    outcomes: dict[str, ImageOutcome] = field(default_factory=dict)

    def run(self, processes: Processes, pool: Executor | None = None, segment: Segment | None = None) -> None:
        """Do all images, or the share of this process; the main process has the outcomes of all at the end.

        An OutputError, such as a full disk, stops the call.

        Args:
            processes: those that share the images.
            pool: does the images in place of this process, which joins the windows of large ones.
            segment: what a worker of the pool calls for each image, or for some windows of it.
        """
        left = self._skip_finished(processes)
        is_shared = pool is not None or processes.count > 1
        whole: list[ImageTask] = []
        parted: list[tuple[ImageTask, int]] = []
        for task in left:
            count = shared_windows(self.predictor, task, self.request) if is_shared else 1
            if count == 1:
                whole.append(task)
            else:
                parted.append((task, count))
        try:
            if pool is not None and segment is not None:
                self._run_in_pool(pool, segment, whole, parted)
            else:
                self._run_here(processes, whole, parted)
            for outcomes in processes.gather(self.outcomes):
                self.outcomes |= outcomes
            if processes.is_main:
                for task, _ in parted:
                    self._attempt(task, partial(self._segment, task))
        except BaseException:
            done = [task for task in left if task.name in self.outcomes and self.outcomes[task.name].error is None]
            if done:
                out = self.writer.out
                self.progress.note(f"{len(done)} of {len(left)} images are done; their results are in {out}")
            raise

    def _skip_finished(self, processes: Processes) -> list[ImageTask]:
        """Find the images that an earlier call has done; return the others."""
        done: dict[str, ImageOutcome] = {}
        for task in self.tasks:
            outcome = self.writer.earlier_outcome(task)
            if outcome is not None:
                done[task.name] = outcome
        done = processes.gather(done)[0]  # another process may finish an image while this one checks
        self.outcomes = dict(done)
        if processes.is_main:
            remove_temporary(self.writer.out)
            self.progress.started(len(self.tasks), len(done))
        return [task for task in self.tasks if task.name not in done]

    def _run_here(
        self, processes: Processes, whole: Sequence[ImageTask], parted: Sequence[tuple[ImageTask, int]]
    ) -> None:
        """Do this process's share of the images, and of the windows of divided images."""
        for task in processes.share(whole):
            self._attempt(task, partial(self._segment, task))
        for task, count in parted:
            self._attempt(task, partial(self._answer_windows, task, processes.share(range(count))))

    def _run_in_pool(
        self, pool: Executor, segment: Segment, whole: Sequence[ImageTask], parted: Sequence[tuple[ImageTask, int]]
    ) -> None:
        """Let a pool do the images, and the windows of divided images, some at a time."""
        work: list[tuple[ImageTask, range | None]] = [(task, None) for task in whole]
        for task, count in parted:
            for start in range(0, count, WINDOWS_TOGETHER):
                work.append((task, range(start, min(start + WINDOWS_TOGETHER, count))))
        futures = {pool.submit(segment, task, indices): task for task, indices in work}
        try:
            for future in as_completed(futures):
                task = futures[future]
                self._attempt(task, partial(_result, future, task.name))
        finally:
            for future in futures:
                future.cancel()

    def _segment(self, task: ImageTask) -> ImageOutcome:
        return segment_image(self.predictor, self.request, self.writer, task, self.progress)

    def _answer_windows(self, task: ImageTask, indices: Sequence[int]) -> None:
        answer_windows(self.predictor, task, self.request, self.writer.out, indices)

    def _attempt(self, task: ImageTask, function: Callable[[], ImageOutcome | None]) -> None:
        """Call a function of an image, unless it has an outcome, and keep that; an OutputError stops the call."""
        if task.name in self.outcomes:
            return
        try:
            outcome = function()
        except OutputError:
            raise
        except SimMATError as error:
            outcome = ImageOutcome(task.name, error=error)
        if outcome is not None:
            self.outcomes[task.name] = outcome
            self.progress.image(outcome)


def _result(future: Future[ImageOutcome | None], name: str) -> ImageOutcome | None:
    """Return the result of a task of a pool; errors of dask become errors of SimMAT."""
    try:
        return future.result()
    except Exception as error:
        if not isinstance(error, CancelledError) and type(error).__name__ != "KilledWorker":  # a class of dask
            raise
        raise DataError(
            f"{name}: the dask scheduler stopped, or the workers that segmented it died, perhaps because they ran out "
            "of memory; run the command again"
        ) from error


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
    if indices is not None:
        answer_windows(predictor, task, request, out, indices)
        return None
    return segment_image(predictor, request, Writer(out, request, predictor), task, Progress())
