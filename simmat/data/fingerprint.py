"""What tells whether a data set is still the one that something was run on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample
from simmat.errors import DataError


def fingerprint_of(dataset: Dataset) -> str:
    """Return a sha256 of a data set without reading its images: the card, ids, splits, sizes of images, labels.

    Raises:
        DataError: an image is not there, or a label image cannot be read.
    """
    digest = hashlib.sha256(dataset.card.model_dump_json().encode())
    for sample in dataset.samples:
        files = sorted((name, _size(path)) for name, path in sample.files.items())
        digest.update(repr((sample.id, sample.split, files, sample.zero_means, _labels(dataset, sample))).encode())
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read: {error.strerror}; mend the file or link, or remove it")


def _labels(dataset: Dataset, sample: Sample) -> str:
    if sample.mask is not None:
        try:
            with sample.mask.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(sample.mask, error) from error
    if dataset.coco is None:
        return ""
    image = dataset.coco.images[sample.id]
    return hashlib.sha256(json.dumps((image.size_hw, image.annotations), sort_keys=True).encode()).hexdigest()
