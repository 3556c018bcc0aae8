"""Digests of a data set's files, to detect and name what changed since a run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample
from simmat.errors import DataError, all_problems, few_of
from simmat.io.files import require_file

_RULE = "content-1:"
"""Prefix of a fingerprint: how it is computed."""
_SETTLED_NS = 2 * 10**9
"""Age from which the time of a change is trusted: the coarsest file system clock has steps of 2 s."""
_MAX_NAMED = 3
"""Most parts or images that a message lists."""
_NOTED_DIGITS = 16
"""Hexadecimal digits of a digest in the notes of a run; the fingerprint uses all 64."""

Bytes = npt.NDArray[np.uint8]
Times = tuple[int, int, int]
"""Size of a file in bytes; mtime and ctime in ns. Programs can set the mtime, but not the ctime."""


def files_of(path: str) -> tuple[Path, ...]:
    """Return the files that belong to one name: of a shapefile the .shp and what lies beside it, else the file."""
    main = Path(path)
    if main.suffix.lower() != ".shp":
        return (main,)
    endings = (".dbf", ".shx", ".prj", ".cpg")  # what decides what it says
    beside = (main.with_suffix(ending) for known in endings for ending in (known, known.upper()))
    return (main, *(file for file in beside if file.exists()))


@dataclass(frozen=True)
class FileState:
    """The times of a file when it was read, and the sha256 of its content; of a shapefile with the files beside it.

    An mtime so recent that a later change could have the same is -1.
    """

    times: Times
    sha256: bytes


def read_file(path: str) -> FileState:
    """Return the state of a file, which is read once; DataError if it cannot be read."""
    require_file(Path(path), "image or mask", hint="restore it, or remove its sample")
    try:
        size, mtime, ctime = _times(path)
        digest = hashlib.sha256()
        for file in files_of(path):
            require_file(file)
            with file.open("rb") as stream:
                while block := stream.read(2**20):
                    digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; repair the file or link, or remove it") from None
    # A file written again within one step of the file system's clock would have the same mtime.
    return FileState((size, mtime if time.time_ns() - mtime > _SETTLED_NS else -1, ctime), digest.digest())


def read_files(paths: Iterable[str]) -> dict[str, FileState | DataError]:
    """Return what `read_file` returns or raises for each path; each file is read once, several in parallel."""

    def read(group: Sequence[str]) -> list[FileState | DataError]:
        found: list[FileState | DataError] = []
        for path in group:
            try:
                found.append(read_file(path))
            except DataError as error:
                found.append(error)
        return found

    distinct = list(dict.fromkeys(paths))
    groups = [distinct[start : start + 64] for start in range(0, len(distinct), 64)]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(distinct, chain.from_iterable(pool.map(read, groups)), strict=True))


def file_times(paths: Iterable[str]) -> npt.NDArray[np.int64]:
    """Return (F, 3) the current `Times` of F files, without opening them; -2 for a missing file."""

    def numbers() -> Iterator[int]:
        for path in paths:
            try:
                yield from _times(path)
            except (OSError, ValueError):
                yield from (-2, -2, -2)

    return np.fromiter(numbers(), np.int64).reshape(-1, 3)


def _times(path: str) -> Times:
    """Return the times of a file; of a shapefile and the files beside it the sum of the sizes and the latest times."""
    found = [os.stat(file) for file in (files_of(path) if path.lower().endswith(".shp") else (path,))]
    return (
        sum(status.st_size for status in found),
        max(status.st_mtime_ns for status in found),
        max(status.st_ctime_ns for status in found),
    )


@dataclass(frozen=True)
class Contents:
    """Digests of the parts of a data set: the card, and the split, images and labels of each sample.

    Attributes:
        digests: (S, P, 32) the sha256 of the P files of each of its S samples.
    """

    dataset: Dataset
    digests: Bytes = field(repr=False)

    @classmethod
    def of(cls, dataset: Dataset, digests: Bytes, known: npt.NDArray[np.bool_]) -> Contents:
        """Make the contents; files without a `known` (S,) digest are read. DataError lists all problems."""
        unknown = np.flatnonzero(~known).tolist()
        found = read_files(path for row in unknown for path in dataset.samples[row].paths)
        if problems := [str(file) for file in found.values() if isinstance(file, DataError)]:
            raise DataError(all_problems(f"{dataset.root}: files that cannot be read:", problems))
        states = {path: file.sha256 for path, file in found.items() if isinstance(file, FileState)}
        digests = digests.copy()
        for row in unknown:
            digests[row] = [list(states[path]) for path in dataset.samples[row].paths]
        return cls(dataset, digests)

    @cached_property
    def fingerprint(self) -> str:
        """One digest of all parts; it does not change when the folder is moved."""
        digest = hashlib.sha256(b"[")
        for number, part in enumerate(self._parts()):
            digest.update((", " * (number > 0) + json.dumps(part)).encode())
        digest.update(b"]")
        return _RULE + digest.hexdigest()

    def reference_digests(self, samples: Iterable[Sample]) -> Bytes:
        """Return (N, 32) the sha256 of the reference files of some samples of the data set."""
        rows = {sample.id: row for row, sample in enumerate(self.dataset.samples)}
        return self.digests[[rows[sample.id] for sample in samples], 0]

    def notes(self) -> dict[str, object]:
        """Return json values that a run stores for `changes_since`."""
        return {"format": 1, "fingerprint": self.fingerprint, "parts": self._noted()}

    def changes_since(self, notes: object, fingerprint: str) -> str:
        """Describe what changed since a run: how many parts, and the first; "" if the notes are not of that run."""
        if not isinstance(notes, dict) or notes.get("fingerprint") != fingerprint:
            return ""
        then, now = notes.get("parts"), self._noted()
        if not isinstance(then, dict):
            return ""
        files = {name: path for sample in self.dataset.samples for name, path in _files_of(sample)}
        labels = {name: f"{name}, {files[name]}" if name in files else name for name in now}
        changed = [labels[name] for name, digest in now.items() if name in then and then[name] != digest]
        new = [f"{labels[name]} (new)" for name in now if name not in then]
        gone = [f"{name} (gone)" for name in then if name not in now]
        differ = [*changed, *gone, *new]
        if not differ:
            return "the order of the samples differs"
        count = "1 part of it differs" if len(differ) == 1 else f"{len(differ)} parts of it differ"
        return f"{count}: {few_of(differ, _MAX_NAMED)}"

    def shared_warning(self) -> str:
        """Return a warning that lists images in two splits; "" if there are none."""
        found = shared_images(self.dataset.samples, (row[0].tobytes() for row in self.digests))
        if not found:
            return ""
        more = f"; and {len(found) - _MAX_NAMED} more, see `simmat data check`" if len(found) > _MAX_NAMED else ""
        return (
            f"Warning: {len(found)} image{'s' * (len(found) > 1)} of {self.dataset.root} in two splits, so that scores "
            "include images used in training or model selection; keep each in one: "
            f"{'; '.join(found[:_MAX_NAMED])}{more}"
        )

    def _parts(self) -> Iterator[tuple[str, str]]:
        """Yield a name for messages and the sha256 of each part, in the order of the samples."""
        place = cache(lambda split, zero_means: _sha256(repr((split, zero_means))))
        yield "the data card", _sha256(self.dataset.card.stated_json())
        for sample, row in zip(self.dataset.samples, self.digests, strict=True):
            yield f"sample {sample.id!r}", place(sample.split, sample.zero_means)
            for (name, _), digest in zip(_files_of(sample), row, strict=True):
                yield name, digest.tobytes().hex()
            if labels := annotations_digest(self.dataset, sample):
                yield f"annotations of {sample.id!r}", labels

    def _noted(self) -> dict[str, str]:
        return {name: digest[:_NOTED_DIGITS] for name, digest in self._parts()}


def annotations_digest(dataset: Dataset, sample: Sample) -> str:
    """Return the sha256 of a sample's COCO annotations; "" if it has a mask."""
    if dataset.coco is None or sample.has_mask:
        return ""
    image = dataset.coco.images[sample.image_id]
    return _sha256(json.dumps((image.size_hw, image.annotations), sort_keys=True))


def shared_images(samples: Sequence[Sample], digests: Iterable[bytes | None]) -> list[str]:
    """Describe each sample that has the same image, by path or content, as an earlier sample of another split.

    `digests` are the sha256 of the reference files; None skips a sample.
    """
    found: list[str] = []
    first: dict[bytes, Sample] = {}
    for sample, digest in zip(samples, digests, strict=True):
        if digest is None or (other := first.setdefault(digest, sample)).split == sample.split:
            continue
        if sample.window is None or other.paths[0] != sample.paths[0]:  # else blocks of one image
            found.append(
                f"the same image is in {other.split} ({other.id!r}, {other.reference.name}) and in {sample.split} "
                f"({sample.id!r}, {sample.reference.name})"
            )
    return found


def _files_of(sample: Sample) -> Iterator[tuple[str, str]]:
    """Yield the name for messages and the path of each file of a sample."""
    for source, path in zip(sample.sources, sample.paths, strict=False):
        yield f"image {sample.id!r} ({source})", path
    if sample.has_mask:
        yield f"mask of {sample.id!r}", sample.paths[-1]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
