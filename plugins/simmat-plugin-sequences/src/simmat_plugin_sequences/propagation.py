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


def propagate(
    query: Tensor, features: Sequence[Tensor], labels: Sequence[Tensor], radius: int
) -> Tensor:
    """Return the soft labels (K, h, w) of a frame: the mean of those of the most similar positions of other frames.

    Args:
        query: (D, h, w) features of unit length.
        features: N frames of the same size.
        labels: (K, h, w) of each, how much of an object lies where; the rest is background.
        radius: farthest position that is compared, in positions along each axis.
    """
    labelled = torch.stack([one.amax(0) for one in labels]).amax(0) > 0  # (h, w)
    found = torch.zeros_like(labels[0])
    if not labelled.any():
        return found
    rows, columns = labelled.nonzero().T
    top, bottom = _reached(rows, radius, labelled.shape[0])
    left, right = _reached(columns, radius, labelled.shape[1])
    places = _places(radius, query.device)
    inside = torch.ones_like(query[:1])
    for y in range(top, bottom, _BLOCK):
        for x in range(left, right, _BLOCK):
            block = _propagate_block(
                query, features, labels, inside, places, (y, x), radius
            )
            own = found[:, y : y + _BLOCK, x : x + _BLOCK]
            own += block[:, : own.shape[1], : own.shape[2]]  # in place
    return found


def _propagate_block(
    query: Tensor,
    features: Sequence[Tensor],
    labels: Sequence[Tensor],
    inside: Tensor,
    places: Tensor,
    corner: tuple[int, int],
    radius: int,
) -> Tensor:
    """Return the soft labels (K, B, B) of a block of positions.

    Args:
        inside: (1, h, w) ones.
        places: as `_places` returns them.
        corner: row and column of its first position.
    """
    side = 2 * radius + 1
    reach = _BLOCK + 2 * radius
    around = corner[0] - radius, corner[1] - radius
    # (N, K, cells)
    votes = torch.stack([_part(one, around, reach).flatten(1) for one in labels])
    if not votes.any():
        return votes.new_zeros(votes.shape[1], _BLOCK, _BLOCK)
    asked = _part(query, corner, _BLOCK).flatten(1).T  # (B·B, D)
    outside = _part(inside, around, reach).flatten()[places] == 0
    similarities = []
    for one in features:
        of_block = asked @ _part(one, around, reach).flatten(1)  # (B·B, cells)
        similarities.append(of_block.gather(1, places).masked_fill(outside, _OUTSIDE))
    similarity = torch.cat(similarities, dim=1)  # (B·B, N·k·k)
    best, chosen = similarity.topk(min(NEIGHBOURS, similarity.shape[1]), dim=1)
    weight = (best / TEMPERATURE).softmax(1) * (best >= LEAST_SIMILARITY)
    frame = chosen // side**2
    values = votes[frame, :, places.gather(1, chosen % side**2)]  # (B·B, n, K)
    # along the last axis, a sum does not depend on how many objects there are
    weighted = values.transpose(1, 2).contiguous() * weight[:, None]  # (B·B, K, n)
    return weighted.sum(-1).T.reshape(-1, _BLOCK, _BLOCK)


def _reached(positions: Tensor, radius: int, length: int) -> tuple[int, int]:
    """Return from and up to where positions on an axis reach; those that are farther get no label."""
    first = max(int(positions.min()) - radius, 0)
    end = min(int(positions.max()) + radius + 1, length)
    return first, end


def _places(radius: int, device: torch.device) -> Tensor:
    """Return (B·B, k·k): the cells around each position of a block, as numbers in the part that is compared with it."""
    reach = _BLOCK + 2 * radius
    window = torch.arange(2 * radius + 1, device=device)
    rows = torch.arange(_BLOCK, device=device)[:, None] + window  # (B, k)
    cells = rows[:, None, :, None] * reach + rows[None, :, None, :]  # (B, B, k, k)
    return cells.flatten(2).flatten(0, 1)


def _part(planes: Tensor, corner: tuple[int, int], side: int) -> Tensor:
    """Return the (…, side, side) part of planes from a row and column on, 0 outside of them."""
    top, left = corner
    part = planes[..., max(top, 0) : top + side, max(left, 0) : left + side]
    above = max(-top, 0)
    before = max(-left, 0)
    below = side - above - part.shape[-2]
    after = side - before - part.shape[-1]
    if above or before or below or after:
        part = F.pad(part, (before, after, above, below))
    return part
