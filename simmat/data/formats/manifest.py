"""Read samples from `manifest.csv`, one row per sample and one column per source; write arrays as such a data set."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast, get_args

import numpy as np
import numpy.typing as npt

from simmat.data.card import make_card, write_card
from simmat.data.formats.folders import IMAGES, MASKS
from simmat.data.samples import SPLITS, Sample, start_of_paths
from simmat.errors import (
    ConfigError,
    DataError,
    OutputError,
    all_problems,
    did_you_mean,
    nearest,
    shortened,
)
from simmat.io.files import atomic_folder, write_rows
from simmat.io.images import PNG_KINDS, write_image
from simmat.io.paths import frame_of, is_image_folder
from simmat.io.reading import read_csv_rows
from simmat.sensors.adapter import Source
from simmat.types import ZeroMeans

MANIFEST_FILE = "manifest.csv"
_SEQUENCE = ("sequence", "frame")
_KNOWN = ("id", "mask", "split", "zero_means", *_SEQUENCE)
"""Columns with a meaning, beside those of files."""


def read_manifest(
    root: Path, sources: Sequence[Source], *, masks: bool = True
) -> list[Sample]:
    """Read the rows of `root/manifest.csv` as samples; those without a mask too, and the split may be "".

    Columns: `id`, `mask`, one per source (or `image` for a single source), and optionally `split`, `zero_means`, and
    `sequence` with `frame`, a whole number that orders the frames of a sequence. All others are kept as `Sample.extra`.
    Paths are relative to `root` with "/" between folders, and have an ending of their source. `masks=False` neither
    needs nor reads the column `mask`.

    Raises:
        DataError: the file cannot be used; lists all problems with line numbers.
    """
    path = root / MANIFEST_FILE
    header, rows = read_csv_rows(path, "manifest", "id,split,image,mask")
    files = _find_columns(path, header, sources, masks=masks)
    start = start_of_paths(root)
    samples: list[Sample] = []
    problems: list[str] = []
    for line, cells in rows:
        row = dict(zip(header, cells, strict=True))
        sample, of_row = _read_row(row, files, start, masks=masks)
        samples.append(sample)
        problems += [f"line {line}: {problem}" for problem in of_row]
    problems += _problems_between_rows(samples)
    if problems:
        raise DataError(all_problems(f"{path}: rows that cannot be used:", problems))
    if not samples:
        raise DataError(f"{path}: no rows below the header")
    return samples


def _read_row(
    row: Mapping[str, str], files: Mapping[str, Source], start: str, *, masks: bool
) -> tuple[Sample, list[str]]:
    """Return the sample of a row, column -> text, and what is wrong with the row.

    Args:
        files: column of a file -> its source.
        start: of all paths in the folder, see `start_of_paths`.
        masks: read the column "mask".
    """
    problems: list[str] = []
    if not row["id"]:
        problems.append("id is empty")
    columns = list(files)
    if masks and row["mask"]:
        columns.append("mask")
    paths = []
    for column in columns:
        try:
            paths.append(find_file(start, row[column], files.get(column)))
        except DataError as problem:
            problems.append(f"{column} {problem}")
    for column, allowed in (("split", SPLITS), ("zero_means", get_args(ZeroMeans))):
        text = row.get(column, "")
        if text and text not in allowed:
            guess = did_you_mean(text.lower(), allowed)
            problems.append(
                f"unknown {column} {text!r}{guess} Allowed: {', '.join(allowed)}"
            )
    sequence = row.get("sequence", "")
    frame = row.get("frame", "")
    number = 0
    if sequence:
        if frame.isascii() and frame.isdigit() and len(frame) < 19:
            number = int(frame)
        else:
            problems.append(
                f"frame {frame!r} must be a whole number, the place in sequence {sequence!r}"
            )
            sequence = ""
    sample = Sample(
        row["id"],
        row.get("split", ""),
        tuple(source.name for source in files.values()),
        tuple(paths),
        {
            name: text
            for name, text in row.items()
            if name not in _KNOWN and name not in files
        },
        cast(ZeroMeans | None, row.get("zero_means") or None),
        sequence=sequence,
        frame=number,
    )
    return sample, problems


def _problems_between_rows(samples: Sequence[Sample]) -> Iterator[str]:
    """Describe ids and frames that two rows have, and splits that some rows lack."""
    ids = Counter(sample.id for sample in samples)
    for name, count in ids.items():
        if name and count > 1:
            yield f"id {name!r} is in more than one row"
    places = Counter(
        (sample.sequence, sample.frame) for sample in samples if sample.sequence
    )
    for (sequence, frame), count in places.items():
        if count > 1:
            yield f"frame {frame} of sequence {sequence!r} is in {count} rows"
    without = [sample.id for sample in samples if not sample.split]
    if 0 < len(without) < len(samples):
        yield f"{len(without)} rows have no split (first: {without[0]!r}), but the others do; fill in all"


def set_manifest_mask(root: Path, id: str, mask: str) -> None:
    """Write the path of a mask, relative to `root`, into the row of a sample in `root/manifest.csv`."""
    path = root / MANIFEST_FILE
    seen = path.stat().st_mtime_ns if path.exists() else None
    header, rows = read_csv_rows(path, "manifest", "id,split,image,mask")
    cells = [row for _, row in rows]
    found = [row for row in cells if row[header.index("id")] == id]
    if len(found) != 1:
        raise DataError(
            f"{path}: expected one row with the id {id!r} for the mask {mask!r}, found {len(found)}"
        )
    found[0][header.index("mask")] = mask
    if path.stat().st_mtime_ns != seen:  # another program wrote it meanwhile
        set_manifest_mask(root, id, mask)
        return
    write_rows(path, [header, *cells])


def find_file(start: str, text: str, source: Source | None = None) -> str:
    """Return the whole path of a file; a DataError's message continues the sentence that names the column.

    Args:
        start: of all paths in the folder, see `start_of_paths`.
        source: whose ending the file must have.
    """
    if not text:
        raise DataError("is empty")
    clean = posixpath.normpath(text)
    if posixpath.isabs(text) or clean == ".." or clean.startswith("../"):
        raise DataError(
            f"{text!r} is outside the data folder; use a path relative to it"
        )
    if not os.path.isfile(start + clean):
        with suppress(OSError):  # a name that is too long
            found = Path(start + clean)
            if frame_of(found) is not None or is_image_folder(found):
                return start + clean
        hint = "; use / between folders, not \\" if "\\" in text else ""
        raise DataError(
            f"{shortened(repr(text))} is no file: it is missing, or a folder, pipe or device{hint}"
        )
    if source and not clean.lower().endswith(source.extensions):
        endings = ", ".join(source.extensions)
        raise DataError(f"{text!r} is not a file of source {source.name!r} ({endings})")
    return start + clean


def _find_columns(
    path: Path, header: Sequence[str], sources: Sequence[Source], *, masks: bool
) -> dict[str, Source]:
    """Return column -> source, after checking the header."""
    problems = []
    files = {source.name: source for source in sources}
    if len(sources) == 1 and sources[0].name not in header:
        files = {"image": sources[0]}
    needed = ["id", "mask", *files] if masks else ["id", *files]
    for name in needed:
        if name not in header:
            guess = did_you_mean(name, header, otherwise="")
            problems.append(
                f"no column {name!r}{guess}; columns: {', '.join(map(repr, header))}"
            )
    if "split" not in header and (near := nearest("split", header, cutoff=0.8)):
        # Without an error, the splits would silently be chosen by hash.
        problems.append(f"unknown column {near!r}; did you mean 'split'?")
    if len(set(_SEQUENCE) & set(header)) == 1:
        problems.append(
            "columns 'sequence' and 'frame' belong together: frame orders the frames of a sequence"
        )
    if problems:
        raise DataError(all_problems(f"{path}: the header is invalid:", problems))
    return files


Arrays = Sequence[npt.NDArray[np.generic]]


def write_arrays(
    folder: Path,
    images: Arrays,
    masks: Arrays,
    *,
    split: Sequence[str] | Mapping[str, int] | None,
    card: Mapping[str, object],
) -> None:
    """Write images and masks to a data set folder, completely or not at all."""
    splits = _splits_of(images, split)
    _check_arrays(images, masks)
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; choose another folder")
    made = make_card(card, where="card")
    with atomic_folder(folder) as new:
        (new / IMAGES).mkdir()
        (new / MASKS).mkdir()
        rows = [["id", "image", "mask", *([] if splits is None else ["split"])]]
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            planes = image if image.ndim == 3 else image[None]  # (P, H, W)
            in_png = (len(planes), str(planes.dtype)) in PNG_KINDS
            # every sensor reads PNG; npy holds the rest
            ending = ".png" if in_png else ".npy"
            image_file = f"{IMAGES}/{number:06}{ending}"
            mask_file = f"{MASKS}/{number:06}.npy"
            write_image(new / image_file, planes)
            write_image(new / mask_file, mask[None])
            row = [f"{number:06}", image_file, mask_file]
            if splits is not None:
                row.append(splits[number])
            rows.append(row)
        write_rows(new / MANIFEST_FILE, rows)
        write_card(new, made)


def _splits_of(
    images: Arrays, split: Sequence[str] | Mapping[str, int] | None
) -> list[str] | None:
    """Return the split of each image; None if it is chosen by hash."""
    if split is None:
        return None
    if isinstance(split, Mapping):
        splits = []
        for name, count in split.items():
            splits += [name] * count
    else:
        splits = list(split)
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise ConfigError(
            f"unknown split {unknown[0]!r}; splits are {', '.join(SPLITS)}"
        )
    if len(splits) != len(images):
        raise ValueError(f"split names {len(splits)} images, expected {len(images)}")
    return splits


def _check_arrays(images: Arrays, masks: Arrays) -> None:
    """Raise ValueError if images and masks do not match."""
    if not len(images) and not len(masks):
        raise ValueError("expected at least one image and its mask, got none")
    if len(images) != len(masks):
        raise ValueError(
            f"expected as many masks as images, got {len(masks)} and {len(images)}"
        )
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        if image.ndim not in (2, 3) or mask.ndim != 2 or image.shape[-2:] != mask.shape:
            raise ValueError(
                f"image {number} must be (H, W) or (P, H, W) and its mask (H, W), got {image.shape} and {mask.shape}"
            )
        if mask.dtype.kind not in "bui":
            raise ValueError(f"mask {number} must hold whole numbers, got {mask.dtype}")
