"""Propagate soft labels from frames to a frame by the similarity of their features, within a radius.

As in the evaluation of self-supervised features on videos: Jabri et al. 2020 (arXiv 2006.14613), Caron et al. 2021
(DINO, arXiv 2104.14294).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.1
"""Of the softmax over the most similar positions."""
NEIGHBOURS = 5
"""Most similar positions that vote, over all frames."""
LEAST_SIMILARITY = 0.3
"""A position that is less similar has no vote: where an object was, and nothing that looks like it is."""
_BLOCK = 16
"""Side of the blocks of positions that are compared at once, which bounds memory."""
_OUTSIDE = -2.0
"""Similarity of a position outside of the grid, below any cosine."""


def propagate(query: Tensor, features: Sequence[Tensor], labels: Sequence[Tensor], radius: int) -> Tensor:
    """Return the soft labels (K, h, w) of a frame: the mean of those of the most similar positions of other frames.

    Args:
        query: (D, h, w) features of unit length.
        features: N frames of the same size.
        labels: (K, h, w) of each, how much of an object lies where; the rest is background.
        radius: farthest position that is compared, in positions along each axis.
    """
    labelled = torch.stack([one.amax(0) for one in labels]).amax(0) > 0  # (h, w)
    if not labelled.any():
        return torch.zeros_like(labels[0])
    (top, bottom), (left, right) = (  # positions that are farther from every label get none
        (max(int(own.min()) - radius, 0), min(int(own.max()) + radius + 1, length))
        for own, length in zip(labelled.nonzero().T, labelled.shape, strict=True)
    )
    side, reach = 2 * radius + 1, _BLOCK + 2 * radius
    window, inside = torch.arange(side, device=query.device), torch.ones_like(query[:1])
    rows = torch.arange(_BLOCK, device=query.device)[:, None] + window  # (B, k)
    places = (rows[:, None, :, None] * reach + rows[None, :, None, :]).flatten(2).flatten(0, 1)  # (B·B, k·k)
    found = torch.zeros_like(labels[0])
    for y in range(top, bottom, _BLOCK):
        for x in range(left, right, _BLOCK):
            corner = y - radius, x - radius
            votes = torch.stack([_part(one, corner, reach).flatten(1) for one in labels])  # (N, K, cells)
            if not votes.any():
                continue
            asked = _part(query, (y, x), _BLOCK).flatten(1).T  # (B·B, D)
            outside = _part(inside, corner, reach).flatten()[places] == 0
            similarity = torch.cat(
                [
                    (asked @ _part(one, corner, reach).flatten(1)).gather(1, places).masked_fill(outside, _OUTSIDE)
                    for one in features
                ],
                dim=1,
            )  # (B·B, N·k·k)
            best, chosen = similarity.topk(min(NEIGHBOURS, similarity.shape[1]), dim=1)
            weight = (best / TEMPERATURE).softmax(1) * (best >= LEAST_SIMILARITY)
            values = votes[chosen // side**2, :, places.gather(1, chosen % side**2)]  # (B·B, n, K)
            block = (values * weight[..., None]).sum(1).T.reshape(-1, _BLOCK, _BLOCK)  # (K, B, B)
            own = found[:, y : y + _BLOCK, x : x + _BLOCK]
            own += block[:, : own.shape[1], : own.shape[2]]
    return found


def _part(planes: Tensor, corner: tuple[int, int], side: int) -> Tensor:
    """Return the (…, side, side) part of planes from a row and column on, 0 outside of them."""
    top, left = corner
    part = planes[..., max(top, 0) : top + side, max(left, 0) : left + side]
    above, before = max(-top, 0), max(-left, 0)
    below, behind = side - above - part.shape[-2], side - before - part.shape[-1]
    return F.pad(part, (before, behind, above, below)) if above or before or below or behind else part
