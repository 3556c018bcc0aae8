"""Do the images of a call: skip finished ones, share the rest between processes, collect what failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.errors import ConfigError, DataError, OutputError, SimMATError
from simmat.inference.job import ImageOutcome, ImageTask, Job
from simmat.inference.prompted import make_segmenter
from simmat.inference.segmenter import Segmenter
from simmat.io.files import remove_leftovers, staged_files
from simmat.io.reading import url_of

if TYPE_CHECKING:
    from simmat.nn.device import Processes
    from simmat.predictor import Predictor

WINDOWS_TOGETHER = 16
"""Number of windows in one task of an executor."""
_CONNECT_SECONDS = 10
_WORKER_SECONDS = 60
"""How long to wait for the first worker of a scheduler."""


class Run:
    """The images of a call and what became of them.

    Attributes:
        outcomes: name of an image -> what became of it, of those that are done or have failed.
    """

    def __init__(self, segmenter: Segmenter, tasks: Sequence[ImageTask]) -> None:
        self.segmenter, self.tasks = segmenter, tasks
        self.outcomes: dict[str, ImageOutcome] = {}

    def run(
        self, processes: Processes, executor: Executor | None = None, load: partial[Predictor] | None = None
    ) -> None:
        """Do all images, or the share of this process; the main process has the outcomes of all at the end.

        `tasks` must be the same in all processes. An OutputError, such as a full disk, stops the call. The workers of
        an executor see the same files, and load the model by `load`; this process joins the windows of images.
        """
        left, is_shared = self._begin(processes), executor is not None or processes.count > 1
        windows = [(task, self.segmenter.shared_windows(task) if is_shared else 1) for task in left]
        whole = [task for task, count in windows if count == 1]
        parted = [(task, count) for task, count in windows if count > 1]
        try:
            if executor is not None and load is not None:
                self._run_on(executor, load, whole, parted)
            else:
                for task in processes.share(whole):
                    self._attempt(task, partial(self.segmenter.segment, task))
                for task, count in parted:
                    indices = processes.share(range(count))
                    self._attempt(task, partial(self.segmenter.answer_windows, task, indices))
            for part in processes.gather(self.outcomes):
                self.outcomes |= part
            for task, _ in parted if processes.is_main else ():
                self._attempt(task, partial(self.segmenter.segment, task))
        except BaseException:
            done = sum(task.name in self.outcomes and self.outcomes[task.name].error is None for task in left)
            if done:
                out = self.segmenter.job.out
                self.segmenter.progress.note(f"{done} of {len(left)} images are done; their results are in {out}")
            raise

    def _run_on(
        self,
        executor: Executor,
        load: partial[Predictor],
        whole: Sequence[ImageTask],
        parted: Sequence[tuple[ImageTask, int]],
    ) -> None:
        work: list[tuple[ImageTask, range | None]] = [(task, None) for task in whole]
        for task, count in parted:
            starts = range(0, count, WINDOWS_TOGETHER)
            work += [(task, range(start, min(start + WINDOWS_TOGETHER, count))) for start in starts]
        job = self.segmenter.job
        futures = {executor.submit(_segment_on_worker, load, job, task, part): task for task, part in work}
        try:
            for future in as_completed(futures):
                self._attempt(futures[future], partial(_result, future, futures[future].name))
        finally:
            for future in futures:
                future.cancel()

    def _begin(self, processes: Processes) -> list[ImageTask]:
        """Find the images that an earlier call has done; return the others."""
        done = {task.name: outcome for task in self.tasks if (outcome := self.segmenter.earlier_outcome(task))}
        done = processes.gather(done)[0]  # another process may finish an image while this one checks
        self.outcomes = dict(done)
        if processes.is_main:
            remove_leftovers(self.segmenter.job.out / "files")
            self.segmenter.progress.started(len(self.tasks), len(done))
        return [task for task in self.tasks if task.name not in done]

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
            self.segmenter.progress.image(outcome)


def run_on_dask(
    segmenter: Segmenter, tasks: Sequence[ImageTask], load: partial[Predictor], processes: Processes, address: str
) -> Run:
    """Do the images of a call on the workers of a dask scheduler at tcp://HOST:PORT, which see the same files."""
    job, options = segmenter.job, segmenter.job.options
    paths = {name: path and path.absolute() for name, path in (("cache", options.cache), ("prompts", options.prompts))}
    job = replace(job, out=job.out.absolute(), options=options.model_copy(update=paths))  # workers have other folders
    tasks = [replace(task, files={name: _absolute(file) for name, file in task.files.items()}) for task in tasks]
    model = {name: _absolute(value) if isinstance(value, Path) else value for name, value in load.keywords.items()}
    run = Run(make_segmenter(segmenter.predictor, job, segmenter.progress), tasks)
    seen = [*model.values(), *(tasks[0].files.values() if tasks else ())]
    with dask_client(address) as client, client.get_executor(pure=False) as pool:
        with staged_files(job.out) as staging:
            check_workers(client, [staging, *(path for path in seen if isinstance(path, Path) and path.exists())])
        run.run(processes, pool, partial(load.func, **model))
    return run


@contextmanager
def dask_client(address: str) -> Iterator[Any]:
    """Yield a client of the dask scheduler at tcp://HOST:PORT, which has a worker, and close it at the end.

    Raises ConfigError if there is no such scheduler.
    """
    if not re.fullmatch(r"tcp://[^/\s]+:\d{1,5}", address):
        raise ConfigError(f"--executor takes local or tcp://HOST:PORT of a dask scheduler, got {address!r}")
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            f"--executor {address} needs dask.distributed ({error}); pip install 'simmat[dask]', or leave "
            "--executor out to run here"
        ) from error
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call,unused-ignore]
    except OSError as error:
        raise ConfigError(
            f"no dask scheduler answers at {address}; check host and port, or start one with `dask scheduler`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except TimeoutError as error:
            raise ConfigError(
                f"the dask scheduler at {address} has no worker; start one with `dask worker {address} --nthreads 1`"
            ) from error
        yield client


def check_workers(client: Any, paths: Sequence[Path]) -> None:
    """Raise ConfigError if a worker of a dask client does not see some absolute paths, or lacks SimMAT."""
    try:
        found: Mapping[str, list[bool]] = client.run(_which_exist, [str(path) for path in paths])
    except ImportError as error:
        raise ConfigError(
            f"a dask worker cannot do the work ({error}); install simmat where it runs, with the plugins that are "
            "needed here"
        ) from error
    for index, path in enumerate(paths):
        if blind := [worker for worker, seen in found.items() if not seen[index]]:
            raise ConfigError(
                f"dask workers {', '.join(blind)} do not see {path}; put it on a disk that all machines share"
            )


def _which_exist(paths: Sequence[str]) -> list[bool]:
    return [Path(path).exists() for path in paths]


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
        _SEGMENTERS[key] = make_segmenter(load(), job)
    if indices is None:
        return _SEGMENTERS[key].segment(task)
    _SEGMENTERS[key].answer_windows(task, indices)
    return None


def _result(future: Future[ImageOutcome | None], name: str) -> ImageOutcome | None:
    """Return the result of a task; errors of dask become errors of SimMAT."""
    try:
        return future.result()
    except Exception as error:
        if not isinstance(error, CancelledError) and type(error).__name__ != "KilledWorker":  # a class of dask
            raise
        raise DataError(
            f"{name}: the dask scheduler stopped, or the workers that segmented it died, perhaps because they ran out "
            "of memory; run the command again"
        ) from error
