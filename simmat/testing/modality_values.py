"""Checks of a sensor's values: saved and loaded, missing, flipped, turned and transformed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.images import read_image
from simmat.sensors.adapter import ModalityAdapter
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.samples import REWRITABLE, TIFF, ModalityCase, Planes, rewrite, same_bits
from simmat.types import BoolArray, FloatArray, SensorImage

ScalarT = TypeVar("ScalarT", bound=np.generic)
Way = Literal["--nodata", "its GDAL_NODATA tag", "NaN"]
Images = tuple[SensorImage, SensorImage]
"""An image as loaded, and as transformed."""

POLARIZATION_ANGLES = ("angle_of_linear_polarization", "angle_of_polarization")
"""Quantities whose values are angles in the image, equal after half a turn; a mirror negates them."""

MAX_PLANES = 4
"""Planes of a file that are called missing one by one: bands are handled alike."""
_MAX_DIFFERENCE = 0.4  # allowed, relative to the mean deviation; most sensors stay below 0.2, filters in power do not
_FILTERED_BELOW = 0.7  # of the difference between neighbours: what keeps less is a filter against speckle or noise
_BLOCK = 8


def what_is_saved_is_loaded(case: ModalityCase) -> None:
    """`load` reads back what `save` wrote, each value in its place, to the precision of the file."""
    compared = False
    for sample in case.samples:
        if sample.simulated is None:
            raise CheckSkipped("the sample files are given, so it is unknown what was saved")
        saved, loaded = sample.simulated, case.load(sample.files)
        if saved.size_hw != loaded.size_hw:
            raise CheckSkipped("the image comes back in another size, see loads-what-it-declares")
        kinds = [(channel.name, channel.quantity, channel.unit) for channel in loaded.channels]
        for one, channel in enumerate(saved.channels):
            kind = (channel.name, channel.quantity, channel.unit)
            if kind in kinds and saved.valid[one].any():  # only values in one unit can be compared
                _expect_alike(saved, one, loaded, kinds.index(kind))
                compared = True
    if not compared:
        raise CheckSkipped("no channel that is loaded is one that was simulated")


def _expect_alike(saved: SensorImage, one: int, loaded: SensorImage, other: int) -> None:
    """Compare channel `one` as saved with channel `other` as loaded; of a filtered one the means of 8x8 blocks."""
    channel, original, plane = saved.channels[one], saved.data[one], loaded.data[other]
    good = saved.valid[one] & loaded.valid[other]
    if good.sum() * 2 < saved.valid[one].sum():
        raise CheckFailed(
            f"channel {channel.name!r} was saved with {int(saved.valid[one].sum())} valid pixels, "
            f"of which {int(good.sum())} are valid as loaded",
            "let save write no measured value as nodata, and look at valid_range and unit",
        )
    difference = np.where(good, plane.astype(np.float64) - original, 0)
    if channel.quantity in POLARIZATION_ANGLES:  # the shorter way round
        half = np.pi if channel.unit == "rad" else 180.0
        difference = (difference + half / 2) % half - half / 2
    if _variation(plane, good) < _FILTERED_BELOW * _variation(original, good):
        rows, columns = (np.arange(0, side, _BLOCK) for side in difference.shape)
        difference = np.add.reduceat(np.add.reduceat(difference, rows, axis=0), columns, axis=1)  # sums of blocks
    found = float(np.abs(difference).sum() / good.sum())
    values = original[good].astype(np.float64)
    deviation = float(np.abs(values - np.median(values)).mean()) or float(np.abs(values).mean()) or 1.0
    steps = np.diff(np.unique(plane[good]))  # a file of whole numbers rounds, or truncates, by up to one step
    if found > _MAX_DIFFERENCE * deviation + (float(steps.min()) / 2 if steps.size else 0):
        ranges = [f"{np.min(part):.4g} to {np.max(part):.4g}" for part in (values, plane[good])]
        raise CheckFailed(
            f"channel {channel.name!r} was saved as {ranges[0]} and loaded as {ranges[1]} {channel.unit}, "
            f"with a mean difference of {found:.3g}",
            "let save undo every scale and offset that load applies, state the unit where the file can, and let row 0 "
            "and column 0 be the upper left pixel in both",
        )


def _variation(plane: FloatArray, valid: BoolArray) -> float:
    """Return the mean difference of an (H, W) plane between valid neighbours in a row."""
    both = valid[:, 1:] & valid[:, :-1]
    filled = np.where(valid, plane, 0).astype(np.float64)
    return float(np.abs(np.diff(filled, axis=1))[both].mean()) if both.any() else 0.0


def missing_stays_missing(case: ModalityCase) -> None:
    """A pixel that a file or `--nodata` calls missing is invalid in every channel that is computed from it."""
    applied = False
    for source, file in case.samples[0].files.items():
        try:
            planes = read_image(file).planes
        except DataError:
            continue
        intact = None if file.suffix.lower() not in REWRITABLE else _load_with(case, source, planes)
        if intact is None or not same_bits(intact[0], case.load(case.samples[0].files)):
            continue  # the file holds more than planes, which is lost in rewriting it
        if planes.shape[1:] != intact[0].size_hw:
            continue
        pixel, count = _valid_pixel(*intact), len(planes)
        alone = [[index] for index in range(min(count, MAX_PLANES))] if count > 1 else []
        for picked in ([*range(count)], *alone):
            try:
                altered = _load_with(case, source, _altered(planes, picked, pixel))
            except DataError:
                continue  # planes that must agree, such as three equal ones
            ways: list[tuple[Way, bool]] = [
                ("--nodata", True),
                ("its GDAL_NODATA tag", file.suffix.lower() in TIFF),
                ("NaN", planes.dtype.kind == "f"),
            ]
            for way in [way for way, is_possible in ways if is_possible]:
                applied = True
                _expect_missing(case, source, planes, picked, pixel, way, _changed_channels(intact, altered, pixel))
    if not applied:
        raise CheckSkipped("no file of the sample can be rewritten")


def _load_with(case: ModalityCase, source: str, planes: Planes, way: Way | None = None, fill: float = 0.0) -> Images:
    """Return the image with other planes in one file: as loaded, and as transformed."""
    files = case.copy(case.samples[0].files, "missing")
    rewrite(files[source], planes, nodata=fill if way == "its GDAL_NODATA tag" else None)
    image = case.load(files, nodata={source: fill} if way == "--nodata" else None)
    return image, case.adapter.transform(image)


def _valid_pixel(image: SensorImage, transformed: SensorImage) -> tuple[int, int]:
    """Return the row and column of the first pixel where as many channels as possible are valid."""
    counts = image.valid.sum(axis=0) + transformed.valid.sum(axis=0)
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    return int(row), int(column)


def _altered(planes: Planes, picked: list[int], pixel: tuple[int, int]) -> Planes:
    """Return planes with another ordinary number in one pixel."""
    other = planes.copy()
    for index in picked:
        here = planes[(index, *pixel)]
        ordinary = np.sort(planes[index][np.isfinite(planes[index]) & (planes[index] != here)])
        if ordinary.size:
            other[(index, *pixel)] = ordinary[ordinary.size // 2]
    return other


def _changed_channels(before: Images, after: Images, pixel: tuple[int, int]) -> list[list[int]]:
    """Return the indices of the channels that differ at a pixel, as loaded and as transformed."""
    at = (slice(None), *pixel)
    return [
        np.flatnonzero((a.data[at] != b.data[at]) | (a.valid[at] != b.valid[at])).tolist()
        for a, b in zip(before, after, strict=True)
    ]


def _expect_missing(
    case: ModalityCase,
    source: str,
    planes: Planes,
    picked: list[int],
    pixel: tuple[int, int],
    way: Way,
    changed: list[list[int]],
) -> None:
    """Call a pixel of the picked planes missing; the channels that changed with it must be invalid there."""
    fill = float("nan") if way == "NaN" else _number_near(planes[picked], pixel)
    planes = planes.copy()
    planes[(picked, *pixel)] = fill
    what = f"pixel {pixel} of {source!r}, plane {picked[0] if len(picked) == 1 else 'all'}, is missing by {way}"
    try:
        images = _load_with(case, source, planes, way, fill)
    except DataError as error:
        if len(picked) < len(planes):
            return
        raise CheckFailed(
            f"{what}; load refused the file: {error}", "load the other pixels, and mark this one invalid"
        ) from error
    for image, channels, method in zip(images, changed, ("load", "transform"), strict=True):
        if valid := [image.channels[index].name for index in channels if image.valid[(index, *pixel)]]:
            raise CheckFailed(
                f"{what}; after `{method}` it is valid in {', '.join(valid)}, computed from it",
                "pass self.nodata(source) to read_image and ImageFile.valid to from_planes, and let a channel of "
                "several planes be valid where all of their ImageFile.measured are",
            )


def _number_near(planes: Planes, pixel: tuple[int, int]) -> float:
    """Return a number next to that of a pixel: as plausible as a measurement."""
    here = planes[(0, *pixel)]
    if planes.dtype.kind == "f":
        return float(np.nextafter(here, planes.dtype.type(np.inf)))
    highest = 1 if planes.dtype.kind == "b" else np.iinfo(planes.dtype).max
    return float(int(here) + (1 if here < highest else -1))


_TOLERANCE = 1e-4  # rounding of values that are computed there and back, and relative to half a turn
_MOVE_BOTH = "flip and rotate data and valid together, as ModalityAdapter.flip and rotate do: call super() first"


@dataclass(frozen=True)
class _Move:
    """A flip along an axis of the array, or counter-clockwise quarter turns; `run` is the sensor's method.

    Attributes:
        count: how often it gives the image back.
    """

    words: str
    run: Callable[[SensorImage], SensorImage]
    count: int
    axis: int | None = None
    quarter_turns: int = 0

    def moved(self, planes: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
        """Return (C, H, W) planes with the pixels where they belong."""
        if self.axis is None:
            return np.rot90(planes, self.quarter_turns, axes=(1, 2))
        return np.flip(planes, self.axis)


def _moves(adapter: ModalityAdapter) -> Iterator[_Move]:
    yield _Move("a horizontal flip", partial(adapter.flip, axis="horizontal"), 2, axis=2)
    yield _Move("a vertical flip", partial(adapter.flip, axis="vertical"), 2, axis=1)
    for turns, count in ((1, 4), (2, 2), (3, 4)):
        words = f"{turns} quarter turn{'s' if turns > 1 else ''}"
        yield _Move(words, partial(adapter.rotate, quarter_turns=turns), count, quarter_turns=turns)


def flips_and_turns_move_pixels(case: ModalityCase) -> None:
    """Flips and counter-clockwise turns move values and `valid` alike, a part as the whole, and undone give it back."""
    image = _filled(case.load(case.samples[0].files))
    corner = np.ones_like(image.valid)
    corner[:, : image.size_hw[0] // 4, : image.size_hw[1] // 3] = False  # unlike all of its mirror images
    part = np.zeros_like(image.valid)  # --paste flips objects in their own boxes
    part[:, image.size_hw[0] // 2 :, image.size_hw[1] // 3 :] = True
    for move in _moves(case.adapter):
        moved = move.run(replace(image, data=image.data.copy(), valid=corner.copy()))
        if not np.array_equal(moved.valid, move.moved(corner)):
            raise CheckFailed(f"after {move.words}, the valid pixels are not where they belong", _MOVE_BOTH)
        moved = back = move.run(image)
        for _ in range(move.count - 1):
            back = move.run(back)
        same_shape = back.data.shape == image.data.shape
        if not same_shape or not np.allclose(back.data, image.data, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise CheckFailed(
                f"{move.words}, {move.count} times, changed the values",
                "override flip and rotate together, for values that depend on direction and for nothing else",
            )
        _expect_values(move, image, moved)
        if not same_bits(_part(moved, move.moved(part)), move.run(_part(image, part))):
            raise CheckFailed(
                f"after {move.words}, a part of an image differs from that part of the whole image",
                "let flip and rotate change values by direction alone, not by their place in the image",
            )


def images_are_not_written_into(case: ModalityCase) -> None:
    """`transform`, `flip` and `rotate` do not change the image they are given."""
    methods: dict[str, Callable[[SensorImage], SensorImage]] = {
        "transform": case.adapter.transform,
        "flip": partial(case.adapter.flip, axis="horizontal"),
        "rotate": partial(case.adapter.rotate, quarter_turns=1),
    }
    for name, method in methods.items():
        image = case.load(case.samples[0].files)
        before = replace(image, data=image.data.copy(), valid=image.valid.copy())
        method(image)
        if not same_bits(image, before):
            raise CheckFailed(
                f"{name} changed the image it was given, which may be used again",
                "compute new arrays, or begin with image.data.copy()",
            )


def _filled(image: SensorImage) -> SensorImage:
    """Return the image valid everywhere, with each channel's median where nothing was measured."""
    data = image.data.copy()
    for plane, valid in zip(data, image.valid, strict=True):
        plane[~valid] = np.median(plane[valid]) if valid.any() else 0
    return replace(image, data=data, valid=np.ones_like(image.valid), georeference=None)


def _expect_values(move: _Move, image: SensorImage, found: SensorImage) -> None:
    """Fail for values in the wrong place, and for angles of polarization that do not turn with the image.

    Other channels that depend on direction, such as normals, may change their values: a channel is judged only where it
    has the same values as before.
    """
    for channel, plane, wanted in zip(image.channels, found.data, move.moved(image.data), strict=True):
        if channel.quantity in POLARIZATION_ANGLES:
            half = np.pi if channel.unit == "rad" else 180.0
            angle = wanted + move.quarter_turns * half / 2 if move.axis is None else -wanted
            if np.abs((plane - angle + half / 2) % half - half / 2).max() > _TOLERANCE * half:
                raise CheckFailed(
                    f"after {move.words}, the angles of channel {channel.name!r} are not those of the turned image",
                    "let a mirror make θ to -θ and a quarter turn θ to θ + 90°, modulo 180°",
                )
            continue
        slack = 1e-5 * float(np.ptp(wanted)) + np.finfo(np.float32).tiny
        same_values = np.abs(np.sort(plane, axis=None) - np.sort(wanted, axis=None)).max() <= slack
        if same_values and np.abs(plane - wanted).max() > slack:
            raise CheckFailed(
                f"after {move.words}, the values of channel {channel.name!r} are not where they belong", _MOVE_BOTH
            )


def _part(image: SensorImage, part: BoolArray) -> SensorImage:
    """Return the rectangle of an image where `part` (C, H, W) is True."""
    rows, columns = np.nonzero(part[0])
    box = (slice(None), slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    data, valid = np.ascontiguousarray(image.data[box]), np.ascontiguousarray(image.valid[box])
    return replace(image, data=data, valid=valid, georeference=None)
