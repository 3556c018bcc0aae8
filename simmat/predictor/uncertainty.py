"""How much a mask depends on how the image is shown: the same prompt on flipped and shifted views of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from simmat.nn.resize import restore_logits
from simmat.predictor.encoded import EncodedImage
from simmat.predictor.encoder import ImageEncoder
from simmat.predictor.prompts import Choice, chosen_mask, prompt_in
from simmat.types import FloatArray, ImageReader, Prompt, SensorImage, Window

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


def uncertainty_in(
    encoder: ImageEncoder,
    encoded: EncodedImage,
    image: SensorImage,
    reader: ImageReader,
    prompt: Prompt,
    choice: Choice,
    kept: dict[str, EncodedImage],
) -> Uncertainty:
    """Ask each view of an image for the object of a prompt; a mask of the prompt is left out.

    Args:
        encoded: the image.
        image: (C, H, W), its pixels.
        reader: the image that they are of.
        prompt: in pixels of `image`.
        kept: the other views that an earlier prompt on this image has encoded, to which this one adds its own.
    """
    from scipy.special import expit  # slow to import, and masks need none

    probabilities = []
    for name, view, own, axes, window in _views(encoder, image, replace(prompt, mask_input=None)):
        if view is not image and name not in kept:
            kept[name] = encoder.encode(view, reader)
        shown = encoded if view is image else kept[name]
        answer = shown.decode([own])
        mask = chosen_mask(answer.iou[0].tolist(), choice)
        found = restore_logits(answer.logits[:, mask : mask + 1].float(), shown.prepared.letterbox)[0, 0].cpu().numpy()
        logits = np.full(image.size_hw, np.nan, np.float32)
        logits[window.slices] = np.flip(found, axes)
        probabilities.append(expit(logits))
    stack = np.stack(probabilities)  # (V, H, W); no pixel is outside of all views
    return Uncertainty(np.nanmean(stack, axis=0), np.nanstd(stack, axis=0))


def _views(
    encoder: ImageEncoder, image: SensorImage, prompt: Prompt
) -> Iterator[tuple[str, SensorImage, Prompt, tuple[int, ...], Window]]:
    """Yield the name of each view, it and its prompt, the flipped axes of (H, W), and its window in the image."""
    height, width = image.size_hw
    whole = Window(0, 0, height, width)
    yield "whole", image, prompt, (), whole
    yield "horizontal", encoder.adapter.flip(image, "horizontal"), _mirrored(prompt, width, 0), (1,), whole
    yield "vertical", encoder.adapter.flip(image, "vertical"), _mirrored(prompt, height, 1), (0,), whole
    dy, dx = (max(round(side * _SHIFT), 1) for side in image.size_hw)
    on = prompt.point_coords[prompt.point_labels == 1]
    cuts = {"cut before": Window(dy, dx, height, width), "cut behind": Window(0, 0, height - dy, width - dx)}
    for name, window in cuts.items():
        low, high = np.array([window.x0, window.y0]), np.array([window.x1, window.y1])
        part = image.cut(window) if window.y0 < window.y1 and window.x0 < window.x1 else None
        if part is None or not part.valid.any() or not ((on >= low) & (on < high)).all():
            continue
        box = prompt.box
        if box is not None:
            box = np.clip(box, np.tile(low, 2), np.tile(high, 2)).astype(np.float32)
            if (box[2:] <= box[:2]).any():
                continue
        yield name, part, prompt_in(replace(prompt, box=box), window), (), window


def _mirrored(prompt: Prompt, side: int, axis: int) -> Prompt:
    """Return a prompt on an image of this width (axis 0) or height (1) that is mirrored along it."""
    coords, box = prompt.point_coords.copy(), prompt.box
    coords[:, axis] = side - 1 - coords[:, axis]
    if box is not None:
        box = box.copy()
        box[[axis, axis + 2]] = side - box[[axis + 2, axis]]
    return replace(prompt, point_coords=coords, box=box)
