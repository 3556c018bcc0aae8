"""Resize planes of the original image to the S×S input of a network, and mask logits back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.types import Letterbox

LEAST_SHARE = 0.5 - 1e-5
"""Least valid share of the input under an output pixel: below 1/2, so that rounding does not decide exact halves."""


def resize_planes(planes: Tensor, valid: Tensor, letterbox: Letterbox) -> Tensor:
    """Resize and pad the planes of an image to the input of a network.

    Antialiased bilinear over the valid pixels (normalized convolution, Knutsson and Westin 1993), so missing values
    affect no others. If the size does not change, the values keep their bits. Padding is on the right and at the
    bottom, as in segment-anything.

    Args:
        planes: (C, H, W) float on the CPU, 0 at invalid pixels, as `normalize` returns them.
        valid: (C, H, W) bool.
        letterbox: position of the image in the input.

    Returns:
        (C, S, S) float; exactly 0 in the padding and where less than half of the input under a pixel is valid.
    """
    complete = bool(valid.numpy().all())  # many times faster than torch.all
    if letterbox.scaled_hw != tuple(planes.shape[-2:]):
        scaled = _antialiased(planes, letterbox.scaled_hw)  # (C, h, w)
        if not complete:
            same = bool((valid == valid[:1]).all())
            share = _antialiased((valid[:1] if same else valid).float(), letterbox.scaled_hw)
            scaled /= share.clamp(min=0.5)
            np.copyto(scaled.numpy(), 0, where=(share < LEAST_SHARE).numpy())
        planes = scaled
    height, width = letterbox.scaled_hw
    return F.pad(planes, (0, letterbox.size - width, 0, letterbox.size - height))


def content_mask(letterbox: Letterbox) -> Tensor:
    """Return (S, S) bool: True on the image, False on padding."""
    height, width = letterbox.scaled_hw
    mask = np.zeros((letterbox.size, letterbox.size), np.bool_)
    mask[:height, :width] = True
    return torch.from_numpy(mask)


def restore_logits(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """Resize mask logits to the original image, in the steps of `segment_anything.Sam.postprocess_masks`.

    Args:
        logits: (K, M, h, w) over the whole S×S input, with padding.
        letterbox: position of the image in the input.

    Returns:
        (K, M, H, W) logits of the original image.
    """
    height, width = letterbox.scaled_hw
    content = upsample_logits(logits, (letterbox.size, letterbox.size))[..., :height, :width]  # (K, M, height, width)
    return upsample_logits(content, letterbox.original_hw)


def upsample_logits(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize logits (K, M, h, w) to (K, M, *size_hw), bilinear, without aligned corners."""
    if tuple(logits.shape[-2:]) == tuple(size_hw):
        return logits
    return F.interpolate(logits, size_hw, mode="bilinear", align_corners=False)


def _antialiased(planes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (C, H, W) to (C, *size_hw).

    If the result is one pixel wide, torch (seen in 2.13) uses the weights of the first row for all rows. One pixel high
    is correct, so such planes are transposed.
    """
    if size_hw[1] == 1 and size_hw[0] > 1:
        return _antialiased(planes.mT.contiguous(), (1, size_hw[0])).mT  # (C, 1, h) -> (C, h, 1)
    return F.interpolate(planes[None], size_hw, mode="bilinear", align_corners=False, antialias=True)[0]
