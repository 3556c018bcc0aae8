"""The frames of sequences: folders of files with an order, and files that hold many, see `simmat.io.frames`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from simmat.data.samples import Sample
from simmat.errors import DataError, few_of
from simmat.io.frames import frame_paths, open_stack, stack_endings, stack_format
from simmat.io.paths import frame_of

FRAMES = "frames"
"""The folder of sequences: each is a folder of images in it, or a file."""
_MAX_DIFFERENCE_MM = 0.01
"""Largest difference of two affines of one grid; some formats round positions."""


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts the numbers in a text as numbers: frame2 before frame10."""
    parts = re.split(r"(\d+)", text)
    return tuple(
        (1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts
    )


def numbers_in(name: str) -> tuple[int, ...]:
    """Return the whole numbers in the name of a frame."""
    return tuple(map(int, re.findall(r"\d+", name)))


def frame_name(path: Path, endings: Iterable[str] = ()) -> str:
    """Return the name of a frame: that of its file without the ending, or its number in a file."""
    ending = max(
        (one for one in endings if path.name.lower().endswith(one)),
        key=len,
        default=path.suffix,
    )
    return path.name[: len(path.name) - len(ending)]


def is_stack(path: Path, inside: str) -> bool:
    """Return whether a file holds frames: always by some endings, as TIFF or npy where it lies in no sequence folder.

    Args:
        inside: its folder below that of the sequences and of the split; "" for none.
    """
    return path.name.lower().endswith(stack_endings()) or (
        not inside and stack_format(path) is not None
    )


def sequence_frames(path: Path, extensions: Sequence[str], axis: str) -> list[Path]:
    """Return the frames of one sequence in order: those of a file, or the files of a folder by their numbers.

    Raises:
        DataError: there are none, or their order is not known.
    """
    if stack_format(path) is not None:
        return frame_paths(path, axis)
    if not path.is_dir():
        what = (
            "one image, not a sequence" if path.is_file() else "no such folder or file"
        )
        raise DataError(
            f"{path}: {what}; give the folder of the frames, or a TIFF, npy or video"
        )
    found = [
        file
        for file in path.iterdir()
        if file.name.lower().endswith(tuple(extensions)) and file.name[0] != "."
    ]
    if not found:
        raise DataError(f"{path}: holds no frame ({', '.join(extensions)})")
    found.sort(key=lambda file: natural_key(frame_name(file, extensions)))
    problem = order_problem([frame_name(file, extensions) for file in found])
    if problem:
        raise DataError(f"{path}: {problem}")
    return found


def order_problem(names: Sequence[str]) -> str:
    """Return why the order of frames is not known from their names, which are in `natural_key` order; "" if it is."""
    in_manifest = (
        "give their order in manifest.csv (columns id, image, sequence, frame)"
    )
    texts = [re.sub(r"\d+", "0", name) for name in names]
    other = next(
        (name for name, text in zip(names, texts, strict=True) if text != texts[0]), ""
    )
    if other:
        return f"the order of {names[0]!r} and {other!r} is not known, they differ in more than numbers; {in_manifest}"
    numbers = list(map(numbers_in, names))
    for place in range(1, len(names)):
        if numbers[place] == numbers[place - 1]:
            return f"{names[place - 1]!r} and {names[place]!r} have the same number; rename one, or {in_manifest}"
    changing = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    if len(changing) != 1:
        return ""
    steps = np.diff(np.array(changing[0], np.float64))
    gaps = np.flatnonzero(steps > steps.min()).tolist()
    # dates or times, which no counter makes
    if not gaps or 2 * len(names) * steps.min() < steps.sum():
        return ""
    missing = few_of(
        [f"between {names[place]!r} and {names[place + 1]!r}" for place in gaps], 3
    )
    return f"frames are missing {missing}; put them back, or {in_manifest}"


def place_problem(paths: Iterable[str | Path]) -> str:
    """Say which volume of a frame's files lies elsewhere or is turned, so that its voxels are others; "" if none is."""
    volumes = []
    for path in paths:
        frame = frame_of(Path(path))
        if frame is not None and frame.axis:
            volumes.append(frame)
    places = []
    for one in volumes:
        affine = open_stack(one.file, one.axis).affine
        if affine is not None:
            places.append((one.file, affine))
    for file, affine in places[1:]:
        if not np.allclose(affine, places[0][1], rtol=0, atol=_MAX_DIFFERENCE_MM):
            return (
                f"{file}: its voxels are not those of {places[0][0].name}: their affines differ (origin, direction or "
                "spacing); resample it to that grid"
            )
    return ""


def as_sequences(samples: Iterable[Sample]) -> list[Sample]:
    """Return frames whose id is SEQUENCE/NAME with their sequence and their place in it, in order."""
    ordered = sorted(
        samples,
        key=lambda sample: tuple(map(natural_key, sample.id.rpartition("/")[::2])),
    )
    sequences = groupby(ordered, key=lambda sample: sample.id.rpartition("/")[0])
    numbered = []
    for name, own in sequences:
        for frame, one in enumerate(own):
            numbered.append(one._replace(sequence=name, frame=frame))
    return numbered
