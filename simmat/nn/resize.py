"""Tensors from the original image to the S×S input of a network, and mask logits back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.types import Frame

_MOST_ELEMENTS = 2**26
"""Masks are restored in groups of at most this many values, so that many prompts on a large input fit in memory."""


def resize_planes(planes: Tensor, valid: Tensor, frame: Frame) -> Tensor:
    """Bring the planes of an image to the input of a network.

    Antialiased bilinear, where every output pixel is the mean of the valid pixels under it (normalized
    convolution, Knutsson and Westin 1993), so that missing values bleed into nothing. Without a change of size the
    values stay as they are, bit for bit. Padding is right and below, as segment-anything has it.

    Args:
        planes: (C, H, W) float; values at invalid pixels do not matter, not even NaN.
        valid: (C, H, W) bool.
        frame: how the image lies in the input.

    Returns:
        (C, S, S) float; exactly 0 in the padding and where less than half of what lies under a pixel is valid.
    """
    planes = torch.where(valid, planes, torch.zeros((), dtype=planes.dtype))
    if frame.scaled_hw != tuple(planes.shape[-2:]):
        scaled = _antialiased(planes, frame.scaled_hw)  # (C, h, w)
        if not bool(valid.all()):
            share = _antialiased(valid.to(planes.dtype), frame.scaled_hw)
            scaled = torch.where(share >= 0.5, scaled / share.clamp(min=0.5), torch.zeros((), dtype=planes.dtype))
        planes = scaled
    height, width = frame.scaled_hw
    return F.pad(planes, (0, frame.size - width, 0, frame.size - height))


def content_mask(frame: Frame) -> Tensor:
    """Return (S, S) bool: True where the image lies, False where there is only padding."""
    height, width = frame.scaled_hw
    mask = torch.zeros(frame.size, frame.size, dtype=torch.bool)
    mask[:height, :width] = True
    return mask


def restore_logits(logits: Tensor, frame: Frame) -> Tensor:
    """Bring mask logits back to the original image, step by step as `segment_anything.Sam.postprocess_masks` does.

    Args:
        logits: (K, M, h, w) over the whole S×S input, padding included.
        frame: how the image lies in the input.

    Returns:
        (K, M, H, W) logits of the original image.
    """
    count, masks = logits.shape[:2]
    largest = max(frame.size * frame.size, frame.original_hw[0] * frame.original_hw[1])
    together = max(_MOST_ELEMENTS // (masks * largest), 1)
    if count <= together:
        return _restore(logits, frame)
    return torch.cat([_restore(logits[i : i + together], frame) for i in range(0, count, together)])


def upsample_logits(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Bring (K, M, h, w) logits to (K, M, *size_hw), bilinear, without aligned corners."""
    if tuple(logits.shape[-2:]) == tuple(size_hw):
        return logits
    return F.interpolate(logits, size_hw, mode="bilinear", align_corners=False)


def _restore(logits: Tensor, frame: Frame) -> Tensor:
    height, width = frame.scaled_hw
    content = upsample_logits(logits, (frame.size, frame.size))[..., :height, :width]  # (K, M, height, width)
    return upsample_logits(content, frame.original_hw)


def _antialiased(planes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (C, H, W) to (C, *size_hw).

    Where the result is one pixel wide, torch's kernel for the rows (seen in 2.13) steps down the only column
    with the weights of its first row. One pixel high is filtered right, so such planes are laid on their side.
    """
    if size_hw[1] == 1 and size_hw[0] > 1:
        return _antialiased(planes.mT.contiguous(), (1, size_hw[0])).mT  # (C, 1, h) -> (C, h, 1)
    return F.interpolate(planes[None], size_hw, mode="bilinear", align_corners=False, antialias=True)[0]
