"""Prompts as maps: clicks, box and previous mask at every position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.foundation import PromptBatch
from simmat_plugin_lite.blocks import PromptImages

CLICK_SIGMAS_PX = (3.0, 10.0, 40.0)
MAP_CHANNELS = 2 * len(CLICK_SIGMAS_PX) + 2 + 5 + 2
OUTSIDE_PER_SIDE = 4
"""Places just outside each side of a box that count as negative clicks."""
UNLIKE_POWER = 6
"""Exponent of the weight of places in a box that resemble the outside; chosen on the validation split."""
_FAR_PX = 1e4


@dataclass(frozen=True)
class PromptState:
    """K prompts with missing parts filled in and marked.

    Attributes:
        images: the images of the prompts.
        coords_xy: (K, N, 2) float, pixel indices of the input, N >= 1.
        positive: (K, N) bool.
        negative: (K, N) bool.
        boxes: (K, 4) float, XYXY in pixel indices, like the clicks.
        has_box: (K,) bool.
        outside_xy: (K, R, 2) float, places just outside the box; R = 0 if no prompt has one.
        outside: (K, R) bool, False for places outside the image or without a box.
        mask: (K, 1, h, w) probability of the previous mask, or None.
    """

    images: PromptImages
    coords_xy: Tensor
    positive: Tensor
    negative: Tensor
    boxes: Tensor
    has_box: Tensor
    outside_xy: Tensor
    outside: Tensor
    mask: Tensor | None

    @classmethod
    def from_batch(cls, prompts: PromptBatch, size: int, images: int) -> PromptState:
        """Fill in missing parts; a box without area counts as missing, NaN in a box as 0.

        Args:
            prompts: K prompts.
            size: side S of the input in pixels.
            images: number of images.
        """
        coords, labels = prompts.point_coords.float(), prompts.point_labels
        count, device = coords.shape[0], coords.device
        if coords.shape[1] == 0:
            coords = coords.new_zeros((count, 1, 2))
            labels = labels.new_full((count, 1), -1)
        if prompts.boxes is None:
            boxes = torch.zeros((count, 4), device=device)
        else:
            # edges to pixel indices
            boxes = torch.nan_to_num(prompts.boxes.float()) - 0.5
        has_box = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        around = places_around(boxes, 0 if prompts.boxes is None else OUTSIDE_PER_SIDE)
        outside = ((around >= 0) & (around < size)).all(-1) & has_box[:, None]
        mask = (
            None if prompts.mask_input is None else prompts.mask_input.float().sigmoid()
        )
        return cls(
            PromptImages(prompts.image_index, images),
            coords,
            labels == 1,
            labels == 0,
            boxes,
            has_box,
            around,
            outside,
            mask,
        )


def places_around(boxes: Tensor, per_side: int) -> Tensor:
    """Return places just outside each side of boxes (K, 4): (K, 4 * per_side, 2) xy."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]  # (K, 1, 2)
    away = 6.0 + 0.05 * (high - low)
    share = (torch.arange(per_side, device=boxes.device) + 0.5)[:, None] / max(
        per_side, 1
    )
    along = low + share * (high - low)  # (K, per_side, 2)
    before, after = (low - away).expand_as(along), (high + away).expand_as(along)
    left_right = [
        torch.stack([side[..., 0], along[..., 1]], -1) for side in (before, after)
    ]
    above_below = [
        torch.stack([along[..., 0], side[..., 1]], -1) for side in (before, after)
    ]
    return torch.cat(left_right + above_below, 1)


def place_centres(
    height: int, width: int, stride: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the centres of a level's positions in pixel indices of the input: y (h, 1) and x (1, w)."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride - 0.5
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride - 0.5
    return y[:, None], x[None, :]


def _click_maps(state: PromptState, y: Tensor, x: Tensor) -> list[Tensor]:
    """Return Gaussians around the nearest click of each sign, and the offset to the nearest positive click."""
    dx = x - state.coords_xy[..., 0, None, None]  # (K, N, 1, w)
    dy = y - state.coords_xy[..., 1, None, None]  # (K, N, h, 1)
    square = dx**2 + dy**2  # (K, N, h, w)
    maps: list[Tensor] = []
    for chosen in (state.positive, state.negative):
        nearest = square.masked_fill(~chosen[..., None, None], _FAR_PX**2).amin(1)
        maps += [torch.exp(-nearest / (2 * sigma**2)) for sigma in CLICK_SIGMAS_PX]
    some = state.positive.any(1)[:, None, None]
    for offset in _nearest_offsets(square, state.positive, dx, dy):
        maps.append(offset / (offset.abs() + 32.0) * some)
    return maps


def _nearest_offsets(
    square: Tensor, positive: Tensor, dx: Tensor, dy: Tensor
) -> list[Tensor]:
    """Return the offsets (K, h, w) to the nearest positive click along x and y."""
    offsets = [dx.expand_as(square), dy.expand_as(square)]
    if square.shape[1] == 1:  # the search below is slow, and one click needs none
        return [offset[:, 0] for offset in offsets]
    hidden = square.masked_fill(~positive[..., None, None], _FAR_PX**2)
    index = hidden.argmin(1, keepdim=True)  # (K, 1, h, w)
    return [offset.gather(1, index)[:, 0] for offset in offsets]


def _box_maps(state: PromptState, y: Tensor, x: Tensor) -> list[Tensor]:
    """Return whether a position is inside the box, and its distance from each side; zero without a box."""
    x0, y0, x1, y1 = (state.boxes[:, i, None, None] for i in range(4))
    shape = (state.boxes.shape[0], y.shape[0], x.shape[1])
    sides = [d.expand(shape) for d in (x - x0, y - y0, x1 - x, y1 - y)]
    has = state.has_box[:, None, None].float()
    inside = torch.stack(sides).amin(0).div(2.0).sigmoid()
    return [inside * has, *(torch.tanh(d / 16.0) * has for d in sides)]


def resize_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Resize a probability (K, 1, h, w) to (K, 1, height, width): mean to shrink, bilinear to enlarge."""
    if mask.shape[-2] >= height and mask.shape[-1] >= width:
        return F.adaptive_avg_pool2d(mask, (height, width))
    return F.interpolate(mask, (height, width), mode="bilinear", align_corners=False)


def prompt_maps(state: PromptState, height: int, width: int, stride: int) -> Tensor:
    """Return the maps of prompts for a level of this stride: (K, MAP_CHANNELS, height, width)."""
    y, x = place_centres(height, width, stride, state.coords_xy.device)
    maps = _click_maps(state, y, x) + _box_maps(state, y, x)
    if state.mask is None:
        zeros = torch.zeros_like(maps[0])
        maps += [zeros, zeros]
    else:
        previous = resize_mask(state.mask, height, width)[:, 0]
        maps += [2 * previous - 1, torch.ones_like(previous)]
    return torch.stack(maps, 1)


def region_weight(
    state: PromptState,
    height: int,
    width: int,
    stride: int,
    unlike: Tensor | None = None,
) -> Tensor:
    """Estimate the object's region: the previous mask, else the box, else the surroundings of positive clicks.

    In a box, the middle has the highest weight, and positions that resemble the outside have a low one, because the
    middle of a box can show the background of a bent object.

    Args:
        state: K prompts.
        height: height of the level.
        width: width of the level.
        stride: stride of the level.
        unlike: (K, 1, h, w) of any size, in 0..1, see `decoder.unlike_outside`; None if no prompt has a box.

    Returns:
        (K, 1, height, width), not negative.
    """
    if state.mask is not None:
        return resize_mask(state.mask, height, width)
    y, x = place_centres(height, width, stride, state.coords_xy.device)
    x0, y0, x1, y1 = (state.boxes[:, i, None, None] for i in range(4))
    half_w, half_h = ((x1 - x0) / 2).clamp(min=1.0), ((y1 - y0) / 2).clamp(min=1.0)
    distance = ((x - (x0 + x1) / 2) / half_w) ** 2 + ((y - (y0 + y1) / 2) / half_h) ** 2
    in_box = torch.exp(-2.0 * distance)
    if unlike is not None:
        in_box = in_box * resize_mask(unlike, height, width)[:, 0] ** UNLIKE_POWER
        in_box = in_box / in_box.amax((1, 2), keepdim=True).clamp(min=1e-30)
    square = (x - state.coords_xy[..., 0, None, None]) ** 2
    square = square + (y - state.coords_xy[..., 1, None, None]) ** 2
    nearest = square.masked_fill(~state.positive[..., None, None], _FAR_PX**2).amin(1)
    near_click = torch.exp(-nearest / (2 * 12.0**2))
    return torch.where(state.has_box[:, None, None], in_box, near_click)[:, None]
