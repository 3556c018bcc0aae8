"""The samples of a data set, and the rule that splits them if the data set has no splits."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple, TypeVar

from simmat.errors import (
    DataError,
    OutputError,
    all_problems,
    shortened,
)
from simmat.io.files import write_rows
from simmat.io.reading import read_csv_rows
from simmat.types import Window, ZeroMeans

Item = TypeVar("Item")

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
    if name in SPLITS:
        return None
    plain = name.lower()
    if plain in SPLITS:
        return plain
    return OTHER_SPLIT_NAMES.get(plain)


EVAL_SHARE = 0.15
"""Fraction of the images for each of val and test if the data set names no split."""

MIN_HASHED = 100
"""Images of which about that fraction has a hash below it: 8 to 22 of 100, and none with a chance of 1e-7."""

SPLITS_FILE = "splits.csv"
"""Splits that were drawn of fewer images than `MIN_HASHED`."""

_NO_EXTRA: Mapping[str, str] = {}


_MAX_NAME_BYTES = 200
"""Most bytes of a part of an id that names files: file systems allow 255, of which endings take some."""


class Sample(NamedTuple):
    """The files of one image and its ground truth. Paths are text, as a data set may have a million of them.

    Attributes:
        id: unique within the data set.
        split: "train", "val" or "test"; "" until it is decided.
        sources: names of the adapter's sources, the reference first.
        paths: the file of each source, then the mask if there is one.
        extra: other columns of `manifest.csv`, column -> text.
        zero_means: meaning of label value 0 in this sample, if its row overrides the data card.
        window: the part of the image that the sample is; None for all of it. A training sample with a window is a
            block, from which each step takes a new crop.
        sequence: the sequence that the image is a frame of; "" for none.
        frame: its position there; frames are in rising order.
        predicted: True if a model made its labels, see `simmat.data.predicted.mark_predicted`.
    """

    id: str
    split: str
    sources: tuple[str, ...]
    paths: tuple[str, ...]
    extra: Mapping[str, str] = _NO_EXTRA
    zero_means: ZeroMeans | None = None
    window: Window | None = None
    sequence: str = ""
    frame: int = 0
    predicted: bool = False

    def within(self, window: Window) -> Sample:
        """Return a part of the image as a sample; its id ends with the row and column of its first pixel."""
        return self._replace(
            id=f"{self.image_id}@{window.y0},{window.x0}", window=window
        )

    @property
    def image_id(self) -> str:
        """The id of the whole image."""
        if self.window is None:
            return self.id
        return self.id.rpartition("@")[0]

    @property
    def left_out(self) -> bool:
        """True if it is of val or test, and a model made its labels: a score would tell how alike two models are."""
        return self.predicted and self.split in ("val", "test")

    @property
    def files(self) -> dict[str, Path]:
        """Source name -> file, the reference first."""
        return {
            source: Path(path)
            for source, path in zip(self.sources, self.paths, strict=False)
        }

    @property
    def mask(self) -> Path | None:
        """Label image or polygons; None if the labels are in a COCO file or missing."""
        if self.has_mask:
            return Path(self.paths[-1])
        return None

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
    if folder == Path():
        return ""
    return os.path.join(folder, "")


def evenly_spaced(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """Return at most `count` samples, or other items, spread evenly."""
    count = min(count, len(items))
    return tuple(items[index * len(items) // count] for index in range(count))


def name_of_files(id: str) -> str:
    """Return the name, without ending, of the files that are written for an image; its id may be a path."""
    return posixpath.normpath(f"/{id}").strip("/")


def problems_of_file_names(ids: Iterable[str]) -> Iterator[str]:
    """Describe ids that cannot name files, see `name_of_files`, or name files or a folder of another image."""
    id_of_name: dict[str, str] = {}
    for id in ids:
        name = name_of_files(id)
        shown = shortened(repr(id))
        # on Windows also "..\\x" and "C:x"
        leads_out = ".." in Path(id).parts or Path(name).drive
        if not name or "\0" in name or leads_out:
            yield (
                f"{shown}: files are named by the id, which must be a name or a path without '..' and NUL; rename it"
            )
            continue
        if any(part.startswith(".") for part in name.split("/")):
            yield f"{shown}: files are named by the id, and files that begin with a dot are not read; rename it"
            continue
        longest = max(len(part.encode(errors="replace")) for part in name.split("/"))
        if longest > _MAX_NAME_BYTES:
            yield (
                f"{shown}: files are named by the id, whose parts may have at most {_MAX_NAME_BYTES} bytes; shorten it"
            )
            continue
        other = id_of_name.setdefault(name, id)
        if other != id:
            yield f"{shown}: names the same file as {shortened(repr(other))}; rename one"
    for name, id in id_of_name.items():
        parts = name.split("/")
        for count in range(1, len(parts)):
            folder = "/".join(parts[:count])
            stem, ending = posixpath.splitext(folder)
            if ending and stem in id_of_name:
                yield (
                    f"{shortened(repr(id))}: the folder {shortened(repr(folder))} may be a file of "
                    f"{shortened(repr(id_of_name[stem]))}; rename one"
                )


def id_digest(text: str) -> bytes:
    """Return the sha256 of an id; bytes of file names that are not UTF-8 are kept."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def draw_samples(
    samples: Sequence[Sample],
    count: int,
    seed: int,
    first_of: Callable[[], Sequence[Sample]] = tuple,
) -> tuple[Sample, ...]:
    """Return the first samples by sha256 of seed and id, and before them one of `first_of`, in the order given."""
    if count == len(samples):
        return tuple(samples)
    needed = {sample.id for sample in first_of()}
    drawn = sorted(samples, key=lambda sample: id_digest(f"{seed}/{sample.id}"))
    first = next((sample for sample in drawn if sample.id in needed), None)
    drawn.sort(key=lambda sample: sample is not first)
    chosen = {sample.id for sample in drawn[:count]}
    return tuple(sample for sample in samples if sample.id in chosen)


def decide_splits(
    root: Path,
    samples: Sequence[Sample],
    split_source: str,
    unlabelled: Sequence[Sample] = (),
) -> tuple[tuple[Sample, ...], str, dict[str, str]]:
    """Complete the splits by the hash of the ids, so that an image keeps its split whatever else is labelled later.

    Without any split, 15 % of the images go to val, 15 % to test and the rest to train. With a train split and no val,
    15 % of train become val. Samples with the same reference file stay together, and the frames of a sequence. See
    `_draw` for how they are drawn.

    Args:
        samples: labelled images or blocks of images, all with a split or all without.
        split_source: where the splits are named, for messages ("manifest.csv", "the folders of images/").
        unlabelled: images that are not used.

    Returns:
        The samples, each with a split; a sentence for the user on where the splits come from; and id -> split that
        `write_splits` should keep when a model is trained.

    Raises:
        DataError: an image is in two splits, or `splits.csv` cannot be used.
    """
    shared = list(_shared(samples))
    if shared:
        raise DataError(
            all_problems(
                f"{root}: images in two splits, so scores would include training images; keep each in one:",
                shared,
            )
        )
    named = {sample.split for sample in samples if sample.split}
    if not named:
        parts: tuple[str, ...] = ("val", "test")
        reason = f"No split is named in {root}"
    elif "train" in named and "val" not in named:
        parts = ("val",)
        reason = f"{split_source} of {root} names no val split"
    else:
        return tuple(samples), f"The splits are those of {split_source} in {root}.", {}
    groups: dict[_Place, list[str]] = {}
    for sample in samples:
        if sample.split in ("", "train"):
            groups.setdefault(_place(sample), []).append(sample.sequence or sample.id)
    written = read_splits(root)
    judging = {_place(sample) for sample in samples if not sample.predicted}
    chosen, new = _draw(groups, written, parts, judging)
    listed = []
    for sample in samples:
        if sample.split in ("", "train"):
            sample = sample._replace(split=chosen.get(_place(sample), sample.split))
        listed.append(sample)
    note = _split_note(reason, chosen, parts, samples, written)
    strangers = _unknown_ids(written, (*samples, *unlabelled))
    if strangers:
        note += f" {len(strangers)} ids of {SPLITS_FILE} have no image, such as {strangers[0]!r}."
    if new:
        note += f" Training writes them to {SPLITS_FILE}, so images that are labelled later do not change them."
    return tuple(listed), note, new


def divide_into_folds(
    samples: Sequence[Sample], number: int, count: int
) -> tuple[Sample, ...]:
    """Divide the samples of train and val into parts of equal size by the hash of their ids, and validate on one.

    Samples of one file or sequence stay together. Samples whose labels a model made are not divided: they train.

    Args:
        samples: each with a split; those of test keep it.
        number: the part that becomes val, from 1; the others become train.
        count: number of parts.

    Raises:
        DataError: there are fewer files or sequences than parts.
    """
    ids: dict[str, list[str]] = {}
    for sample in samples:
        if sample.split != "test" and not sample.predicted:
            ids.setdefault(_place(sample)[0], []).append(sample.id)
    if len(ids) < count:
        raise DataError(
            f"{count} folds need as many labelled images or sequences in train and val, got {len(ids)}; give at most "
            f"--folds {len(ids)}, or label more"
        )
    ranked = sorted(ids, key=lambda place: id_digest(min(ids[place])))
    part = set(ranked[number - 1 :: count])
    divided = []
    for sample in samples:
        if sample.split != "test":
            split = "val" if _place(sample)[0] in part else "train"
            sample = sample._replace(split=split)
        divided.append(sample)
    return tuple(divided)


def _split_note(
    reason: str,
    chosen: Mapping[_Place, str],
    parts: Sequence[str],
    samples: Sequence[Sample],
    written: Mapping[str, str],
) -> str:
    """Say how the splits were drawn, and how many images each has."""
    found = Counter(chosen.values())
    counts = ", ".join(f"{found[split]} {split}" for split in ("train", *parts))
    unit = "images"
    if any(sample.sequence for sample in samples):
        unit = "sequences"
    elif any(sample.window for sample in samples):
        unit = "blocks"
    by = f"by {SPLITS_FILE} and by" if written else "by"
    return f"{reason}: {by} the hash of the ids, {counts} of {len(chosen)} {unit}."


def _unknown_ids(written: Mapping[str, str], samples: Sequence[Sample]) -> list[str]:
    """Return the ids of `splits.csv` that no sample has."""
    known = set()
    for sample in samples:
        known |= {
            id_as_written(sample.id),
            id_as_written(sample.image_id),
            id_as_written(sample.sequence),
        }
    return [id for id in written if id not in known]


def _draw(
    groups: Mapping[_Place, Sequence[str]],
    written: Mapping[str, str],
    parts: Sequence[str],
    judging: Set[_Place],
) -> tuple[dict[_Place, str], dict[str, str]]:
    """Return the split of each image, and id -> split of those that are to be written down.

    The hash of an id is a number from 0 to 1. Images below 0.15 are val, and those below 0.3 are test. If there are so
    few that a split would be empty, they are drawn by rank instead, lowest first, and written down, because a rank
    changes with the next label: what is written stays, and later images fill val and test up to 15 % each. Only those
    of `judging` are drawn by rank for val and test, and count there.

    Args:
        groups: reference file, block of it or sequence -> ids, or for each frame the name of its sequence; the first in
            alphabetical order is hashed.
        written: id -> split, see `read_splits`.
        parts: the splits to draw, beside train.
        judging: those with labels of a person.
    """
    chosen: dict[_Place, str] = {}
    if not written and len(groups) >= MIN_HASHED:
        for place, ids in groups.items():
            part = int(int.from_bytes(id_digest(min(ids))[:8]) / 2**64 / EVAL_SHARE)
            chosen[place] = parts[part] if part < len(parts) else "train"
        used = {chosen[place] for place in judging & chosen.keys()}
        if used.issuperset(parts):
            return chosen, {}
        chosen = {}
    for place, ids in groups.items():
        names = sorted(ids)
        is_block = place[1] is not None
        if is_block:
            names += [id.rpartition("@")[0] for id in ids]
        for name in names:
            split = written.get(id_as_written(name))
            if split in (*parts, "train"):
                chosen[place] = split
                break
    new = [place for place in groups if place not in chosen]
    new.sort(key=lambda place: id_digest(min(groups[place])))
    count = sum(place in judging for place in groups)
    share = 0
    if count > len(parts):
        share = max(round(EVAL_SHARE * count), 1)
    free = [place for place in new if place in judging]
    for split in parts:
        have = sum(chosen[place] == split for place in judging & chosen.keys())
        missing = max(share - have, 0)
        chosen |= dict.fromkeys(free[:missing], split)
        free = free[missing:]
    for place in new:
        chosen.setdefault(place, "train")
    if not share:
        return chosen, {}
    return chosen, {min(groups[place]): chosen[place] for place in new}


_Place = tuple[str, Window | None]
"""A reference file and the part of it; or a sequence."""


def _place(sample: Sample) -> _Place:
    if sample.sequence:
        return (f"sequence {sample.sequence}", None)
    return (sample.paths[0], sample.window)


def _shared(samples: Sequence[Sample]) -> Iterator[str]:
    """Describe the reference files and the sequences that are in two splits."""
    first: dict[str, Sample] = {}
    for sample in samples:
        file = _place(sample)[0]
        other = first.setdefault(file, sample)
        if other.split != sample.split:
            name = file if sample.sequence else sample.reference.name
            yield f"{name} is in {other.split} ({other.id!r}) and in {sample.split} ({sample.id!r})"


def id_as_written(id: str) -> str:
    """Return an id as a file in UTF-8 holds it: bytes of file names that are not UTF-8 are escaped."""
    return id.encode("utf-8", "backslashreplace").decode()


def read_splits(root: Path) -> dict[str, str]:
    """Return id -> split of `root/splits.csv`, which training writes and users may edit; {} without the file.

    Raises:
        DataError: it cannot be used; lists all bad lines.
    """
    path = root / SPLITS_FILE
    if not os.path.lexists(path):
        return {}
    header, rows = read_csv_rows(path, "table of splits", "id,split")
    if set(header) != {"id", "split"}:
        raise DataError(
            f"{path}: its columns are {shortened(', '.join(map(repr, header)))}, expected id and split; remove the "
            "others, or the file"
        )
    found: dict[str, str] = {}
    problems: list[str] = []
    for line, row in rows:
        id = row[header.index("id")]
        split = row[header.index("split")]
        if split not in SPLITS:
            problems.append(
                f"line {line}: unknown split {split!r}; allowed: {', '.join(SPLITS)}"
            )
        elif found.setdefault(id, split) != split:
            problems.append(f"line {line}: {id!r} is {found[id]} in an earlier line")
    if problems:
        raise DataError(all_problems(f"{path}: lines that cannot be used:", problems))
    return found


def write_splits(root: Path, new: Mapping[str, str]) -> str:
    """Add id -> split to `root/splits.csv`; return a warning if the folder cannot be written, else ""."""
    if not new:
        return ""
    try:
        splits = {id_as_written(id): split for id, split in new.items()} | read_splits(
            root
        )
        write_rows(root / SPLITS_FILE, [("id", "split"), *sorted(splits.items())])
    except OutputError as error:
        return (
            f"Warning: the splits could not be saved, so more labels may move images to other splits: {error}; "
            "name them in manifest.csv"
        )
    return ""
