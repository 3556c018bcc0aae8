"""Digests of a data set's files, to detect and name what changed since a run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample, start_of_paths
from simmat.errors import DataError, all_problems, few_of
from simmat.io.files import frame_of, require_file

_MAX_NAMED = 3
"""Most parts or images that a message lists."""

Bytes = npt.NDArray[np.uint8]


def files_of(path: str) -> tuple[Path, ...]:
    """Return the files that belong to one name: of a shapefile the .shp and what lies beside it, of a frame its file.

    A frame of a folder, such as a DICOM series, has all files of the folder.
    """
    main = Path(path)
    frame = frame_of(main)
    if frame is not None:
        if frame.file.is_file():
            return (frame.file,)
        return _files_in(frame.file, frame.file.stat().st_mtime_ns)
    if main.suffix.lower() != ".shp":
        return (main,)
    endings = (".dbf", ".shx", ".prj", ".cpg")  # what decides what it says
    beside = (main.with_suffix(ending) for known in endings for ending in (known, known.upper()))
    return (main, *(file for file in beside if file.exists()))


@lru_cache(maxsize=8)  # each frame of a folder asks for all files
def _files_in(folder: Path, _changed_ns: int) -> tuple[Path, ...]:
    return tuple(sorted(filter(Path.is_file, folder.iterdir())))


def file_times(paths: Iterable[str]) -> npt.NDArray[np.int64]:
    """Return (F, 3) size, mtime and ctime in ns of F files, without opening them; -1 for a missing file.

    For a shapefile with the files beside it, or a folder of frames, these are the sum of the sizes and the latest
    times. Programs can set the mtime, but not the ctime.
    """

    @lru_cache(maxsize=8)
    def times(files: tuple[Path | str, ...]) -> tuple[int, int, int]:
        found = []
        for status in map(os.stat, files):
            found.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        sizes, modified, changed = zip(*found, strict=True)
        return sum(sizes), max(modified), max(changed)

    def times_of(path: str) -> tuple[int, int, int]:
        several = path[-1:].isdigit() or path.lower().endswith(".shp")  # a frame or a shapefile
        try:
            return times(files_of(path) if several else (path,))
        except (OSError, ValueError):
            return -1, -1, -1

    return np.fromiter(chain.from_iterable(map(times_of, paths)), np.int64).reshape(-1, 3)


def file_digest(files: tuple[Path, ...]) -> bytes:
    """Return the sha256 of the `files_of` a name; raise DataError if they cannot be read."""
    digest = hashlib.sha256()
    try:
        for file in files:
            require_file(file, "image or mask", hint="restore it, or remove its sample")
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}; repair the file or link, or remove it") from None
    return digest.digest()


@dataclass(frozen=True)
class DatasetDigest:
    """Digests of the parts of a data set: the card, and the split, images and labels of each sample.

    Attributes:
        digests: (S, P, 32) the sha256 of the P files of each of its S samples.
    """

    dataset: Dataset
    digests: Bytes = field(repr=False)

    @classmethod
    def of(cls, dataset: Dataset, known: Bytes, rows: npt.NDArray[np.int64]) -> DatasetDigest:
        """Make the digests of a data set from those that are known; DataError lists all files that cannot be read.

        Args:
            known: (N, P, 32), at least one.
            rows: (S,) the row of each sample in `known`; -1 for none, whose files are then read.
        """
        problems: list[str] = []

        def read(files: tuple[Path, ...]) -> list[int]:
            try:
                return list(file_digest(files))
            except DataError as error:
                problems.append(str(error))
                return [0] * 32

        unknown = np.flatnonzero(rows < 0).tolist()
        digests = known[rows]
        names = {path: files_of(path) for row in unknown for path in dataset.samples[row].paths}
        every = list(dict.fromkeys(names.values()))  # frames share a file
        with ThreadPoolExecutor(4) as pool:
            found = dict(zip(every, pool.map(read, every), strict=True))
        if problems:
            raise DataError(all_problems(f"{dataset.root}: files that cannot be read:", sorted(problems)))
        for row in unknown:
            digests[row] = [found[names[path]] for path in dataset.samples[row].paths]
        return cls(dataset, digests)

    @cached_property
    def fingerprint(self) -> str:
        """One digest of all parts; it does not change when the folder is moved."""
        digest = hashlib.sha256()
        for part in self._parts():
            digest.update(json.dumps(part).encode())
        return f"content-2:{digest.hexdigest()}"

    def reference_digests(self, samples: Iterable[Sample]) -> Bytes:
        """Return (N, 32) the sha256 of the reference files of some samples of the data set."""
        rows = {sample.id: row for row, sample in enumerate(self.dataset.samples)}
        return self.digests[[rows[sample.id] for sample in samples], 0]

    def notes(self) -> dict[str, object]:
        """Return json values that a run stores for `changes_since`."""
        return {"format": 1, "fingerprint": self.fingerprint, "parts": dict(self._parts())}

    def changes_since(self, notes: object, fingerprint: str) -> str:
        """Describe what changed since a run: how many parts, and the first; "" if the notes are of another."""
        if isinstance(notes, dict) and notes.get("fingerprint") == fingerprint:
            then = notes.get("parts")
        else:
            then = None
        if not isinstance(then, dict):
            return ""
        now = dict(self._parts())
        changed = [name for name in {**now, **then} if now.get(name) != then.get(name)]
        if not changed:
            return "the order of the samples differs"
        return f"{len(changed)} part{'s' * (len(changed) > 1)} changed: {few_of(changed, _MAX_NAMED)}"

    def shared_warning(self) -> str:
        """Return a warning that lists images in two splits; "" if there are none."""
        found = shared_images(self.dataset.samples, (row[0].tobytes() for row in self.digests))
        if not found:
            return ""
        return (
            f"Warning: {len(found)} image{'s' * (len(found) > 1)} of {self.dataset.root} in two splits, so that scores "
            "include images used in training or model selection; keep each in one (`simmat data check` lists all): "
            f"{few_of(found, _MAX_NAMED)}"
        )

    def _parts(self) -> Iterator[tuple[str, str]]:
        """Yield a name for messages and the start of the sha256 of each part, in the order of the samples."""
        start = len(start_of_paths(self.dataset.root))
        yield "the data card", _short(self.dataset.card.model_dump_json())
        for sample, row in zip(self.dataset.samples, self.digests, strict=True):
            yield f"sample {sample.id!r}", f"{sample.split} {sample.zero_means}"
            for path, digest in zip(sample.paths, row, strict=True):
                yield f"{path[start:]} of {sample.id!r}", digest.tobytes().hex()[:32]
            labels = annotations_digest(self.dataset, sample)
            if labels:
                yield f"annotations of {sample.id!r}", labels


def annotations_digest(dataset: Dataset, sample: Sample) -> str:
    """Return the start of the sha256 of a sample's COCO annotations; "" if it has a mask."""
    if dataset.coco is None or sample.has_mask:
        return ""
    image = dataset.coco.images[sample.image_id]
    return _short(json.dumps((image.size_hw, image.annotations), sort_keys=True))


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


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
