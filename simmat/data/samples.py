"""The samples of a data set, and the rule that splits them if the data set has no splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

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


SHARE = 0.15
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


@dataclass(frozen=True)
class Listing:
    """The samples of a folder.

    Attributes:
        samples: in the order of the manifest, or sorted by id; each has a split.
        split_note: a sentence for the user on where the splits come from.
        unlabelled: images without a mask, which are not used.
        by_hash: True if a split was chosen by the hash of the ids.
    """

    samples: tuple[Sample, ...]
    split_note: str
    unlabelled: tuple[Sample, ...] = ()
    by_hash: bool = False


class Divider(Protocol):
    """Divides images into blocks that are split instead of the images, see `simmat.data.blocks`."""

    def blocks(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the blocks of some images."""

    def parts(self, block: Sample) -> Sequence[Sample]:
        """Return what a block with a split is used as."""


def spread(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """Return at most `count` samples, spread evenly."""
    count = min(count, len(samples))
    return tuple(samples[index * len(samples) // count] for index in range(count))


def id_digest(text: str) -> bytes:
    """Return the sha256 of an id; bytes of file names that are not UTF-8 are kept."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def decide_splits(
    root: Path, samples: Sequence[Sample], said_by: str, *, masks: bool = True, divider: Divider | None = None
) -> Listing:
    """Complete the splits by the hash of the ids.

    Samples without a mask are set aside first, so that each split has its fraction of the labelled ones. Without any
    split, 15 % of the images go to val, 15 % to test and the rest to train. With a train split and no val, 15 % of
    train become val. Where there are too few images for that, val and test are empty. Samples with the same reference
    file stay together. The order is that of sha256(id), so it needs no seed and does not depend on the order of the
    files.

    Args:
        samples: all with a split or all without.
        said_by: where the splits are named, for messages ("manifest.csv", "the folders of images/").
        masks: the labels are masks, not a COCO file.
        divider: divides the images into blocks, which are split instead.

    Raises:
        DataError: an image is in two splits.
    """
    unlabelled = tuple(sample for sample in samples if masks and not sample.has_mask)
    samples = [sample for sample in samples if not masks or sample.has_mask]
    if shared := list(_shared(samples)):
        raise DataError(
            all_problems(
                f"{root}: images in two splits, so that scores would include training images; keep each in one:", shared
            )
        )
    kind = "images"
    if divider is not None:
        samples = divider.blocks(samples)
        kind = "blocks"
    named = {sample.split for sample in samples if sample.split}
    chosen: dict[_Place, str] = {}
    if not named:
        groups = _groups(samples)
        share = max(round(SHARE * len(groups)), 1) if len(groups) >= 3 else 0
        chosen = dict.fromkeys(groups, "train")
        chosen |= dict.fromkeys(groups[:share], "val") | dict.fromkeys(groups[share : 2 * share], "test")
        note = (
            f"No split is named in {root}: by the hash of the ids, {len(groups) - 2 * share} {kind} are train, "
            f"{share} val and {share} test."
        )
    elif "train" in named and "val" not in named:
        training = _groups([sample for sample in samples if sample.split == "train"])
        share = max(round(SHARE * len(training)), 1) if len(training) >= 2 else 0
        chosen = dict.fromkeys(training[:share], "val")
        note = (
            f"{said_by} of {root} names no val split: by the hash of the ids, {share} of the {len(training)} train "
            f"{kind} are val."
        )
    else:
        note = f"The splits are those of {said_by} in {root}."
    listed = [
        Sample(sample.id, split, *sample[2:])
        if sample.split in ("", "train") and (split := chosen.get(_place(sample)))
        else sample
        for sample in samples
    ]
    if divider is not None:
        listed = [part for block in listed for part in divider.parts(block)]
    return Listing(tuple(listed), note, unlabelled, bool(chosen))


_Place = tuple[str, Window | None]
"""A reference file and the part of it."""


def _place(sample: Sample) -> _Place:
    return sample.paths[0], sample.window


def _shared(samples: Sequence[Sample]) -> Iterator[str]:
    """Describe the reference files that are in two splits."""
    first: dict[str, Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.paths[0], sample)
        if other.split != sample.split:
            yield f"{sample.reference.name} is in {other.split} ({other.id!r}) and in {sample.split} ({sample.id!r})"


def _groups(samples: Sequence[Sample]) -> list[_Place]:
    """Return the reference files or blocks of them, in the order of the hash of their first id."""
    first: dict[_Place, str] = {}
    for sample in samples:
        place = _place(sample)
        if sample.id < first.setdefault(place, sample.id):
            first[place] = sample.id
    return sorted(first, key=lambda place: id_digest(first[place]))
