"""Prompts: make and check them, move them into a window, and group those that are decoded together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.nn import functional as F

from simmat.data.pipeline import resize_planes, restore_logits
from simmat.errors import ConfigError
from simmat.foundation import MAX_PROMPTS
from simmat.types import FloatArray, ImageReader, Letterbox, Prompt, Window

MaskSelection = Literal["single", "best"]
"""The single mask of a prompt, or of its alternatives the one with the highest predicted IoU."""


def prompt_of(
    points: Sequence[tuple[float, float]] = (),
    labels: Sequence[int] | None = None,
    box: Sequence[float] | FloatArray | None = None,
    mask: FloatArray | None = None,
    mask_window: Window | None = None,
) -> Prompt:
    """Return the prompt of what `Predictor.predict` takes; TypeError if points, labels or box are not numbers.

    Args:
        points: N (x, y) in pixels of the image.
        labels: N numbers, 1 on the object, 0 not on it; None means that all are on it.
        box: (x0, y0, x1, y1) of its outer edges.
        mask: (h, w) logits of an earlier prediction at the decoder's own size.
        mask_window: the part of the image that they cover; None is the whole image.
    """
    coords = as_numbers(points, "points", "(x, y) pairs, such as [(320, 240)]", -1, 2)
    marks: FloatArray = np.ones(len(coords), np.float32)
    if labels is not None:
        marks = as_numbers(labels, "labels", "0 or 1 for each point", -1)
    corners = None
    if box is not None:
        corners = as_numbers(box, "box", "(x0, y0, x1, y1)", -1)
    if mask is not None:
        mask = np.asarray(mask)
    return Prompt(coords, marks.astype(np.int64), corners, mask, mask_window)


def as_numbers(given: Any, name: str, form: str, *shape: int) -> FloatArray:
    """Return numbers as float32 of a shape.

    Args:
        given: what the user gave.
        name: of the argument, for the message.
        form: what it must be, for the message.
        shape: the shape, in which -1 is any number.

    Raises:
        TypeError: they are not numbers, or not of this shape.
    """
    try:
        return np.asarray(given, np.float32).reshape(shape)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, {form}; got {given!r}") from None


def check_inside(prompt: Prompt, image: ImageReader) -> None:
    """Raise ConfigError for points that are not on a pixel of the image, and for boxes that cross its edges."""
    height, width = image.size_hw
    problems = []
    for x, y in prompt.point_coords.tolist():
        if not (0 <= x < width and 0 <= y < height):
            problems.append(
                f"point {x:g},{y:g} (X is 0 to {width - 1}, Y 0 to {height - 1})"
            )
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box.tolist()
        if not (0 <= x0 and x1 <= width and 0 <= y0 and y1 <= height):
            problems.append(
                f"box {x0:g},{y0:g},{x1:g},{y1:g} (X is 0 to {width}, Y 0 to {height})"
            )
    if problems:
        places = " and ".join(problems)
        note = getattr(image, "size_note", "")
        raise ConfigError(
            f"{image.origin}: {places} outside of the image, which is {width} wide and {height} high"
            f"{note and '; '}{note}"
        )


def check_mask_selection(mask_selection: str) -> None:
    """Raise ValueError for an unknown choice of masks."""
    known = get_args(MaskSelection)
    if mask_selection not in known:
        raise ValueError(
            f"mask_selection must be one of {', '.join(map(repr, known))}, got {mask_selection!r}"
        )


def chosen_mask(scores: Sequence[float], mask_selection: MaskSelection) -> int:
    """Return which of M masks with these predicted IoUs is chosen, see `Predictor.predict`."""
    if mask_selection == "single" or len(scores) == 1:
        return 0
    return 1 + int(np.argmax(scores[1:]))


def groups_of_one_kind(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Group the indices of prompts that can be decoded together, at most `MAX_PROMPTS` in a group."""
    kinds: dict[tuple[int, bool, bool], list[int]] = {}
    for index, prompt in enumerate(prompts):
        kind = (len(prompt.point_coords), prompt.box is None, prompt.mask_input is None)
        kinds.setdefault(kind, []).append(index)
    groups = []
    for rows in kinds.values():
        for start in range(0, len(rows), MAX_PROMPTS):
            groups.append(rows[start : start + MAX_PROMPTS])
    return groups


def prompt_in(prompt: Prompt, window: Window, letterbox: Letterbox | None) -> Prompt:
    """Return a prompt in pixels of a window, without those points not on the object that lie outside of it.

    Args:
        prompt: in pixels of the image.
        window: a part of the image.
        letterbox: position of the window in the input; None leaves the mask out.
    """
    x, y = prompt.point_coords.T
    inside = (x >= window.x0) & (x < window.x1) & (y >= window.y0) & (y < window.y1)
    kept = inside | (prompt.point_labels == 1)
    corner: FloatArray = np.asarray([window.x0, window.y0], np.float32)
    coords = prompt.point_coords[kept] - corner
    box = prompt.box
    if box is not None:
        box = box - np.tile(corner, 2)
    mask = None
    if letterbox is not None and prompt.mask_input is not None:
        mask = _mask_in(
            prompt.mask_input, prompt.mask_window or window, window, letterbox
        )
    return Prompt(coords, prompt.point_labels[kept], box, mask)


def _mask_in(
    mask: FloatArray, known: Window, window: Window, letterbox: Letterbox
) -> FloatArray:
    """Return (h, w) mask logits of one window as those of another; what the first does not show is not the object.

    Args:
        mask: logits at the decoder's own size.
        known: the window that they cover.
        window: another window.
        letterbox: position of the other window in the input.
    """
    if window == known:
        return mask
    before = replace(letterbox, original_hw=known.size_hw)
    logits = restore_logits(torch.from_numpy(mask)[None, None].float(), before)[0, 0]
    lowest = logits.min().clamp(max=-1)
    # above the lowest, so that the padding is lowest, too
    placed = torch.zeros(1, *window.size_hw)
    both = known.intersection(window)
    if both is not None:
        placed[0][both.relative_to(window).slices] = (logits - lowest)[
            both.relative_to(known).slices
        ]
    # (1, S, S)
    planes = resize_planes(placed, torch.ones_like(placed, dtype=torch.bool), letterbox)
    low_res: FloatArray = (
        F.adaptive_avg_pool2d(planes, mask.shape)[0] + lowest
    ).numpy()
    return low_res
