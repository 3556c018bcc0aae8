"""The mask that a predictor finds, and the checks of the prompt and the values it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from simmat.data.pipeline import PreparedImage
from simmat.errors import ConfigError
from simmat.foundation import MaskPrediction
from simmat.report.colour_maps import look_of
from simmat.sensors.normalize import CLIP
from simmat.types import RGB_QUANTITY, BoolArray, Channel, FloatArray, ImageReader, Prompt, SensorImage, Window

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject


Choice = Literal["single", "best"]

_PROMPTS_AT_ONCE = 16


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
        class_probability: probability of that class among all classes but the background.
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

    def whole_mask(self, size_hw: tuple[int, int]) -> BoolArray:
        """Return the mask at the (height, width) of the whole image, False outside of its window."""
        mask = np.zeros(size_hw, np.bool_)
        mask[self.window.slices] = self.mask
        return mask

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


def check_choice(choice: str) -> None:
    """Refuse an unknown choice of masks."""
    if choice not in get_args(Choice):
        raise ValueError(f"choice must be one of {', '.join(map(repr, get_args(Choice)))}, got {choice!r}")


def of_one_kind(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Group the indices of prompts that can be decoded together, at most `_PROMPTS_AT_ONCE` in a group."""
    kinds: dict[tuple[int, bool, bool], list[int]] = {}
    for place, prompt in enumerate(prompts):
        kind = (len(prompt.point_coords), prompt.box is None, prompt.mask_input is None)
        kinds.setdefault(kind, []).append(place)
    step = _PROMPTS_AT_ONCE
    return [places[start : start + step] for places in kinds.values() for start in range(0, len(places), step)]
