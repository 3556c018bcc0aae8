"""The samples of a data set, and the rule that splits them if the data set has no splits."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from simmat.errors import DataError, all_problems
from simmat.types import Window, ZeroMeans

MASK_EXTENSIONS = (".png", ".tif", ".tiff", ".npy", ".bmp")
"""File endings of label images."""

VECTOR_EXTENSIONS = (".gpkg", ".geojson", ".shp")
"""File endings of polygons in map coordinates, which are masks too."""

ALLOWED_MASKS = ", ".join((*MASK_EXTENSIONS, *VECTOR_EXTENSIONS))
"""The endings of masks, for messages."""

JPEG_EXTENSIONS = (".jpg", ".jpeg")

SPLITS = ("train", "val", "test")
"""The names of the splits."""

OTHER_SPLIT_NAMES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
    "eval": "test",
}
"""Other common names of splits, for hints."""


def split_meant(name: str) -> str | None:
    """Return the split that a folder name means if it is not exactly the split's name, else None."""
    plain = name.lower()
    return None if name in SPLITS else plain if plain in SPLITS else OTHER_SPLIT_NAMES.get(plain)


EVAL_SHARE = 0.15
"""Fraction of the images for each of val and test if the data set names no split."""

_NO_EXTRA: Mapping[str, str] = {}


class Sample(NamedTuple):
    """The files of one image and its ground truth. Paths are text, as a data set may have a million of them.

    Attributes:
        id: unique within the data set.
        split: "train", "val" or "test"; "" until it is decided.
        sources: names of the adapter's sources, the reference first.
        paths: the file of each source, then the mask if there is one.
        extra: other columns of `manifest.csv`, column -> text.
        zero_means: meaning of label value 0 in this sample, if its row overrides the data card.
        window: the part of the image that the sample is; None for all of it. A train sample with a window is a block,
            of which each step takes another crop.
    """

    id: str
    split: str
    sources: tuple[str, ...]
    paths: tuple[str, ...]
    extra: Mapping[str, str] = _NO_EXTRA
    zero_means: ZeroMeans | None = None
    window: Window | None = None

    @classmethod
    def of(cls, id: str, split: str, files: Mapping[str, Path], mask: Path | None) -> Sample:
        """Make a sample from files (source name -> file) and a mask."""
        return cls(id, split, tuple(files), tuple(map(str, (*files.values(), *([mask] if mask else ())))))

    def within(self, window: Window) -> Sample:
        """Return a part of the image as a sample; its id ends with the row and column of its first pixel."""
        return self._replace(id=f"{self.image_id}@{window.y0},{window.x0}", window=window)

    @property
    def image_id(self) -> str:
        """The id of the whole image."""
        return self.id if self.window is None else self.id.rpartition("@")[0]

    @property
    def files(self) -> dict[str, Path]:
        """Source name -> file, the reference first."""
        return {source: Path(path) for source, path in zip(self.sources, self.paths, strict=False)}

    @property
    def mask(self) -> Path | None:
        """Label image or polygons; None if the labels are in a COCO file or missing."""
        return Path(self.paths[-1]) if self.has_mask else None

    @property
    def has_mask(self) -> bool:
        """True if the sample has a label image or polygons."""
        return len(self.paths) > len(self.sources)

    @property
    def has_polygons(self) -> bool:
        """True if the mask is a file of polygons."""
        return self.has_mask and self.paths[-1].lower().endswith(VECTOR_EXTENSIONS)

    @property
    def images(self) -> tuple[str, ...]:
        """The file of each source, as text."""
        return self.paths[: len(self.sources)]

    @property
    def reference(self) -> Path:
        """The file of the reference source, whose pixel grid is the original image."""
        return Path(self.paths[0])


def start_of_paths(folder: Path) -> str:
    """Return the prefix of the paths of all files in a folder, as `Path` writes them."""
    return "" if folder == Path() else os.path.join(folder, "")


def evenly_spaced(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """Return at most `count` samples, spread evenly."""
    count = min(count, len(samples))
    return tuple(samples[index * len(samples) // count] for index in range(count))


def id_digest(text: str) -> bytes:
    """Return the sha256 of an id; bytes of file names that are not UTF-8 are kept."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def decide_splits(root: Path, samples: Sequence[Sample], said_by: str) -> tuple[tuple[Sample, ...], str, bool]:
    """Complete the splits by the hash of the ids.

    Without any split, about 15 % of the images go to val, 15 % to test and the rest to train. With a train split and no
    val, 15 % of train become val. Samples with the same reference file, or block of it, stay together.

    Args:
        samples: labelled images or blocks of images, all with a split or all without.
        said_by: where the splits are named, for messages ("manifest.csv", "the folders of images/").

    Returns:
        The samples, in their order; a sentence for the user on where the splits come from; and whether any was chosen.

    Raises:
        DataError: an image is in two splits.
    """
    first: dict[str, Sample] = {}
    if shared := [
        f"{sample.reference.name} is in {other.split} ({other.id!r}) and in {sample.split} ({sample.id!r})"
        for sample in samples
        if (other := first.setdefault(sample.paths[0], sample)).split != sample.split
    ]:
        title = f"{root}: images in two splits, so that scores would include training images; keep each in one:"
        raise DataError(all_problems(title, shared))
    named = {sample.split for sample in samples if sample.split}
    if named and ("train" not in named or "val" in named):
        return tuple(samples), f"The splits are those of {said_by} in {root}.", False
    parts = ("val",) if named else ("val", "test")
    ids: dict[tuple[str, Window | None], str] = {}
    for sample in samples:
        if sample.split in ("", "train"):
            place = sample.paths[0], sample.window
            ids[place] = min(ids.get(place, sample.id), sample.id)
    splits = _splits_by_hash(ids.values(), parts)
    chosen = {place: splits[id] for place, id in ids.items()}
    found = Counter(chosen.values())
    counts = ", ".join(f"{found[split]} {split}" for split in ("train", *parts))
    what = "blocks" if any(sample.window for sample in samples) else "images"
    lacking = f"{said_by} of {root} names no val split" if named else f"No split is named in {root}"
    note = f"{lacking}: by the hash of the ids, {counts} of {len(chosen)} {what}."
    listed = (
        Sample(sample.id, split, *sample[2:]) if (split := chosen.get((sample.paths[0], sample.window))) else sample
        for sample in samples
    )
    return tuple(listed), note, True


def _splits_by_hash(ids: Iterable[str], parts: Sequence[str]) -> dict[str, str]:
    """Return the split of each id: of the first part where its hash, from 0 to 1, is below 0.15, and so on.

    A part of which no id is gets the next one. So images that are added later move none from train to val or test.
    """
    hashes = sorted((int.from_bytes(id_digest(id)[:8]) / 2**64, id) for id in ids)
    splits = {id: "train" for _, id in hashes}
    if len(hashes) <= len(parts):
        return splits
    start = 0
    for number, part in enumerate(parts, start=1):
        stop = max(bisect_left(hashes, (number * EVAL_SHARE, "")), start + 1)
        stop = min(stop, len(hashes) - 1 - (len(parts) - number))  # leave one for each other split
        splits |= {id: part for _, id in hashes[start:stop]}
        start = stop
    return splits
