"""Segment the images of a call on the workers of a dask scheduler, which see the same files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.errors import ConfigError
from simmat.inference.find import answer_windows
from simmat.inference.images import ImageTask
from simmat.inference.outcome import ImageOutcome, Progress
from simmat.inference.request import PredictOptions, Request
from simmat.inference.run import ImageRun, segment_image
from simmat.inference.writer import Writer
from simmat.io.files import staged_files
from simmat.io.reading import url_of

if TYPE_CHECKING:
    from simmat.nn.device import Processes
    from simmat.predictor import Predictor

_CONNECT_SECONDS = 10
_WORKER_SECONDS = 60
"""How long to wait for the first worker of a scheduler."""


def run_on_dask(run: ImageRun, processes: Processes, address: str, load: partial[Predictor]) -> None:
    """Do the images of a call on the workers of a dask scheduler.

    Args:
        run: the images; all paths are absolute, as workers have other working folders.
        processes: this process alone.
        address: tcp://HOST:PORT of the scheduler.
        load: loads the model on a worker.

    Raises:
        ConfigError: there is no such scheduler, or its workers do not see the files.
    """
    arguments = {name: _absolute(value) for name, value in load.keywords.items()}
    needed = list(arguments.values())
    if run.tasks:
        needed += run.tasks[0].files.values()
    paths = [path for path in needed if isinstance(path, Path) and path.exists()]
    out = run.writer.out
    with dask_client(address) as client, client.get_executor(pure=False) as pool:
        with staged_files(out) as staging:
            check_workers(client, [staging, *paths])
        load_there = partial(load.func, **arguments)
        segment = partial(_segment_on_worker, load_there, run.predictor.digest, run.request, out)
        run.run(processes, pool, segment)


def with_absolute_paths(
    files: Sequence[Path] | Mapping[str, Path], out: Path, options: PredictOptions
) -> tuple[Sequence[Path] | Mapping[str, Path], Path, PredictOptions]:
    """Return files, the folder of the results, and options with paths that mean the same on other machines."""
    if isinstance(files, Mapping):
        files = {source: _absolute(file) for source, file in files.items()}
    else:
        files = [_absolute(file) for file in files]
    paths = {"cache": _absolute(options.cache), "prompts": _absolute(options.prompts)}
    return files, out.absolute(), options.model_copy(update=paths)


def _absolute(value: Any) -> Any:
    """Return a path with its folders; a URL, and what is no path, as it is."""
    if isinstance(value, Path) and not url_of(value):
        return value.absolute()
    return value


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
        blind = [worker for worker, seen in found.items() if not seen[index]]
        if blind:
            raise ConfigError(
                f"dask workers {', '.join(blind)} do not see {path}; put it on a disk that all machines share"
            )


def _which_exist(paths: Sequence[str]) -> list[bool]:
    return [Path(path).exists() for path in paths]


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
