"""How much a mask depends on how the image is shown: the same prompt on flipped and shifted views of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from simmat.data.pipeline import restore_logits
from simmat.predictor.encoded import EncodedImage
from simmat.predictor.prompts import MaskSelection, chosen_mask, prompt_in
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import FloatArray, Prompt, SensorImage, Window

_SHIFT = 1 / 32
"""Part of each side by which a shifted view is cut."""


@dataclass(frozen=True)
class Uncertainty:
    """The probability of the object at each pixel over several views; NaN outside of the window of the mask.

    Attributes:
        mean: (H, W) float32, 0 to 1.
        std: (H, W) float32, 0 to 0.5; large where the views disagree.
    """

    mean: FloatArray
    std: FloatArray


class View(NamedTuple):
    """An image, or a window of one, as it is shown to the network.

    Attributes:
        name: of the way in which it is shown.
        pixels: as they are shown.
        prompt: in these pixels.
        flipped: axes of (H, W) along which they are flipped.
        window: the part of the image that is shown.
    """

    name: str
    pixels: SensorImage
    prompt: Prompt
    flipped: tuple[int, ...]
    window: Window


def views_of(
    adapter: ModalityAdapter, pixels: SensorImage, prompt: Prompt
) -> Iterator[View]:
    """Yield up to five views of an image: first itself, flips, and shifts in which the prompt is.

    Args:
        adapter: the sensor, which says how its planes are flipped.
        pixels: the image.
        prompt: in its pixels, without a mask.
    """
    height, width = pixels.size_hw
    whole = Window(0, 0, height, width)
    yield View("whole", pixels, prompt, (), whole)
    yield View(
        "horizontal",
        adapter.flip(pixels, "horizontal"),
        _mirrored(prompt, width, 0),
        (1,),
        whole,
    )
    yield View(
        "vertical",
        adapter.flip(pixels, "vertical"),
        _mirrored(prompt, height, 1),
        (0,),
        whole,
    )
    dy = max(round(height * _SHIFT), 1)
    dx = max(round(width * _SHIFT), 1)
    cuts = {
        "cut before": Window(dy, dx, height, width),
        "cut behind": Window(0, 0, height - dy, width - dx),
    }
    for name, window in cuts.items():
        if window.y0 >= window.y1 or window.x0 >= window.x1:
            continue
        part = pixels.cut(window)
        own = _cut_prompt(prompt, window)
        if own is not None and part.valid.any():
            yield View(name, part, own, (), window)


def object_probability(
    encoded: EncodedImage,
    view: View,
    mask_selection: MaskSelection,
    size_hw: tuple[int, int],
) -> FloatArray:
    """Return the (H, W) probability of the object of a view's prompt, in the image's pixels; NaN where none are shown.

    Args:
        encoded: the view, encoded.
        view: the view.
        mask_selection: which mask.
        size_hw: (H, W) of the image.
    """
    from scipy.special import expit  # slow to import, and masks need none

    answer = encoded.decode([view.prompt])
    mask = chosen_mask(answer.iou[0].tolist(), mask_selection)
    logits = answer.logits[:, mask : mask + 1].float()  # (1, 1, h, w)
    shown = restore_logits(logits, encoded.prepared.letterbox)[0, 0].cpu().numpy()
    found = np.full(size_hw, np.nan, np.float32)
    found[view.window.slices] = np.flip(shown, view.flipped)
    probability: FloatArray = expit(found)
    return probability


def mean_and_std(
    probabilities: Sequence[FloatArray], window: Window, size_hw: tuple[int, int]
) -> Uncertainty:
    """Return mean and standard deviation over the views of a window; NaN outside of it.

    Args:
        probabilities: (h, w) of each view, NaN where it shows nothing; no pixel is outside of all views.
        window: the window.
        size_hw: (H, W) of the whole image.
    """
    stack = np.stack(probabilities)  # (V, h, w)
    mean = np.full(size_hw, np.nan, np.float32)
    std = np.full(size_hw, np.nan, np.float32)
    mean[window.slices] = np.nanmean(stack, axis=0)
    std[window.slices] = np.nanstd(stack, axis=0)
    return Uncertainty(mean, std)


def _cut_prompt(prompt: Prompt, window: Window) -> Prompt | None:
    """Return a prompt in pixels of a part of its image; None if the part lacks a point on the object, or the box."""
    low = np.array([window.x0, window.y0])
    high = np.array([window.x1, window.y1])
    on = prompt.point_coords[prompt.point_labels == 1]
    if not ((on >= low) & (on < high)).all():
        return None
    box = prompt.box
    if box is not None:
        box = np.clip(box, np.tile(low, 2), np.tile(high, 2)).astype(np.float32)
        if (box[2:] <= box[:2]).any():
            return None
    return prompt_in(replace(prompt, box=box), window, None)


def _mirrored(prompt: Prompt, side: int, axis: int) -> Prompt:
    """Return a prompt on an image of this width (axis 0) or height (1) that is mirrored along it."""
    coords = prompt.point_coords.copy()
    box = prompt.box
    coords[:, axis] = side - 1 - coords[:, axis]
    if box is not None:
        box = box.copy()
        box[[axis, axis + 2]] = side - box[[axis + 2, axis]]
    return replace(prompt, point_coords=coords, box=box)
