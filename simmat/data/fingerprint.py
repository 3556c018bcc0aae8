"""Digests of what a data set holds: whether it is still the one that something was run on, and what changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample
from simmat.errors import DataError, all_problems
from simmat.files import require_file

_RULE = "content-1:"
"""Start of a fingerprint of contents; one without it is of an earlier version, see `fingerprint_by_size`."""
_THREADS = 4
_NAMED = 3
_NOTED_DIGITS = 16
"""Hexadecimal digits of a digest that a run notes down; the fingerprint is of all 64."""


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


def contents_of(dataset: Dataset, progress: Callable[[int], None] | None = None) -> Contents:
    """Read every file of a data set once, as bytes, and take its digest.

    Args:
        dataset: what to read, all splits of it.
        progress: called with 1 after every file.

    Raises:
        DataError: files cannot be read, all of them at once.
    """
    files = _all_files(dataset)
    digests, problems = file_digests(files.values(), progress)
    if problems:
        raise DataError(all_problems(f"{dataset.root}: files that cannot be read:", problems))
    parts = {"the data card": _sha256(dataset.card.model_dump_json())}
    for sample in dataset.samples:
        parts[f"sample {sample.id!r}"] = _sha256(repr((sample.split, sample.zero_means)))
        parts |= {name: digests[path] for name, path in _files_of(sample)}
        if sample.mask is None and dataset.coco is not None:
            parts[f"annotations of {sample.id!r}"] = _annotations(dataset, sample)
    return Contents(parts, files)


def count_files(dataset: Dataset) -> int:
    """Return how many files `contents_of` reads."""
    return len(set(_all_files(dataset).values()))


def fingerprint_of(dataset: Dataset) -> str:
    """Return the fingerprint of a data set's contents, see `contents_of`.

    Raises:
        DataError: files cannot be read.
    """
    return contents_of(dataset).fingerprint


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
    labels, problems = file_digests(masks)
    if problems:
        raise DataError(all_problems(f"{dataset.root}: files that cannot be read:", problems))
    digest = hashlib.sha256(dataset.card.model_dump_json().encode())
    for sample in dataset.samples:
        files = sorted((name, _size(path)) for name, path in sample.files.items())
        if sample.mask is not None:
            label = labels[sample.mask]
        else:
            label = "" if dataset.coco is None else _annotations(dataset, sample)
        digest.update(repr((sample.id, sample.split, files, sample.zero_means, label)).encode())
    return digest.hexdigest()


def file_digests(
    paths: Iterable[Path], progress: Callable[[int], None] | None = None
) -> tuple[dict[Path, str], list[str]]:
    """Take the sha256 of files, each once, several at a time; no file is held in memory.

    Args:
        paths: the files.
        progress: called with 1 after every file.

    Returns:
        File -> sha256; and sentences on those that cannot be read, which are left out.
    """
    distinct = list(dict.fromkeys(paths))
    digests: dict[Path, str] = {}
    problems: list[str] = []
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for path, found in zip(distinct, pool.map(_digest, distinct), strict=True):
            if isinstance(found, DataError):
                problems.append(str(found))
            else:
                digests[path] = found
            if progress is not None:
                progress(1)
    return digests, problems


def _all_files(dataset: Dataset) -> dict[str, Path]:
    return {name: path for sample in dataset.samples for name, path in _files_of(sample)}


def _files_of(sample: Sample) -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of each file of a sample."""
    for source, path in sample.files.items():
        yield f"image {sample.id!r} ({source})", path
    if sample.mask is not None:
        yield f"mask of {sample.id!r}", sample.mask


def _digest(path: Path) -> str | DataError:
    try:
        require_file(path, "image or mask", hint="put it back, or take its sample out")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return _unreadable(path, error)
    except DataError as error:
        return error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read: {error.strerror}; repair the file or link, or remove it")


def _annotations(dataset: Dataset, sample: Sample) -> str:
    assert dataset.coco is not None
    image = dataset.coco.images[sample.id]
    return _sha256(json.dumps((image.size_hw, image.annotations), sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
