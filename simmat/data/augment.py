"""Augment an image in physical units, with any number of channels, together with its label.

Nothing is resampled here: a scaled crop is a window of the original pixels, which the pipeline resizes later anyway.
Pixels of a window outside the image are invalid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from simmat.data.copy_paste import repeat_regions
from simmat.data.instances import Annotation, Instance, region_from_mask
from simmat.io.images import full_scale
from simmat.sensors.adapter import Axis, ModalityAdapter
from simmat.types import RGB_QUANTITY, BoolArray, FloatArray, SensorImage, Window

ANGLE_UNITS = ("rad", "deg")
"""Units of channels whose values do not change: gain and offset make no sense for an angle."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a training image.

    Attributes:
        flip: mirror left-right with probability 0.5; with `rotate`, also top-bottom with probability 0.5.
        rotate: rotate by a random number of quarter turns; for images without an up direction.
        scale: smallest and largest magnification. Above 1 crops a window; below 1 puts the image at a random place in
            a larger image that is invalid elsewhere.
        gain: largest change of a channel's contrast around its mean, as a fraction.
        offset: largest shift of a channel, in its standard deviations within the image.
        noise: largest standard deviation of added Gaussian noise, in the same unit as `offset`. Gain, offset and noise
            apply to the logarithm of channels that the adapter reports as `is_log_scale`.
        keep: a region cut by a window is kept if at least this fraction of it is inside.
        paste: fraction of images in which regions are repeated, see `repeat_regions`.
    """

    flip: bool = True
    rotate: bool = False
    scale: tuple[float, float] = (0.8, 1.5)
    gain: float = 0.2
    offset: float = 0.2
    noise: float = 0.03
    keep: float = 0.25
    paste: float = 0

    @classmethod
    def none(cls) -> Augmentation:
        """Return an augmentation that changes nothing."""
        return cls(flip=False, rotate=False, scale=(1, 1), gain=0, offset=0, noise=0)

    def __call__(
        self,
        image: SensorImage,
        label: Annotation,
        adapter: ModalityAdapter,
        rng: np.random.Generator,
    ) -> tuple[SensorImage, Annotation]:
        """Return a changed image and its label; the same `rng` state gives the same result.

        The image, (C, H, W) before the adapter's transform, may change its size. A label with a region still has one.
        """
        before = image
        if self.paste and rng.random() < self.paste:
            image, label = repeat_regions(
                image, label, adapter, rng, rotate=self.rotate
            )
        for axis in self._flip_axes():
            if rng.random() < 0.5:
                image = adapter.flip(image, axis)
                label = _flip_label(label, axis)
        turns = int(rng.integers(4)) if self.rotate else 0
        if turns:
            image = adapter.rotate(image, turns)
            label = _rotate_label(label, turns)
        if self.scale != (1, 1):
            window = self._scaled_window(label, rng)
            image = cut_image(image, window)
            label = cut_label(label, window, self.keep)
        image = self._jitter(image, adapter.is_log_scale(image.channels), rng)
        if image is not before:
            image = replace(image, georeference=None)
        return image, label

    def _flip_axes(self) -> tuple[Axis, ...]:
        if not self.flip:
            return ()
        if self.rotate:
            return ("horizontal", "vertical")
        return ("horizontal",)

    def _scaled_window(self, label: Annotation, rng: np.random.Generator) -> Window:
        """Draw the window of a magnification: smaller than the image above 1, larger below."""
        low, high = np.log(self.scale)
        magnification = float(np.exp(rng.uniform(low, high)))
        height, width = label.size_hw
        size_hw = (
            max(round(height / magnification), 1),
            max(round(width / magnification), 1),
        )
        return place_window(label, size_hw, rng)

    def _jitter(
        self, image: SensorImage, logarithmic: Sequence[bool], rng: np.random.Generator
    ) -> SensorImage:
        """Change each channel's contrast and level and add noise, within the channel's range.

        A pixel at an end of its channel's valid range is saturated or dark and stays as it is, except in sRGB images.
        """
        if not (self.gain or self.offset or self.noise):
            return image
        data = np.empty_like(image.data)
        scratch = np.empty_like(image.data[0])
        for index, (channel, factors) in enumerate(
            zip(image.channels, logarithmic, strict=True)
        ):
            gain, offset, level = (
                rng.uniform(-1, 1, size=3) * (self.gain, self.offset, self.noise)
            ).tolist()
            start = int(rng.integers(_NOISE))
            plane = image.data[index]
            changed = data[index]
            taken = image.valid[index] & (plane > 0) if factors else image.valid[index]
            if channel.unit in ANGLE_UNITS or not taken.any():
                changed[:] = plane
                continue
            values = (
                np.log(plane, out=np.zeros_like(plane), where=taken)
                if factors
                else plane
            )
            whole = bool(taken.all())
            measured = values if whole else values[taken]
            mean = measured.mean()
            np.subtract(values, mean, out=changed)
            squares = (
                np.square(changed, out=scratch) if whole else np.square(measured - mean)
            )
            std = float(np.sqrt(squares.mean()))
            changed *= 1 + gain
            changed += float(mean) + std * offset
            if self.noise:
                changed += np.multiply(
                    _noise(start, image.size_hw), np.float32(std * level), out=scratch
                )
            if factors:  # positive values stay positive
                np.exp(changed, out=changed)
                low, high = channel.valid_range or (0.0, np.inf)
            else:
                low, high = channel.valid_range or (-np.inf, np.inf)
                least = float(measured.min())
                if least >= 0:  # a logarithm or a reciprocal may follow
                    low = max(low, least)
            np.clip(changed, low, high, out=changed)
            moves = taken
            if channel.quantity != RGB_QUANTITY and channel.valid_range is not None:
                lowest, highest = channel.valid_range
                moves = moves & (plane > lowest) & (plane < full_scale(highest))
            if not moves.all():
                np.copyto(changed, plane, where=~moves)
        return replace(image, data=data)


_NOISE = 1 << 21
"""Different values of noise; drawing new ones for each image would take a third of the time of an item."""


@lru_cache(maxsize=1)
def _noise_values() -> FloatArray:
    return np.random.default_rng(0).standard_normal(_NOISE, dtype=np.float32)


def _noise(start: int, size_hw: tuple[int, ...]) -> FloatArray:
    """Return (H, W) standard normal values: a part of `_NOISE` ones, which repeat in larger images."""
    values = _noise_values()
    count = math.prod(size_hw)
    if count > _NOISE:
        return np.resize(np.roll(values, start), size_hw)
    start %= _NOISE - count + 1
    return values[start : start + count].reshape(size_hw)


def place_window(
    label: Annotation, size: tuple[int, int], rng: np.random.Generator
) -> Window:
    """Choose a window of some height and width that contains a random region.

    A region that fits is completely inside; of a larger one, a random pixel is. The window may extend beyond the image.
    """
    must = _anchor(label, size, rng)
    height, width = size
    y0 = _place(label.size_hw[0], height, (must.y0, must.y1), rng)
    x0 = _place(label.size_hw[1], width, (must.x0, must.x1), rng)
    return Window(y0, x0, y0 + height, x0 + width)


def cut_image(image: SensorImage, window: Window) -> SensorImage:
    """Crop an image to a window; pixels outside the image are 0 and invalid."""
    data = np.zeros((len(image.channels), *window.size_hw), dtype=np.float32)
    valid = np.zeros(data.shape, dtype=np.bool_)
    shared = window.intersection(Window(0, 0, *image.size_hw))
    if shared is not None:
        place = shared.relative_to(window).slices
        data[:, *place] = image.data[:, *shared.slices]
        valid[:, *place] = image.valid[:, *shared.slices]
    return replace(image, data=data, valid=valid)


def cut_label(label: Annotation, window: Window, keep: float) -> Annotation:
    """Crop a label to a window; pixels outside the image are ignored.

    A region is kept if at least a fraction `keep` of it is inside; if none is, the largest piece is. Other pieces
    become `small`.
    """
    ignore = np.ones(window.size_hw, dtype=np.bool_)
    shared = window.intersection(Window(0, 0, *label.size_hw))
    if shared is not None:
        ignore[shared.relative_to(window).slices] = label.ignore[shared.slices]
    kept: list[Instance] = []
    small: list[Instance] = []
    for region in label.regions:
        piece = _cut_region(region, window)
        if piece is None:
            continue
        if piece.area >= keep * region.area:
            kept.append(piece)
        else:
            small.append(piece)
    if small and not kept:
        largest = max(range(len(small)), key=lambda index: small[index].area)
        kept.append(small.pop(largest))
    for region in label.small:
        piece = _cut_region(region, window)
        if piece is not None:
            small.append(piece)
    return replace(
        label,
        size_hw=window.size_hw,
        regions=tuple(kept),
        ignore=ignore,
        small=tuple(small),
    )


def _anchor(
    label: Annotation, size: tuple[int, int], rng: np.random.Generator
) -> Window:
    """Return what the window must contain: the box or a pixel of a random region; an empty box without regions."""
    if not label.regions:
        return Window(0, 0, 0, 0)
    region = label.regions[int(rng.integers(len(label.regions)))]
    number = int(rng.integers(region.area))
    height, width = region.window.size_hw
    if height <= size[0] and width <= size[1]:
        return region.window
    column, row = region.pixel_xy(number)
    x = int(column)
    y = int(row)
    return Window(y, x, y + 1, x + 1)


def _place(
    extent: int, length: int, must: tuple[int, int], rng: np.random.Generator
) -> int:
    """Draw the start of a window of `length` on an axis of `extent` so that it contains `must` (start, stop)."""
    low, high = sorted((0, extent - length))
    start, stop = must
    if stop > start:
        low = max(low, stop - length)
        high = min(high, start)
    return int(rng.integers(low, high + 1))


def _cut_region(region: Instance, window: Window) -> Instance | None:
    shared = window.intersection(region.window)
    if shared is None:
        return None
    place = shared.relative_to(window)
    if shared == region.window:
        return replace(region, window=place)
    piece = region.crop[shared.relative_to(region.window).slices]
    return region_from_mask(piece, region.class_id, place[:2], region.object_id)


def _flip_label(label: Annotation, axis: Axis) -> Annotation:
    height, width = label.size_hw
    if axis == "horizontal":
        return _changed(
            label,
            np.fliplr,
            lambda y0, x0, y1, x1: Window(y0, width - x1, y1, width - x0),
        )
    return _changed(
        label,
        np.flipud,
        lambda y0, x0, y1, x1: Window(height - y1, x0, height - y0, x1),
    )


def _rotate_label(label: Annotation, quarter_turns: int) -> Annotation:
    """Rotate counter-clockwise; a turn of 90° moves the pixel at (y, x) to (width - 1 - x, y)."""
    for _ in range(quarter_turns):
        width = label.size_hw[1]
        label = _changed(
            label,
            np.rot90,
            lambda y0, x0, y1, x1, w=width: Window(w - x1, y0, w - x0, y1),
        )
    return label


def _changed(
    label: Annotation,
    turn: Callable[[BoolArray], BoolArray],
    move: Callable[..., Window],
) -> Annotation:
    """Return a label with all masks turned, and all windows (y0, x0, y1, x1) moved."""

    def changed(region: Instance) -> Instance:
        return replace(
            region,
            window=move(*region.window),
            crop=np.ascontiguousarray(turn(region.crop)),
        )

    ignore = np.ascontiguousarray(turn(label.ignore))
    height, width = ignore.shape
    return replace(
        label,
        size_hw=(height, width),
        regions=tuple(map(changed, label.regions)),
        small=tuple(map(changed, label.small)),
        ignore=ignore,
    )
