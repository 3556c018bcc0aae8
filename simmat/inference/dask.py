"""The workers of a dask scheduler, which see the same files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simmat.errors import ConfigError
from simmat.inference.request import PredictOptions
from simmat.io.files import staged_files, url_of

_CONNECT_SECONDS = 10
_WORKER_SECONDS = 60
"""How long to wait for the first worker of a scheduler."""


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
