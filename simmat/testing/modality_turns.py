"""How a modality mirrors, turns and transforms its images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from simmat.sensors.adapter import Axis, ModalityAdapter
from simmat.testing.checks import CheckFailed
from simmat.testing.modality_files import same_bits
from simmat.testing.modality_saving import POLARIZATION_ANGLES
from simmat.testing.samples import ModalityCase
from simmat.types import BoolArray, SensorImage

ScalarT = TypeVar("ScalarT", bound=np.generic)

_TURN = "override flip and rotate together, for values that depend on direction and for nothing else"
_SAME = 1e-4  # of values that are computed there and back, and of half a turn
_AXES: tuple[Axis, Axis] = ("horizontal", "vertical")


@dataclass(frozen=True)
class _Way:
    """One mirror or turn.

    Attributes:
        words: for messages.
        run: what the sensor makes of it.
        axis: of the array that is mirrored, or None.
        quarter_turns: counter-clockwise.
    """

    words: str
    run: Callable[[SensorImage], SensorImage]
    axis: int | None = None
    quarter_turns: int = 0

    def moved(self, planes: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
        """Return (C, H, W) planes where the pixels belong."""
        if self.axis is None:
            return np.rot90(planes, self.quarter_turns, axes=(1, 2))
        return np.flip(planes, self.axis)


def flips_and_turns_return(case: ModalityCase) -> None:
    """Mirroring twice and turning four times give the image back, and a part of it becomes what it is in the whole."""
    image, adapter = case.load(case.samples[0].files), case.adapter
    ways: dict[str, Callable[[], SensorImage]] = {
        f"two {axis} flips": lambda axis=axis: adapter.flip(adapter.flip(image, axis), axis)  # type: ignore[misc]
        for axis in _AXES
    }
    ways["four quarter turns"] = lambda: _turned(adapter, image)
    for what, again in ways.items():
        back = again()
        if back.data.shape != image.data.shape or not np.array_equal(back.valid, image.valid):
            raise CheckFailed(f"{what} gave other valid pixels or another shape", _TURN)
        if not np.allclose(back.data[back.valid], image.data[image.valid], rtol=_SAME, atol=_SAME):
            raise CheckFailed(f"{what} changed the values", _TURN)
    part = np.zeros(image.valid.shape, dtype=np.bool_)  # --paste mirrors objects by their own boxes
    part[:, image.size_hw[0] // 2 :, image.size_hw[1] // 3 :] = True
    for way in _ways(adapter):
        within = _part(way.run(image), way.moved(part))
        if not same_bits(within, way.run(_part(image, part))):
            raise CheckFailed(
                f"{way.words}, a part of an image became another than within the whole",
                "let flip and rotate see to values and direction alone, not to places in the image",
            )


def flips_and_turns_move_pixels(case: ModalityCase) -> None:
    """A mirror swaps left and right or top and bottom, and a turn is counter-clockwise, for values as for `valid`."""
    image = _full(case.load(case.samples[0].files))
    cornered = image.valid.copy()
    cornered[:, : image.size_hw[0] // 4, : image.size_hw[1] // 3] = False  # like none of its mirror images
    for way in _ways(case.adapter):
        for valid in (image.valid, cornered):
            found, wanted = way.run(replace(image, data=image.data.copy(), valid=valid.copy())), way.moved(valid)
            if found.valid.shape != wanted.shape or not np.array_equal(found.valid, wanted):
                raise CheckFailed(f"{way.words}, the valid pixels are not where they belong", _PLACES)
        _expect_values(way, image, way.run(replace(image, data=image.data.copy())))


def images_are_not_written_into(case: ModalityCase) -> None:
    """`transform`, `flip` and `rotate` leave the image they are given as it is."""
    adapter = case.adapter
    methods: dict[str, Callable[[SensorImage], SensorImage]] = {
        "transform": adapter.transform,
        "flip": partial(adapter.flip, axis="horizontal"),
        "rotate": partial(adapter.rotate, quarter_turns=1),
    }
    for name, method in methods.items():
        image = case.load(case.samples[0].files)
        before = replace(image, data=image.data.copy(), valid=image.valid.copy())
        method(image)
        if not same_bits(image, before):
            raise CheckFailed(
                f"{name} wrote into the image it was given, so that it works twice where an image is used twice",
                "compute new arrays, or begin with image.data.copy()",
            )


_PLACES = "mirror and turn data and valid together, as ModalityAdapter.flip and rotate do: call super() first"


def _ways(adapter: ModalityAdapter) -> Iterator[_Way]:
    yield _Way("after a horizontal flip", partial(adapter.flip, axis="horizontal"), axis=2)
    yield _Way("after a vertical flip", partial(adapter.flip, axis="vertical"), axis=1)
    for turns in (1, 2, 3):
        words = f"after {turns} quarter turn{'s' if turns > 1 else ''}"
        yield _Way(words, partial(adapter.rotate, quarter_turns=turns), quarter_turns=turns)


def _full(image: SensorImage) -> SensorImage:
    """Return the image valid throughout, each channel's median where nothing was measured."""
    data = image.data.copy()
    for plane, valid in zip(data, image.valid, strict=True):
        plane[~valid] = np.median(plane[valid]) if valid.any() else 0
    return replace(image, data=data, valid=np.ones_like(image.valid), georeference=None)


def _expect_values(way: _Way, image: SensorImage, found: SensorImage) -> None:
    """Refuse values in the wrong place, and angles of polarization that do not turn with the image.

    Other channels that depend on direction, as normals, may change their values; what only moves has all it had.
    """
    wanted = way.moved(image.data)
    for channel, plane, place in zip(image.channels, found.data, wanted, strict=True):
        if channel.quantity in POLARIZATION_ANGLES:
            half = np.pi if channel.unit == "rad" else 180.0
            angle = place + way.quarter_turns * half / 2 if way.axis is None else -place
            if np.abs((plane - angle + half / 2) % half - half / 2).max() > _SAME * half:
                raise CheckFailed(
                    f"{way.words}, the angles of channel {channel.name!r} are not those of the turned picture",
                    "let a mirror make θ to -θ and a quarter turn θ to θ + 90°, modulo 180°",
                )
            continue
        slack = 1e-5 * float(np.ptp(place)) + np.finfo(np.float32).tiny
        moved = np.abs(np.sort(plane, axis=None) - np.sort(place, axis=None)).max() <= slack
        if moved and np.abs(plane - place).max() > slack:
            raise CheckFailed(f"{way.words}, the values of channel {channel.name!r} are not where they belong", _PLACES)


def _part(image: SensorImage, part: BoolArray) -> SensorImage:
    """Return the rectangle of an image where `part` (C, H, W) is True."""
    rows, columns = np.nonzero(part[0])
    box = (slice(None), slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    data, valid = np.ascontiguousarray(image.data[box]), np.ascontiguousarray(image.valid[box])
    return replace(image, data=data, valid=valid, georeference=None)


def _turned(adapter: ModalityAdapter, image: SensorImage) -> SensorImage:
    for _ in range(4):
        image = adapter.rotate(image, 1)
    return image
