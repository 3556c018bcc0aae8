"""Propagate soft labels from frames to a frame by the similarity of their features, within a radius.

As in the evaluation of self-supervised features on videos: Jabri et al. 2020 (arXiv 2006.14613), Caron et al. 2021
(DINO, arXiv 2104.14294).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.foundation import ImageEmbedding

TEMPERATURE = 0.1
"""Of the softmax over the most similar positions."""
NEIGHBOURS = 5
"""Most similar positions that vote, over all frames."""
_BLOCK_ROWS = 8
"""Rows of the grid that are compared at once, which bounds memory."""
_OUTSIDE = -2.0
"""Similarity of a position outside of the grid, below any cosine."""


def matching_features(embedding: ImageEmbedding, finest_stride: int = 4) -> Tensor:
    """Return (D, h, w) features of unit length from the embedding of one image, to be compared by their products.

    Two levels are joined: the finest of at least `finest_stride` input pixels, whose grid this is, and the next
    coarser one.
    """
    strides = embedding.strides
    first = next((level for level, stride in enumerate(strides) if stride >= finest_stride), len(strides) - 1)
    levels = [embedding.levels[level][0].float() for level in range(first, min(first + 2, len(strides)))]
    grid_hw = levels[0].shape[-2:]
    scaled = [F.interpolate(level[None], grid_hw, mode="bilinear", align_corners=False)[0] for level in levels]
    return F.normalize(torch.cat([F.normalize(level, dim=0) for level in scaled]), dim=0)


def propagate(query: Tensor, features: Sequence[Tensor], labels: Sequence[Tensor], radius: int) -> Tensor:
    """Return the soft labels (L, h, w) of a frame: the mean of those of the most similar positions of other frames.

    Args:
        query: (D, h, w) features of unit length.
        features: N frames of the same size.
        labels: (L, h, w) soft labels of each.
        radius: farthest position that is compared, in positions along each axis.
    """
    _, height, width = query.shape
    count, side, padded = labels[0].shape[0], 2 * radius + 1, width + 2 * radius
    around = (radius, radius, radius, radius)
    known = [F.pad(one, around) for one in features]
    given = [F.pad(one, around) for one in labels]
    inside = F.pad(torch.ones_like(query[0]), around)
    window = torch.arange(side, device=query.device)
    columns = torch.arange(width, device=query.device)[:, None] + window  # (w, k)
    found = torch.empty_like(labels[0])
    for top in range(0, height, _BLOCK_ROWS):
        bottom = min(top + _BLOCK_ROWS, height)
        rows = torch.arange(bottom - top, device=query.device)[:, None] + window  # (n, k)
        places = (rows[:, None, :, None] * padded + columns[None, :, None, :]).flatten(2).flatten(0, 1)  # (n·w, k·k)
        block = slice(top, bottom + 2 * radius)
        asked = query[:, top:bottom].flatten(1).T  # (n·w, D)
        outside = inside[block].flatten()[places] == 0
        similarity = torch.cat(
            [(asked @ one[:, block].flatten(1)).gather(1, places).masked_fill(outside, _OUTSIDE) for one in known],
            dim=1,
        )  # (n·w, N·k·k)
        best, chosen = similarity.topk(min(NEIGHBOURS, similarity.shape[1]), dim=1)
        weight = (best / TEMPERATURE).softmax(1)
        frame, place = chosen // side**2, places.gather(1, chosen % side**2)
        votes = torch.stack([one[:, block].flatten(1) for one in given])  # (N, L, cells)
        values = votes[frame, :, place]  # (n·w, K, L)
        found[:, top:bottom] = (values * weight[..., None]).sum(1).T.reshape(count, bottom - top, width)
    return found
