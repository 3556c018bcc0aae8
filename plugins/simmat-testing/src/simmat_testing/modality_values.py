"""Checks of a sensor's values: saved and loaded, missing, flipped and turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError, SimMATError
from simmat.io.images import read_image, write_image
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import BoolArray, Channel, FloatArray, SensorImage
from simmat_testing.checks import CheckFailed, CheckSkipped
from simmat_testing.modality_case import ModalityCase, same_bits

Planes: TypeAlias = npt.NDArray[Any]
Images = tuple[SensorImage, SensorImage]
"""An image as loaded, and as transformed."""

POLARIZATION_ANGLES = ("angle_of_linear_polarization", "angle_of_polarization")
"""Quantities whose values are angles in the image, equal after half a turn; a mirror negates them."""

_MAX_PLANES = 4
"""Planes of a file that are called missing one by one: bands are handled alike."""
_BLOCK, _MAX_DIFFERENCE = 8, 1 / 3
"""Means of 8x8 pixels, which a filter against speckle changes little, may differ by a third of their mean deviation."""


def what_is_saved_is_loaded(case: ModalityCase) -> None:
    """`load` reads back what `save` wrote, each value in its place, to the precision of the file."""
    compared = False
    pairs = list(zip(case.samples, case.simulated, strict=False))
    if not pairs:
        # an author's own files: what they hold must survive being written and read again
        image = case.load(case.samples[0])
        try:
            pairs = [(case.saved(image, "saved"), image)]
        except SimMATError as error:
            raise CheckSkipped(
                f"save does not write what load gives: {error}"
            ) from error
    for files, saved in pairs:
        loaded = case.load(files)
        if saved.size_hw != loaded.size_hw and case.simulated:
            raise CheckSkipped(
                "the image comes back in another size, see loads-what-it-declares"
            )
        if saved.size_hw != loaded.size_hw:
            raise CheckFailed(
                f"an image of (height, width) {saved.size_hw} was saved and loaded as {loaded.size_hw}",
                "let rows be the height and columns the width, in load and in save",
            )
        kinds = [
            (channel.name, channel.quantity, channel.unit)
            for channel in loaded.channels
        ]
        for index, channel in enumerate(saved.channels):
            kind = (channel.name, channel.quantity, channel.unit)
            # only values in one unit can be compared
            if kind in kinds and saved.valid[index].any():
                _expect_alike(saved.select([index]), loaded.select([kinds.index(kind)]))
                compared = True
    if not compared:
        raise CheckSkipped("no channel that is loaded is one that was simulated")


def _expect_alike(saved: SensorImage, loaded: SensorImage) -> None:
    """Compare one channel as saved and as loaded."""
    (channel,), original, plane = saved.channels, saved.data[0], loaded.data[0]
    good = saved.valid[0] & loaded.valid[0]
    if good.sum() * 2 < saved.valid[0].sum():
        raise CheckFailed(
            f"channel {channel.name!r} was saved with {int(saved.valid[0].sum())} valid pixels, "
            f"of which {int(good.sum())} are valid as loaded",
            "let save write no measured value as nodata, and look at valid_range and unit",
        )
    values = original[good].astype(np.float64)
    found = _block_difference(plane, original, good, channel)
    deviation = (
        _block_difference(original, np.median(values), good, channel)
        or float(np.abs(values).mean())
        or 1.0
    )
    # a file of whole numbers rounds, or truncates, by up to one step
    steps = np.diff(np.unique(plane[good]))
    if found > _MAX_DIFFERENCE * deviation + (
        float(steps.min()) / 2 if steps.size else 0
    ):
        ranges = [
            f"{np.min(part):.4g} to {np.max(part):.4g}"
            for part in (values, plane[good])
        ]
        raise CheckFailed(
            f"channel {channel.name!r} was saved as {ranges[0]} and loaded as {ranges[1]} {channel.unit}, "
            f"with a mean difference of {found:.3g}",
            "let save undo every scale and offset that load applies, state the unit where the file can, and let row 0 "
            "and column 0 be the upper left pixel in both",
        )


def _block_difference(
    one: FloatArray,
    other: FloatArray | np.floating[Any],
    good: BoolArray,
    channel: Channel,
) -> float:
    """Return the mean absolute difference of (H, W) values, averaged over the good pixels of blocks before."""
    difference = one.astype(np.float64) - other
    if channel.quantity in POLARIZATION_ANGLES:
        difference = _shorter_way(difference, channel)
    rows, columns = (np.arange(0, side, _BLOCK) for side in good.shape)
    # sums
    blocks = np.add.reduceat(
        np.add.reduceat(np.where(good, difference, 0), rows, axis=0), columns, axis=1
    )
    return float(np.abs(blocks).sum() / good.sum())


def _shorter_way(difference: Planes, channel: Channel) -> Planes:
    """Return the differences between angles of polarization, which are equal after half a turn."""
    half = np.pi if channel.unit == "rad" else 180.0
    return np.asarray((difference + half / 2) % half - half / 2)


def missing_stays_missing(case: ModalityCase) -> None:
    """A pixel that `--nodata` or NaN calls missing is invalid in every channel that is computed from it."""
    intact, applied = _images(case, {}), False
    for source, file in case.samples[0].items():
        try:
            planes = read_image(file).planes
            unchanged = _images(case, {source: planes})[0]
        # a format that only the sensor reads, or that cannot be rewritten
        except (SimMATError, ValueError):
            continue
        if not same_bits(unchanged, intact[0]) or planes.shape[1:] != intact[0].size_hw:
            continue  # the file holds more than planes, which is lost in rewriting it
        counts = intact[0].valid.sum(axis=0) + intact[1].valid.sum(axis=0)
        row, column = np.unravel_index(counts.argmax(), counts.shape)
        for index in range(min(len(planes), _MAX_PLANES)):
            applied |= _expect_missing(
                case, source, planes, (index, int(row), int(column)), intact
            )
    if applied:
        return
    _expect_sentinel(case, intact[0])
    for source in case.samples[0]:
        _expect_nodata_asked(case, source)


def _expect_missing(
    case: ModalityCase,
    source: str,
    planes: Planes,
    place: tuple[int, int, int],
    intact: Images,
) -> bool:
    """Call one value missing; channels that another value there changes must be invalid. Return if any is tested."""
    index, *pixel = place
    at = (slice(None), *place[1:])
    ordinary = np.sort(
        planes[index][np.isfinite(planes[index]) & (planes[index] != planes[place])]
    )
    if not ordinary.size:
        return False
    other = ordinary[ordinary.size // 2]
    try:
        changed = _images(case, {source: _replaced(planes, place, other)})
    except DataError:
        return False  # planes that must agree, such as three equal ones
    ways = [("--nodata", other, {source: float(other)})]
    ways += [("NaN", np.nan, {})] if planes.dtype.kind == "f" else []
    for way, fill, nodata in ways:
        missing = _images(case, {source: _replaced(planes, place, fill)}, nodata)
        for before, after, found, method in zip(
            intact, changed, missing, ("load", "transform"), strict=True
        ):
            # (C,)
            computed = (before.data[at] != after.data[at]) | (
                before.valid[at] != after.valid[at]
            )
            if wrong := [
                c.name
                for c, bad in zip(
                    found.channels, computed & found.valid[at], strict=True
                )
                if bad
            ]:
                raise CheckFailed(
                    f"pixel {tuple(pixel)} of {source!r}, plane {index}, is missing by {way}; after `{method}` it is "
                    f"valid in {', '.join(wrong)}, computed from it",
                    "pass self.nodata(source) to read_image and ImageFile.valid to from_planes, and let a channel of "
                    "several planes be valid where all of their ImageFile.measured are",
                )
    return True


def _expect_sentinel(case: ModalityCase, image: SensorImage) -> None:
    """Where `save` writes another file for a pixel that is missing, `load` must say that it is missing."""
    row, column = np.unravel_index(image.valid.sum(axis=0).argmax(), image.size_hw)
    valid = image.valid.copy()
    valid[:, row, column] = False
    try:
        whole = case.saved(image, "whole")
        same = case.saved(image, "same")
        holed = case.saved(replace(image, valid=valid), "holed")
    except CheckSkipped:
        return
    if _bytes(whole) != _bytes(same) or _bytes(whole) == _bytes(holed):
        return  # the files of one image differ, or the format has no number for what is missing
    found = case.load(holed).valid[:, row, column]
    wrong = [c.name for c, bad in zip(image.channels, found, strict=True) if bad]
    if wrong:
        raise CheckFailed(
            f"pixel {(int(row), int(column))} was saved as missing, and is valid as loaded in {', '.join(wrong)}",
            "give from_planes a `valid` that is False where the file holds the number by which save says so",
        )


def _bytes(files: Mapping[str, Path]) -> list[bytes]:
    return [file.read_bytes() for file in files.values()]


def _expect_nodata_asked(case: ModalityCase, source: str) -> None:
    """A sensor with a reader of its own must ask for `--nodata`, or refuse it."""
    image = case.load(case.samples[0])
    number = float(np.median(image.data[image.valid]))
    asked = mock.Mock(return_value=number)
    with mock.patch.object(ModalityAdapter, "nodata", asked):
        try:
            case.load(case.samples[0], nodata={source: number})
        except SimMATError:
            return
    if not asked.called:
        raise CheckFailed(
            f"--nodata {number:g} of {source!r} is ignored: load never asks for it",
            "combine `valid` with simmat.types.not_nodata(planes, self.nodata(source)), or refuse it",
        )


def _replaced(planes: Planes, place: tuple[int, int, int], value: Any) -> Planes:
    other = planes.copy()
    other[place] = value
    return other


def _images(
    case: ModalityCase,
    planes: Mapping[str, Planes],
    nodata: Mapping[str, float] | None = None,
) -> Images:
    """Return the sample with other (P, H, W) planes in some of its sources: as loaded, and as transformed."""
    files = case.copy(case.samples[0], "missing")
    for source, content in planes.items():
        write_image(
            files[source], content, description=read_image(files[source]).description
        )
    image = case.load(files, nodata=nodata or None)
    return image, case.adapter.transform(image)


# rounding of values that are computed there and back, and relative to half a turn
_TOLERANCE = 1e-4
_MOVE_BOTH = "flip and rotate data and valid together, as ModalityAdapter.flip and rotate do: call super() first"


def flips_and_turns_move_pixels(case: ModalityCase) -> None:
    """Flips and counter-clockwise turns move values and `valid` alike, and undone give the image back."""
    flip, rotate = case.adapter.flip, case.adapter.rotate
    _expect_moved(
        case,
        "a horizontal flip",
        lambda image: flip(image, "horizontal"),
        lambda p: np.flip(p, 2),
        2,
    )
    _expect_moved(
        case,
        "a vertical flip",
        lambda image: flip(image, "vertical"),
        lambda p: np.flip(p, 1),
        2,
    )
    for turns, words in (
        (1, "1 quarter turn"),
        (2, "2 quarter turns"),
        (3, "3 quarter turns"),
    ):
        _expect_moved(
            case,
            words,
            lambda image, turns=turns: rotate(image, turns),  # type: ignore[misc]
            lambda planes, turns=turns: np.rot90(planes, turns, axes=(1, 2)),  # type: ignore[misc]
            4,
            turns,
        )


def _expect_moved(
    case: ModalityCase,
    words: str,
    move: Callable[[SensorImage], SensorImage],
    moved: Callable[[Planes], Planes],
    count: int,
    turns: int | None = None,
) -> None:
    """Check one flip or turn: `moved` gives planes as they must be, `count` times give the image back."""
    image = case.load(case.samples[0])
    data = image.data.copy()
    # angles and depths of invalid pixels are not compared
    for plane, valid in zip(data, image.valid, strict=True):
        plane[~valid] = np.median(plane[valid]) if valid.any() else 0
    corner = np.ones_like(image.valid)
    # unlike all of its mirror images
    corner[:, : image.size_hw[0] // 4, : image.size_hw[1] // 3] = False
    image = replace(image, data=data, valid=np.ones_like(corner), georeference=None)
    found = back = move(image)
    for _ in range(count - 1):
        back = move(back)
    if not np.array_equal(
        move(replace(image, data=data.copy(), valid=corner)).valid, moved(corner)
    ):
        raise CheckFailed(
            f"after {words}, the valid pixels are not where they belong", _MOVE_BOTH
        )
    if back.data.shape != data.shape or not np.allclose(
        back.data, data, rtol=_TOLERANCE, atol=_TOLERANCE
    ):
        raise CheckFailed(
            f"{words}, {count} times, changed the values",
            "override flip and rotate together, for values that depend on direction and for nothing else",
        )
    for channel, plane, wanted in zip(
        image.channels, found.data, moved(data), strict=True
    ):
        _expect_values(words, channel, plane, wanted, turns)


def _expect_values(
    words: str, channel: Channel, plane: FloatArray, wanted: Planes, turns: int | None
) -> None:
    """Check the values of a channel after quarter turns, or a flip (None).

    Channels that depend on direction, such as normals, may change their values: other ones than angles of polarization
    are judged only where they have the same values as before.
    """
    if channel.quantity in POLARIZATION_ANGLES:
        half = np.pi if channel.unit == "rad" else 180.0
        angle = -wanted if turns is None else wanted + turns * half / 2
        if np.abs(_shorter_way(plane - angle, channel)).max() > _TOLERANCE * half:
            raise CheckFailed(
                f"after {words}, the angles of channel {channel.name!r} are not those of the turned image",
                "let a mirror make θ to -θ and a quarter turn θ to θ + 90°, modulo 180°",
            )
        return
    slack = 1e-5 * float(np.ptp(wanted)) + np.finfo(np.float32).tiny
    same_values = (
        np.abs(np.sort(plane, axis=None) - np.sort(wanted, axis=None)).max() <= slack
    )
    if same_values and np.abs(plane - wanted).max() > slack:
        raise CheckFailed(
            f"after {words}, the values of channel {channel.name!r} are not where they belong",
            _MOVE_BOTH,
        )


def images_are_not_written_into(case: ModalityCase) -> None:
    """`transform`, `flip` and `rotate` do not change the image they are given."""
    methods: dict[str, Callable[[SensorImage], object]] = {
        "transform": case.adapter.transform,
        "flip": lambda image: case.adapter.flip(image, "horizontal"),
        "rotate": lambda image: case.adapter.rotate(image, 1),
    }
    for name, method in methods.items():
        image = case.load(case.samples[0])
        before = replace(image, data=image.data.copy(), valid=image.valid.copy())
        method(image)
        if not same_bits(image, before):
            raise CheckFailed(
                f"{name} changed the image it was given, which may be used again",
                "compute new arrays, or begin with image.data.copy()",
            )
