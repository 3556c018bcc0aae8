"""Checks of a sensor's values: through save and load, and through flips, turns and transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from simmat.sensors.adapter import Axis, ModalityAdapter
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.modality_files import same_bits
from simmat.testing.samples import ModalityCase
from simmat.types import BoolArray, FloatArray, SensorImage

ScalarT = TypeVar("ScalarT", bound=np.generic)

POLARIZATION_ANGLES = ("angle_of_linear_polarization", "angle_of_polarization")
"""Quantities whose values are angles in the image, equal after half a turn; a mirror negates them."""

_DIFFERENCE = 0.2  # allowed, relative to the mean deviation, which is some 2 to 5 % of the range
_SMOOTHED_DIFFERENCE = 0.4  # the same of block means: a filter works in power, and shifts the mean of its logarithm
_SMOOTHS = 0.7  # of the difference between neighbours: what keeps less is a filter against speckle or noise
_BLOCK = 8
_NEARER = 0.7  # a mirror image must be nearer by this factor: an image may resemble its own mirror image
_MIRRORS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "with left and right swapped": lambda plane: plane[:, ::-1],
    "with top and bottom swapped": lambda plane: plane[::-1],
    "upside down": lambda plane: plane[::-1, ::-1],
}


def what_is_saved_is_loaded(case: ModalityCase) -> None:
    """`load` reads back what `save` wrote, each value in its place, to the precision of the file."""
    compared = False
    for sample in case.samples:
        if sample.simulated is None:
            raise CheckSkipped("the sample files are given, so it is unknown what was saved")
        saved, loaded = sample.simulated, case.load(sample.files)
        if saved.size_hw != loaded.size_hw:
            raise CheckSkipped("the image comes back in another size, see keeps-odd-sizes")
        kinds = [(channel.name, channel.quantity, channel.unit) for channel in loaded.channels]
        for one, channel in enumerate(saved.channels):
            kind = (channel.name, channel.quantity, channel.unit)
            if kind not in kinds:  # only values in one unit can be compared
                continue
            other = kinds.index(kind)
            valid = saved.valid[one] & loaded.valid[other]
            if valid.sum() * 2 < saved.valid[one].sum():
                raise CheckFailed(
                    f"channel {channel.name!r} was saved with {int(saved.valid[one].sum())} valid pixels, "
                    f"of which {int(valid.sum())} are valid as loaded",
                    "let save write no measured value as nodata, and look at valid_range and unit",
                )
            if saved.valid[one].any():
                _expect_alike(saved, one, loaded, other)
                compared = True
    if not compared:
        raise CheckSkipped("no channel that is loaded is one that was simulated")


def _expect_alike(saved: SensorImage, one: int, loaded: SensorImage, other: int) -> None:
    """Compare channel `one` as saved with channel `other` as loaded."""
    channel, original, plane = saved.channels[one], saved.data[one], loaded.data[other]
    good = saved.valid[one] & loaded.valid[other]
    smooths = _variation(plane, good) < _SMOOTHS * _variation(original, good)
    period = {"rad": 2 * np.pi, "deg": 360.0}.get(channel.unit)
    if period is not None and channel.quantity in POLARIZATION_ANGLES:
        period /= 2

    def difference(values: FloatArray, valid: BoolArray) -> float:
        return _mean_difference(plane, values, good & valid, period, smooths)

    found = difference(original, saved.valid[one])
    for words, mirror in _MIRRORS.items():
        if difference(mirror(original), np.asarray(mirror(saved.valid[one]))) < _NEARER * found:
            raise CheckFailed(
                f"channel {channel.name!r}, as loaded, is what was saved {words}",
                "let row 0 and column 0 be the upper left pixel in save and in load",
            )
    values = original[good].astype(np.float64)
    spread = float(np.abs(values - np.median(values)).mean()) or float(np.abs(values).mean()) or 1.0
    steps = np.diff(np.unique(plane[good]))  # a file of whole numbers rounds, or truncates, by up to one step
    most = (_SMOOTHED_DIFFERENCE if smooths else _DIFFERENCE) * spread + (float(steps.min()) / 2 if steps.size else 0)
    if found > most:
        ranges = [f"{np.min(part):.4g} to {np.max(part):.4g}" for part in (values, plane[good])]
        raise CheckFailed(
            f"channel {channel.name!r} was saved as {ranges[0]} and loaded as {ranges[1]} {channel.unit}, "
            f"with a mean difference of {found:.3g}",
            "let save undo every scale and offset that load applies, and state the unit where the file can",
        )


def _mean_difference(
    one: FloatArray, other: FloatArray, valid: BoolArray, period: float | None, smooths: bool
) -> float:
    """Return the mean difference of two (H, W) planes over valid pixels; of block means where `smooths`.

    Angles of a period differ by the shorter way round. Without a valid pixel it is infinite.
    """
    if not valid.any():
        return float("inf")
    difference = np.where(valid, one, 0).astype(np.float64) - np.where(valid, other, 0)
    if period is not None:
        difference = (difference + period / 2) % period - period / 2
    if smooths:
        rows, columns = (np.arange(0, side, _BLOCK) for side in difference.shape)
        difference = np.add.reduceat(np.add.reduceat(difference, rows, axis=0), columns, axis=1)  # sums of blocks
    return float(np.abs(difference).sum() / valid.sum())


def _variation(plane: FloatArray, valid: BoolArray) -> float:
    """Return the mean difference of an (H, W) plane between valid neighbours in a row."""
    both = valid[:, 1:] & valid[:, :-1]
    filled = np.where(valid, plane, 0).astype(np.float64)
    return float(np.abs(np.diff(filled, axis=1))[both].mean()) if both.any() else 0.0


_SAME = 1e-4  # rounding of values that are computed there and back, and relative to half a turn
_AXES: tuple[Axis, Axis] = ("horizontal", "vertical")
_PLACES = "flip and rotate data and valid together, as ModalityAdapter.flip and rotate do: call super() first"


@dataclass(frozen=True)
class _Move:
    """A flip along an axis of the array, or counter-clockwise quarter turns; `run` is the sensor's method."""

    words: str
    run: Callable[[SensorImage], SensorImage]
    axis: int | None = None
    quarter_turns: int = 0

    def moved(self, planes: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
        """Return (C, H, W) planes with the pixels where they belong."""
        if self.axis is None:
            return np.rot90(planes, self.quarter_turns, axes=(1, 2))
        return np.flip(planes, self.axis)


def _moves(adapter: ModalityAdapter) -> Iterator[_Move]:
    yield _Move("after a horizontal flip", partial(adapter.flip, axis="horizontal"), axis=2)
    yield _Move("after a vertical flip", partial(adapter.flip, axis="vertical"), axis=1)
    for turns in (1, 2, 3):
        words = f"after {turns} quarter turn{'s' if turns > 1 else ''}"
        yield _Move(words, partial(adapter.rotate, quarter_turns=turns), quarter_turns=turns)


def flips_and_turns_return(case: ModalityCase) -> None:
    """Two flips and four quarter turns give the image back, and a part of an image is turned as within the whole."""
    image, adapter = case.load(case.samples[0].files), case.adapter
    methods: dict[str, list[Callable[[SensorImage], SensorImage]]] = {
        **{f"two {axis} flips": [partial(adapter.flip, axis=axis)] * 2 for axis in _AXES},
        "four quarter turns": [partial(adapter.rotate, quarter_turns=1)] * 4,
    }
    advice = "override flip and rotate together, for values that depend on direction and for nothing else"
    for what, steps in methods.items():
        back = image
        for step in steps:
            back = step(back)
        if back.data.shape != image.data.shape or not np.array_equal(back.valid, image.valid):
            raise CheckFailed(f"{what} gave other valid pixels or another shape", advice)
        if not np.allclose(back.data[back.valid], image.data[image.valid], rtol=_SAME, atol=_SAME):
            raise CheckFailed(f"{what} changed the values", advice)
    part = np.zeros(image.valid.shape, dtype=np.bool_)  # --paste flips objects in their own boxes
    part[:, image.size_hw[0] // 2 :, image.size_hw[1] // 3 :] = True
    for move in _moves(adapter):
        if not same_bits(_part(move.run(image), move.moved(part)), move.run(_part(image, part))):
            raise CheckFailed(
                f"{move.words}, a part of an image differs from that part of the whole image",
                "let flip and rotate change values by direction alone, not by their place in the image",
            )


def flips_and_turns_move_pixels(case: ModalityCase) -> None:
    """A mirror swaps left and right or top and bottom, and a turn is counter-clockwise, for values as for `valid`."""
    image = _filled(case.load(case.samples[0].files))
    cornered = image.valid.copy()
    cornered[:, : image.size_hw[0] // 4, : image.size_hw[1] // 3] = False  # unlike all of its mirror images
    for move in _moves(case.adapter):
        for valid in (image.valid, cornered):
            found = move.run(replace(image, data=image.data.copy(), valid=valid.copy()))
            if not np.array_equal(found.valid, move.moved(valid)):
                raise CheckFailed(f"{move.words}, the valid pixels are not where they belong", _PLACES)
        _expect_values(move, image, move.run(replace(image, data=image.data.copy())))


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
            if np.abs((plane - angle + half / 2) % half - half / 2).max() > _SAME * half:
                raise CheckFailed(
                    f"{move.words}, the angles of channel {channel.name!r} are not those of the turned image",
                    "let a mirror make θ to -θ and a quarter turn θ to θ + 90°, modulo 180°",
                )
            continue
        slack = 1e-5 * float(np.ptp(wanted)) + np.finfo(np.float32).tiny
        same_values = np.abs(np.sort(plane, axis=None) - np.sort(wanted, axis=None)).max() <= slack
        if same_values and np.abs(plane - wanted).max() > slack:
            raise CheckFailed(
                f"{move.words}, the values of channel {channel.name!r} are not where they belong", _PLACES
            )


def _part(image: SensorImage, part: BoolArray) -> SensorImage:
    """Return the rectangle of an image where `part` (C, H, W) is True."""
    rows, columns = np.nonzero(part[0])
    box = (slice(None), slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    data, valid = np.ascontiguousarray(image.data[box]), np.ascontiguousarray(image.valid[box])
    return replace(image, data=data, valid=valid, georeference=None)
