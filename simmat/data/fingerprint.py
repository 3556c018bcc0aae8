"""Digests of what a data set holds: whether it is still the one that something was run on, and what changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample
from simmat.errors import DataError, all_problems
from simmat.io.files import require_file

_RULE = "content-1:"
"""Start of a fingerprint of contents; one without it is of an earlier version, see `fingerprint_by_size`."""
_THREADS = 4
_SETTLED_NS = 2 * 10**9
"""Age of a change from which on its time is trusted: the coarsest clock of a file system has steps of 2 s."""
_NAMED = 3
_NOTED_DIGITS = 16
"""Hexadecimal digits of a digest that a run notes down; the fingerprint is of all 64."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells that a file is still the one that was read.

    Attributes:
        size: in bytes.
        mtime_ns: when its content was changed; -1 where it was so fresh that another change could have the same time.
        ctime_ns: when it was last touched in any way, which no program sets at will.
        digest: sha256 of its content.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes

    def holds(self, path: Path) -> bool:
        """Return whether a file is untouched since, without opening it."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return False
        return (found.st_size, found.st_mtime_ns, found.st_ctime_ns) == (self.size, self.mtime_ns, self.ctime_ns)


@dataclass(frozen=True)
class Contents:
    """What a data set holds, part by part.

    Attributes:
        parts: the card, and of each sample its place, labels and images: name for messages -> sha256, in the order of
            the samples.
        files: name -> file, of the parts that are one.
    """

    parts: Mapping[str, str]
    files: Mapping[str, Path]

    @cached_property
    def fingerprint(self) -> str:
        """One digest of all parts; equal for a set that was moved."""
        return _RULE + hashlib.sha256(json.dumps(list(self.parts.items())).encode()).hexdigest()

    @cached_property
    def by_file(self) -> dict[Path, str]:
        """File -> sha256."""
        return {path: self.parts[name] for name, path in self.files.items()}

    def notes(self) -> dict[str, object]:
        """Return what a run writes down to name later what changed, as json values; see `changes_since`."""
        parts = {name: digest[:_NOTED_DIGITS] for name, digest in self.parts.items()}
        return {"format": 1, "fingerprint": self.fingerprint, "parts": parts}

    def changes_since(self, notes: object, fingerprint: str) -> str:
        """Say what differs from what a run wrote down: how many parts, and the first of them.

        Args:
            notes: what `notes` gave then.
            fingerprint: of the run.

        Returns:
            Words for a message; "" where the notes are not of that run, or cannot be read.
        """
        if not isinstance(notes, dict) or notes.get("fingerprint") != fingerprint:
            return ""
        then, now = notes.get("parts"), {name: digest[:_NOTED_DIGITS] for name, digest in self.parts.items()}
        if not isinstance(then, dict):
            return ""
        changed = [self._said(name) for name, digest in now.items() if name in then and then[name] != digest]
        new = [f"{self._said(name)} (new)" for name in now if name not in then]
        gone = [f"{name} (gone)" for name in then if name not in now]
        differ = [*changed, *gone, *new]
        if not differ:
            return "the order of the samples differs"
        more = f" and {len(differ) - _NAMED} more" if len(differ) > _NAMED else ""
        count = "1 part of it differs" if len(differ) == 1 else f"{len(differ)} parts of it differ"
        return f"{count}: {', '.join(differ[:_NAMED])}{more}"

    def _said(self, name: str) -> str:
        return f"{name}, {self.files[name]}" if name in self.files else name


def contents_from(dataset: Dataset, known: Mapping[Path, FileState]) -> Contents:
    """Take the digest of every file of a data set; those that did not change since `known` are not read.

    Args:
        dataset: all splits of it.
        known: what is known of files.

    Raises:
        DataError: files cannot be read, all of them at once.
    """
    files = {name: path for sample in dataset.samples for name, path in _files_of(sample)}
    states, problems = file_states(files.values(), known)
    if problems:
        raise DataError(all_problems(f"{dataset.root}: files that cannot be read:", list(problems.values())))
    parts = {"the data card": _sha256(dataset.card.model_dump_json())}
    for sample in dataset.samples:
        parts[f"sample {sample.id!r}"] = _sha256(repr((sample.split, sample.zero_means)))
        parts |= {name: states[path].digest.hex() for name, path in _files_of(sample)}
        if sample.mask is None and dataset.coco is not None:
            parts[f"annotations of {sample.id!r}"] = annotations_digest(dataset, sample)
    return Contents(parts, files)


def is_same(begun: str, dataset: Dataset, contents: Contents) -> bool:
    """Return whether a data set is the one of a fingerprint, by the rule that fingerprint was made by.

    Args:
        begun: fingerprint that a run or a result wrote down.
        dataset: as it is now.
        contents: of it.

    Raises:
        DataError: a label image cannot be read.
    """
    return begun == (contents.fingerprint if begun.startswith(_RULE) else fingerprint_by_size(dataset))


def fingerprint_by_size(dataset: Dataset) -> str:
    """Return the fingerprint that earlier versions wrote: of images only the sizes in bytes.

    Raises:
        DataError: an image is not there, or a label image cannot be read.
    """
    masks = (sample.mask for sample in dataset.samples if sample.mask is not None)
    labels, problems = file_states(masks, {})
    if problems:
        raise DataError(all_problems(f"{dataset.root}: files that cannot be read:", list(problems.values())))
    digest = hashlib.sha256(dataset.card.model_dump_json().encode())
    for sample in dataset.samples:
        files = sorted((name, _size(path)) for name, path in sample.files.items())
        if sample.mask is not None:
            label = labels[sample.mask].digest.hex()
        else:
            label = "" if dataset.coco is None else annotations_digest(dataset, sample)
        digest.update(repr((sample.id, sample.split, files, sample.zero_means, label)).encode())
    return digest.hexdigest()


def file_states(
    paths: Iterable[Path], known: Mapping[Path, FileState]
) -> tuple[dict[Path, FileState], dict[Path, str]]:
    """Take the sha256 of files, each once, several at a time; no file is held in memory.

    Args:
        paths: the files.
        known: what is known of some; where a file is as it was then, it is not read.

    Returns:
        File -> state; and file -> why it cannot be read.
    """
    distinct = dict.fromkeys(paths)
    states = {path: state for path in distinct if (state := known.get(path)) and state.holds(path)}
    problems: dict[Path, str] = {}
    rest = [path for path in distinct if path not in states]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for path, found in zip(rest, pool.map(_state, rest), strict=True):
            if isinstance(found, DataError):
                problems[path] = str(found)
            else:
                states[path] = found
    return states, problems


def read_state(path: Path) -> FileState:
    """Read a file once, as bytes.

    Raises:
        DataError: it cannot be read.
    """
    require_file(path, "image or mask", hint="put it back, or take its sample out")
    try:
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error) from None
    # What is written again within a step of the file system's clock would look the same.
    settled = time.time_ns() - found.st_mtime_ns > _SETTLED_NS
    return FileState(found.st_size, found.st_mtime_ns if settled else -1, found.st_ctime_ns, digest)


def _files_of(sample: Sample) -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of each file of a sample."""
    for source, path in sample.files.items():
        yield f"image {sample.id!r} ({source})", path
    if sample.mask is not None:
        yield f"mask of {sample.id!r}", sample.mask


def _state(path: Path) -> FileState | DataError:
    try:
        return read_state(path)
    except DataError as error:
        return error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read: {error.strerror}; repair the file or link, or remove it")


def annotations_digest(dataset: Dataset, sample: Sample) -> str:
    """Return the sha256 of a sample's COCO annotations."""
    assert dataset.coco is not None
    image = dataset.coco.images[sample.id]
    return _sha256(json.dumps((image.size_hw, image.annotations), sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def shared_images(samples: Sequence[Sample], digests: Mapping[Path, object]) -> list[str]:
    """Name the images that stand in two splits, by path or by content.

    Args:
        samples: of a data set, all splits.
        digests: file -> sha256; a sample whose reference file is not there is left out.

    Returns:
        A sentence for each image that stands in another split than the first one equal to it.
    """
    first: dict[object, Sample] = {}
    found = []
    for sample in samples:
        if (digest := digests.get(sample.reference)) is None:
            continue
        other = first.setdefault(digest, sample)
        if other.split != sample.split:
            found.append(
                f"the same image is in {other.split} ({other.id!r}, {other.reference.name}) and in {sample.split} "
                f"({sample.id!r}, {sample.reference.name})"
            )
    return found


def shared_warning(root: Path, samples: Sequence[Sample], digests: Mapping[Path, object]) -> str:
    """Return one warning for what `shared_images` finds in the data set in `root`; "" where that is nothing."""
    found = shared_images(samples, digests)
    if not found:
        return ""
    more = f"; and {len(found) - _NAMED} more, see `simmat data check`" if len(found) > _NAMED else ""
    count = "1 image" if len(found) == 1 else f"{len(found)} images"
    return (
        f"Warning: {count} of {root} in two splits, so that scores are of images that were trained or chosen on; keep "
        f"each in one: {'; '.join(found[:_NAMED])}{more}"
    )
