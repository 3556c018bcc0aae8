"""The masks from which objects are followed, as the command line states them: label images, and prompts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from simmat.data.formats.frames import place_problem
from simmat.data.instances import (
    Instance,
    LabelArray,
    check_equal_size,
    read_mask,
    region_from_mask,
)
from simmat.data.sequence import FrameSequence
from simmat.errors import ConfigError, DataError, did_you_mean
from simmat.inference import image_name, read_prompts
from simmat.io.frames import open_stack, stack_format
from simmat.io.paths import frame_of, stem_of
from simmat.predictor import Predictor
from simmat.types import Prompt
from simmat_plugin_sequences.given_masks import GivenFrame

_BINARY = (0, 255)
"""Values of a mask of one object, as `simmat predict` writes it."""
_MAX_DIGITS = 19
"""Digits from which a text is not read as the number of a frame or an object."""


def read_label_images(
    masks: Sequence[str], frames: FrameSequence
) -> dict[int, LabelArray]:
    """Read the label images of `--mask IMAGE@FRAME`: frame number -> (H, W) ids.

    FRAME is the name of a frame, or its number from 0; without it the image has the name of its frame. IMAGE may be a
    volume on the grid of the stack, whose slice FRAME is read.

    Raises:
        DataError: an image cannot be read, is not of its frame's size, or is of another frame or grid.
        ConfigError: there is no such frame, or it has two images.
    """
    found: dict[int, LabelArray] = {}
    for text in masks:
        before, at, place = text.rpartition("@")
        if at:
            path = Path(before)
        else:
            path = Path(text)
            place = stem_of(path)
        stem = stem_of(path)
        index = frame_index(place, frames, f"--mask {text}")
        name = frames.names[index]
        if index in found:
            raise ConfigError(
                f"--mask {text}: frame {name!r} has a mask already; give one of the two"
            )
        kind = stack_format(path)
        if kind is not None and kind.has_axes:
            path = _slice_of(path, index, frames)
        elif stem != name and stem in frames.names:
            raise DataError(
                f"{path}: is named as frame {stem!r}, but given for frame {name!r}; write @{stem}, or rename it"
            )
        labels = read_mask(path)
        check_equal_size(path, labels.shape, f"of frame {name}", frames[index].size_hw)
        if np.isin(labels, _BINARY).all():
            labels = (labels > 0).astype(np.int64)
        found[index] = labels
    return found


def predicted_masks(
    predictor: Predictor, prompts: Path, frames: FrameSequence
) -> dict[int, GivenFrame]:
    """Segment the objects of a prompts file of `simmat predict` in each of its frames, by the number of the frame.

    An object whose name is a whole number from 1 has it as its id; others get the next free ones in the order of the
    file.

    Raises:
        DataError: the file cannot be used, two names are one number, or a prompt marks nothing.
        ConfigError: there is no such frame, or a prompt is outside of it.
    """
    given: dict[str, dict[str, Prompt]] = {}
    for file, own in read_prompts(prompts).items():
        prefix = f"{image_name(file)}_"
        given[file] = {
            name.removeprefix(prefix): prompt for name, prompt in own.items()
        }
    names: dict[str, None] = {}
    for prompts_of_file in given.values():
        names.update(dict.fromkeys(prompts_of_file))
    ids = _ids_of(names, prompts)
    found: dict[int, GivenFrame] = {}
    for file, prompts_of_file in given.items():
        place = file
        if file not in frames.names:
            place = stem_of(Path(file))
        index = frame_index(place, frames, f"{prompts}: {file}")
        image = predictor.open_image(frames[index])
        regions: dict[int, Instance | None] = {}
        for name, prompt in prompts_of_file.items():
            answer = image.predict_prompts([prompt])[0]
            corner_yx = answer.window.y0, answer.window.x0
            region = region_from_mask(answer.mask, None, corner_yx)
            if region is None:
                raise DataError(
                    f"{prompts}: the prompt of {name!r} in {file} marks nothing; add a point or a box"
                )
            regions[ids[name]] = region
        found[index] = GivenFrame(image.size_hw, regions).over(found.get(index))
    return found


def _ids_of(names: Iterable[str], prompts: Path) -> dict[str, int]:
    """Return name -> id of objects; DataError if two names are the same number."""
    ids: dict[str, int] = {}
    others = []
    name_of: dict[int, str] = {}
    for name in names:
        number = 0
        if name.isdecimal() and len(name) < _MAX_DIGITS:
            number = int(name)
        if not number:
            others.append(name)
        elif number in name_of:
            raise DataError(
                f"{prompts}: the objects {name_of[number]!r} and {name!r} are both number {number}; rename one"
            )
        else:
            ids[name] = number
            name_of[number] = name
    free = (number for number in itertools.count(1) if number not in name_of)
    for name in others:
        ids[name] = next(free)
    return ids


def frame_index(place: str, frames: FrameSequence, where: str) -> int:
    """Return the number of a frame given by its name or number; ConfigError that begins with `where` without it."""
    if place in frames.names:
        return frames.names.index(place)
    if place.isdecimal() and len(place) < _MAX_DIGITS and int(place) < len(frames):
        return int(place)
    raise ConfigError(
        f"{where}: no frame {place!r}{did_you_mean(place, frames.names)} Give its name, {frames.names[0]} to "
        f"{frames.names[-1]}, or its number, 0 to {len(frames) - 1}: --mask IMAGE@FRAME, or the file in a table"
    )


def _slice_of(volume: Path, index: int, frames: FrameSequence) -> Path:
    """Return the slice of a mask volume that is that of a frame, along the same axis."""
    files = list(frames.files[index].values())
    own = frame_of(files[0])
    axis = "z"
    if own is not None and own.axis:
        axis = own.axis
    count = len(open_stack(volume, axis))
    if count != len(frames):
        raise DataError(
            f"{volume}: has {count} slices along {axis}, the stack {len(frames)}; give its own mask"
        )
    path = volume / axis / str(index)
    problem = place_problem([*files, path])
    if problem:
        raise DataError(problem)
    return path
