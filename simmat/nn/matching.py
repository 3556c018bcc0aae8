"""Features of an embedding that show what looks alike, within an image and between images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.foundation import ImageEmbedding

FINEST_STRIDE = 4
"""Smallest stride, in pixels of the input, of the positions that are compared."""


def matching_features(embedding: ImageEmbedding, levels: int | None = None) -> Tensor:
    """Return (D, h, w) features of unit length of one image: its levels, each scaled to unit length, concatenated.

    Args:
        embedding: of a batch of this image.
        levels: number of levels, beginning with the finest of at least `FINEST_STRIDE`, which sets the grid; None for
            all levels, including finer ones.
    """
    strides = embedding.strides
    grid = next((level for level, stride in enumerate(strides) if stride >= FINEST_STRIDE), len(strides) - 1)
    height, width = embedding.levels[grid].shape[-2:]
    chosen = embedding.levels if levels is None else embedding.levels[grid : grid + levels]
    scaled = (
        F.adaptive_avg_pool2d(level.float(), (height, width))
        if level.shape[-1] > width
        else F.interpolate(level.float(), (height, width), mode="bilinear", align_corners=False)
        for level in chosen
    )
    return F.normalize(torch.cat([F.normalize(level[0], dim=0) for level in scaled]), dim=0)
