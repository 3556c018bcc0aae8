"""Share the images of a call, and the windows of large ones, between processes or the workers of a dask scheduler."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.errors import ConfigError, DataError
from simmat.inference.images import ImageTask
from simmat.inference.options import PredictOptions
from simmat.inference.outcome import ImageOutcome
from simmat.io.files import staged_files
from simmat.io.paths import url_of

if TYPE_CHECKING:
    from simmat.nn.device import Processes

WINDOWS_TOGETHER = 16
"""Number of windows in one task of a dask scheduler."""
_CONNECT_SECONDS = 10
_WORKER_SECONDS = 60
"""How long to wait for the first worker of a scheduler."""

Piece = tuple[ImageTask, Sequence[int] | None]
"""An image, and the numbers of some of its windows, for the process that joins them; None for the whole image."""


def pieces_of_process(
    tasks: Iterable[ImageTask],
    windows_of: Callable[[ImageTask], int],
    processes: Processes,
) -> Iterator[Piece]:
    """Yield the share of this process: some windows of each large image, and some of the other images.

    Args:
        tasks: the images.
        windows_of: the number of windows of an image that can be segmented separately; 1 if it is read as a whole.
        processes: those that share the images, of which this is one.
    """
    whole: list[ImageTask] = []
    for task in tasks:
        count = windows_of(task)
        if count == 1:
            whole.append(task)
        else:
            yield task, processes.share(range(count))
    for task in processes.share(whole):
        yield task, None


def pieces_for_workers(
    tasks: Iterable[ImageTask], windows_of: Callable[[ImageTask], int]
) -> Iterator[Piece]:
    """Yield each image, or some windows at a time of a large one; see `pieces_of_process`."""
    for task in tasks:
        count = windows_of(task)
        if count == 1:
            yield task, None
            continue
        for start in range(0, count, WINDOWS_TOGETHER):
            yield task, range(start, min(start + WINDOWS_TOGETHER, count))


def done_by_workers(
    pool: Executor,
    segment: Callable[[ImageTask, Sequence[int] | None], ImageOutcome | None],
    pieces: Iterable[Piece],
) -> Generator[tuple[str, Callable[[], ImageOutcome | None]], None, None]:
    """Let a pool segment pieces of images; yield the name of the image and what returns the outcome of each piece."""
    names: dict[Future[ImageOutcome | None], str] = {}
    for task, indices in pieces:
        names[pool.submit(segment, task, indices)] = task.name
    try:
        for future in as_completed(names):
            yield names[future], partial(_result, future, names[future])
    finally:
        for future in names:
            future.cancel()


def _result(future: Future[ImageOutcome | None], name: str) -> ImageOutcome | None:
    """Return the result of a task of a pool; errors of dask become errors of SimMAT."""
    try:
        return future.result()
    except Exception as error:
        # a class of dask
        if (
            not isinstance(error, CancelledError)
            and type(error).__name__ != "KilledWorker"
        ):
            raise
        raise DataError(
            f"{name}: the dask scheduler stopped, or the workers that segmented it died, perhaps because they ran out "
            "of memory; run the command again"
        ) from error


def with_absolute_paths(
    files: Sequence[Path] | Mapping[str, Path], out: Path, options: PredictOptions
) -> tuple[Sequence[Path] | Mapping[str, Path], Path, PredictOptions]:
    """Return files, the folder of the results, and options with paths that mean the same on other machines."""
    if isinstance(files, Mapping):
        files = {source: absolute(file) for source, file in files.items()}
    else:
        files = [absolute(file) for file in files]
    paths = {"cache": absolute(options.cache), "prompts": absolute(options.prompts)}
    return files, out.absolute(), options.model_copy(update=paths)


def absolute(value: Any) -> Any:
    """Return a path with its folders; a URL, and what is no path, as it is."""
    if isinstance(value, Path) and not url_of(value):
        return value.absolute()
    return value


@contextmanager
def dask_pool(address: str, out: Path, files: Iterable[Path]) -> Iterator[Executor]:
    """Yield the workers of a dask scheduler at tcp://HOST:PORT, which see the folder of the results and the files.

    Raises:
        ConfigError: there is no such scheduler, or its workers do not see them.
    """
    existing = [file for file in files if file.exists()]
    with dask_client(address) as client, client.get_executor(pure=False) as pool:
        with staged_files(out) as staging:
            check_workers(client, [staging, *existing])
        yield pool


@contextmanager
def dask_client(address: str) -> Iterator[Any]:
    """Yield a client of the dask scheduler at tcp://HOST:PORT, which has a worker, and close it at the end.

    Raises ConfigError if there is no such scheduler.
    """
    if not re.fullmatch(r"tcp://[^/\s]+:\d{1,5}", address):
        raise ConfigError(
            f"--executor takes local or tcp://HOST:PORT of a dask scheduler, got {address!r}"
        )
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
        found: Mapping[str, list[bool]] = client.run(
            _which_exist, [str(path) for path in paths]
        )
    except ImportError as error:
        raise ConfigError(
            f"a dask worker cannot do the work ({error}); install simmat where it runs, with the plugins that are "
            "needed here"
        ) from error
    for index, path in enumerate(paths):
        blind = [worker for worker, seen in found.items() if not seen[index]]
        if blind:
            raise ConfigError(
                f"dask workers {', '.join(blind)} do not see {path}; put it on a disk that all machines share"
            )


def _which_exist(paths: Sequence[str]) -> list[bool]:
    return [Path(path).exists() for path in paths]
