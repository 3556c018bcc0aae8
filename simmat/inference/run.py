"""Do the images of a call: skip finished ones, share the rest between processes, collect what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.errors import ConfigError, DataError, OutputError, SimMATError
from simmat.executors import check_workers, dask_client
from simmat.inference.job import ImageOutcome, ImageTask, Job
from simmat.inference.prompted import segment_prompts
from simmat.inference.segmenter import Segmenter
from simmat.io.files import staged_files, url_of

if TYPE_CHECKING:
    from simmat.nn.device import Processes
    from simmat.predictor import Predictor

WINDOWS_TOGETHER = 16
"""Number of windows in one task of an executor."""

Finish = Callable[[], ImageOutcome]


def _started(segmenter: Segmenter, task: ImageTask) -> Finish:
    """Segment an image; return a function that does the rest in any thread and returns the outcome."""
    if task.prompts is None:
        return segmenter.start(task)
    outcome = segment_prompts(segmenter, task)
    return lambda: outcome


class Run:
    """The images of a call and what became of them.

    Attributes:
        outcomes: name of an image -> what became of it, of those that are done or have failed.
    """

    def __init__(self, segmenter: Segmenter, tasks: Sequence[ImageTask]) -> None:
        self.segmenter, self.tasks = segmenter, tasks
        self.outcomes: dict[str, ImageOutcome] = {}

    def run(self, processes: Processes) -> None:
        """Do all images, or the share of this process; the main process has the outcomes of all at the end.

        `tasks` must be the same in all processes. An OutputError, such as a full disk, stops the call.
        """
        left = self._begin(processes)
        shared = processes.count > 1
        windows = {task.name: self.segmenter.shared_windows(task) if shared else 1 for task in left}
        whole, parted = ([task for task in left if (windows[task.name] == 1) is one] for one in (True, False))
        try:
            self._run_in_turn(processes.share(whole))
            for task in parted:
                indices = processes.share(range(windows[task.name]))
                self._attempt(task, partial(self.segmenter.answer_windows, task, indices))
            for part in processes.gather(self.outcomes):
                self.outcomes |= part
            for task in parted if processes.is_main else ():
                self._join(task)
        except BaseException:
            self._tell_what_is_done(left)
            raise

    def run_on(self, executor: Executor, load: partial[Predictor], processes: Processes) -> None:
        """Do all images on an executor whose workers see the same files; `load` loads the model there.

        This process joins the windows of images.
        """
        left, job = self._begin(processes), self.segmenter.job
        parts: dict[Future[ImageOutcome | None], ImageTask] = {}
        windows = {task.name: self.segmenter.shared_windows(task) for task in left}
        for task in left:
            if windows[task.name] == 1:
                parts[executor.submit(_segment_on_worker, load, job, task, None)] = task
                continue
            for start in range(0, windows[task.name], WINDOWS_TOGETHER):
                indices = range(start, min(start + WINDOWS_TOGETHER, windows[task.name]))
                parts[executor.submit(_segment_on_worker, load, job, task, indices)] = task
        pending = {task.name: sum(other is task for other in parts.values()) for task in left}
        try:
            for future in as_completed(parts):
                task = parts[future]
                pending[task.name] -= 1
                self._attempt(task, partial(self._of_worker, future, task.name))
                if windows[task.name] > 1 and not pending[task.name]:
                    self._join(task)
        finally:
            for future in parts:
                future.cancel()

    def _begin(self, processes: Processes) -> list[ImageTask]:
        """Find the images that an earlier call has done; return the others."""
        done = {task.name: outcome for task in self.tasks if (outcome := self.segmenter.earlier_outcome(task))}
        done = processes.gather(done)[0]  # another process may finish an image while this one checks
        self.outcomes = dict(done)
        if processes.is_main:
            self.segmenter.progress.started(len(self.tasks), len(done))
        return [task for task in self.tasks if task.name not in done]

    def _run_in_turn(self, tasks: Iterable[ImageTask]) -> None:
        """Do images one after the other; files are written while the next image is segmented."""
        writing: tuple[ImageTask, Future[ImageOutcome]] | None = None

        def finish_writing() -> None:
            if writing is not None:
                self._attempt(writing[0], writing[1].result)

        with ThreadPoolExecutor(max_workers=1) as thread:
            try:
                for task in tasks:
                    finish = self._start(task)
                    finish_writing()
                    writing = task, thread.submit(finish)
            finally:  # count the image being written, even if the next one was interrupted
                finish_writing()

    def _start(self, task: ImageTask) -> Finish:
        """Start an image; an error is raised only when the returned function is called."""
        try:
            return _started(self.segmenter, task)
        except OutputError:
            raise
        except SimMATError as error:
            return partial(_failed, task, error)

    def _join(self, task: ImageTask) -> None:
        """Join the windows of an image, unless one of them failed."""
        if task.name not in self.outcomes:
            self._attempt(task, lambda: _started(self.segmenter, task)())

    def _attempt(self, task: ImageTask, function: Callable[[], ImageOutcome | None]) -> None:
        """Call a function of an image and keep its outcome, if it has one; an OutputError stops the call."""
        try:
            outcome = function()
        except OutputError:
            raise
        except SimMATError as error:
            outcome = _failed(task, error)
        if outcome is not None and task.name not in self.outcomes:
            self.outcomes[task.name] = outcome
            self.segmenter.progress.image(outcome)

    def _of_worker(self, future: Future[ImageOutcome | None], name: str) -> ImageOutcome | None:
        outcome = _result(future, name)
        for text in () if outcome is None else outcome.warnings:
            self.segmenter.progress.note(f"Warning: {name}: {text}")
        return outcome

    def _tell_what_is_done(self, left: Sequence[ImageTask]) -> None:
        done = [task for task in left if task.name in self.outcomes and self.outcomes[task.name].error is None]
        if done:
            out = self.segmenter.job.out
            self.segmenter.progress.note(f"{len(done)} of {len(left)} images are done; their results are in {out}")


def run_on_dask(
    segmenter: Segmenter, tasks: Sequence[ImageTask], load: partial[Predictor], processes: Processes, address: str
) -> Run:
    """Do the images of a call on the workers of a dask scheduler at tcp://HOST:PORT, which see the same files."""
    job, cache = segmenter.job, segmenter.job.options.cache
    options = segmenter.job.options.model_copy(update={"cache": cache and cache.absolute()})
    job = replace(job, out=job.out.absolute(), options=options)  # workers have working folders of their own
    tasks = [replace(task, files={name: _absolute(file) for name, file in task.files.items()}) for task in tasks]
    model = {name: _absolute(value) if isinstance(value, Path) else value for name, value in load.keywords.items()}
    run = Run(Segmenter(segmenter.predictor, job, segmenter.progress), tasks)
    seen = [*model.values(), *(tasks[0].files.values() if tasks else ())]
    with dask_client(address, "simmat[dask]") as client, client.get_executor(pure=False) as pool:
        with staged_files(job.out) as staging:
            check_workers(client, [staging, *(path for path in seen if isinstance(path, Path) and path.exists())])
        run.run_on(pool, partial(load.func, **model), processes)
    return run


def _absolute(file: Path) -> Path:
    return file if url_of(file) else file.absolute()


_SEGMENTERS: dict[str, Segmenter] = {}
"""Arguments -> the one model of a worker process, which is loaded once, not for each task."""


def _segment_on_worker(
    load: partial[Predictor], job: Job, task: ImageTask, indices: Sequence[int] | None
) -> ImageOutcome | None:
    """Segment an image, or some windows of it for the process that joins them."""
    key = repr((sorted(load.keywords.items()), job))
    if key not in _SEGMENTERS:
        _SEGMENTERS.clear()
        _SEGMENTERS[key] = Segmenter(load(), job)
    if indices is None:
        return _started(_SEGMENTERS[key], task)()
    _SEGMENTERS[key].answer_windows(task, indices)
    return None


def _failed(task: ImageTask, error: SimMATError) -> ImageOutcome:
    return ImageOutcome(task.name, error=error)


def _result(future: Future[ImageOutcome | None], name: str) -> ImageOutcome | None:
    """Return the result of a task; errors of dask become errors of SimMAT."""
    try:
        return future.result()
    except CancelledError as error:
        raise ConfigError(
            f"{name}: the dask scheduler stopped or dropped the work; start it and run the command again"
        ) from error
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # a class of dask, which may not be installed
            raise
        raise DataError(
            f"{name}: the dask workers that segmented it died, perhaps because they ran out of memory"
        ) from error
