"""What a predictor reads, the mask it finds, and the checks of both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from simmat.data.card import DataCard
from simmat.data.pipeline import PreparedImage
from simmat.errors import ConfigError, DataError
from simmat.foundation import MaskPrediction
from simmat.report.colour_maps import look_of
from simmat.sensors.adapter import Missing, ModalityAdapter, load_sample
from simmat.sensors.normalize import CLIP
from simmat.types import RGB_QUANTITY, BoolArray, Channel, FloatArray, Georeference, Prompt, SensorImage, Window

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject

Choice = Literal["single", "best"]


class ImageReader(Protocol):
    """An image that is read in parts."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """(H, W) in pixels."""

    @property
    def georeference(self) -> Georeference | None:
        """Of the whole image, where the file states it."""

    @property
    def origin(self) -> str:
        """Source of the image, for messages."""

    def read(self, window: Window) -> SensorImage:
        """Read a part of the image."""


@dataclass(frozen=True)
class LoadedImage:
    """An image in memory."""

    image: SensorImage

    @property
    def size_hw(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.size_hw

    @property
    def georeference(self) -> Georeference | None:
        """Of the whole image."""
        return self.image.georeference

    @property
    def origin(self) -> str:
        """Source of the image."""
        return self.image.origin

    def read(self, window: Window) -> SensorImage:
        """Return a part of the image, or the image itself."""
        return self.image if window == (0, 0, *self.size_hw) else self.image.cut(window)


@dataclass(frozen=True)
class FileImage:
    """An image whose files are read in parts."""

    adapter: ModalityAdapter
    files: Mapping[str, Path]
    size_hw: tuple[int, int]
    card: DataCard
    missing: Missing
    georeference: Georeference | None = None

    @property
    def origin(self) -> str:
        """The first file."""
        return str(next(iter(self.files.values())))

    def read(self, window: Window) -> SensorImage:
        """Read a part of the files."""
        nodata = self.card.stated_nodata(self.files)  # a new one, as it keeps what was read
        return load_sample(self.adapter, self.files, nodata=nodata, missing=self.missing, window=window)


@dataclass(frozen=True)
class Prediction:
    """A mask of one image; those of `LargeImage` cover a window of it.

    Attributes:
        mask: (H, W) bool at the original resolution.
        logits: (H, W) float32; the mask is where they are above 0.
        score: predicted IoU of the mask.
        low_res: (h, w) float32, the same logits at the decoder's own size; `predict(mask=)` takes them.
        image: what was loaded, of the size of the mask.
        window: the part of the whole image that the mask covers; all of it from `Predictor.predict`.
        doubt: how the values differ from those of training, so that the mask may be meaningless; "" if they do not.
        class_id: class that the object most likely has; None if the model does not distinguish classes.
        class_probability: of that class among all classes but the background.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    low_res: FloatArray
    image: SensorImage
    window: Window
    doubt: str = ""
    class_id: int | None = None
    class_probability: float | None = None

    def __repr__(self) -> str:
        """Give the size of the mask and its score, not half a million numbers."""
        return f"<Prediction: {int(self.mask.sum())} of {self.mask.size} pixels, score {self.score:.3f}>"

    def found_object(self, point_xy: tuple[float, float]) -> FoundObject | None:
        """Return the mask in pixels of the whole image; None if it is empty."""
        from simmat.data.instances import FoundObject, region_from_mask

        region = region_from_mask(self.mask, self.class_id, (self.window.y0, self.window.x0))
        return None if region is None else FoundObject(region, self.score, point_xy, self.class_probability)


_FAR, _MOSTLY, _FLAT = 0.99, 0.5, 0.02
"""Share of the clip value, share of the pixels, share of training's standard deviation: see `unlike_training`."""
_LOOKED_AT = 128
"""Pixels along each side that are enough to see it, evenly spread."""


def unlike_training(prepared: PreparedImage, channels: Sequence[Channel]) -> str:
    """Return which channel's values are far from those of training, as in another unit or bit depth; "" if none is.

    RGB channels are scaled by the foundation model's statistics, which say nothing of the training images.
    """
    step = max(prepared.content.shape[0] // _LOOKED_AT, 1)
    content = prepared.content[::step, ::step]
    for channel, plane in zip(channels, prepared.planes[:, ::step, ::step], strict=True):
        valid = plane[content & (plane != 0)]  # invalid pixels are 0
        if channel.quantity == RGB_QUANTITY or not valid.numel() or channel.mean is None or channel.std is None:
            continue
        look = look_of(channel)
        trained = f"{look.text(channel.mean, 4)} ± {look.factor * channel.std:.4g} {look.unit}"
        if float((valid.abs() >= _FAR * CLIP).float().mean()) > _MOSTLY:
            return f"most values of channel {channel.name!r} are far from those of training ({trained})"
        if valid.numel() > 1 and float(valid.std()) < _FLAT:
            return f"the values of channel {channel.name!r} vary much less than those of training ({trained})"
    return ""


def as_numbers(given: Any, name: str, form: str, *shape: int) -> FloatArray:
    """Return numbers as float32 of a shape; TypeError, which names the form they must have, for anything else."""
    try:
        return np.asarray(given, np.float32).reshape(shape)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, {form}; got {given!r}") from None


def check_mask_size(mask: npt.NDArray[np.generic] | None, decoded: MaskPrediction) -> None:
    """Refuse a mask of another size than the decoder's own."""
    expected = tuple(decoded.logits.shape[-2:])
    if mask is not None and mask.shape != expected:
        raise ValueError(
            f"mask must be {expected} logits, the low_res of an earlier prediction of this model, got {mask.shape}"
        )


def check_units(image: SensorImage, planes: npt.NDArray[np.generic]) -> None:
    """Refuse an array that is in another unit: most of its numbers, and of its different numbers, are out of range.

    A fill value is one number, however often it occurs.

    Args:
        image: (C, H, W) made of `planes`.
        planes: (C, H, W) before anything became invalid.
    """
    for channel, plane, valid in zip(image.channels, planes, image.valid, strict=True):
        finite = plane[np.isfinite(plane)]
        without = plane[np.isfinite(plane) & ~valid]
        if 2 * without.size > finite.size and np.unique(without).size > max(np.unique(plane[valid]).size, 1):
            raise DataError(
                f"{image.origin}: most of its numbers are out of the range of {range_of(channel)}; they are "
                f"{finite.min():.6g} to {finite.max():.6g}. An array must be in the channels' units, whatever the unit "
                "of the files: convert it, give the file, or give a SensorImage whose channel has another unit"
            )


def range_of(channel: Channel) -> str:
    """Name a channel with its valid range: "thermal, 150 to 2500 K"."""
    low, high = channel.valid_range or (-math.inf, math.inf)
    return f"{channel.name}, {low:g} to {high:g} {channel.unit}"


def check_inside(prompt: Prompt, image: SensorImage | ImageReader) -> None:
    """Refuse points that are not on a pixel of the image, and boxes that cross its edges."""
    height, width = image.size_hw
    problems = [
        f"point {x:g},{y:g} (X is 0 to {width - 1}, Y 0 to {height - 1})"
        for x, y in prompt.point_coords.tolist()
        if not (0 <= x < width and 0 <= y < height)
    ]
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box.tolist()
        if not (0 <= x0 and x1 <= width and 0 <= y0 and y1 <= height):
            problems.append(f"box {x0:g},{y0:g},{x1:g},{y1:g} (X is 0 to {width}, Y 0 to {height})")
    if problems:
        raise ConfigError(
            f"{image.origin}: {' and '.join(problems)} outside of the image, which is {width} wide and {height} high"
            + (f"; {note}" if (note := getattr(image, "size_note", "")) else "")
        )
