"""Find near-duplicate images in different splits.

Each image is shrunk to 24 x 24 pixels per channel. Low frequencies are removed, the local contrast is equalized, and
structure that many images of the set share, such as the fan of a sonar, is removed. Two images are near-duplicates if
the rest has a correlation of 0.8 or more, for one of the eight flips and rotations. This finds copies that were
compressed, resized, brightened or flipped, and scenes recorded twice, but not a scene seen from another place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import ndimage

from simmat.data.samples import SPLITS, Sample
from simmat.types import BoolArray, FloatArray

MIN_CORRELATION = 0.8
"""Least correlation of near-duplicates."""
_SIDE = 24
"""Side of a thumbnail in pixels."""
_MAX_COMMON = 12
"""Most directions that are removed as common to many images."""

Pairs = list[tuple[float, Sample, Sample]]
"""Correlation and the two samples."""


def thumbnail(planes: FloatArray, valid: BoolArray) -> FloatArray:
    """Return (C, 24, 24): the fine structure of an image with equalized local contrast.

    Args:
        planes: (C, h, w), see `Shrunk`.
        valid: (C, h, w).
    """
    small = np.stack([_resampled(plane, _SIDE) for plane in planes])
    fine = small - ndimage.gaussian_filter(small, (0, 3, 3), mode="nearest")
    local = np.sqrt(ndimage.gaussian_filter(fine**2, (0, 2, 2), mode="nearest"))
    equal: FloatArray = fine / (local + 0.05)
    return equal.astype(np.float32)


def _resampled(plane: FloatArray, side: int) -> FloatArray:
    """Return the (side, side) means of an (h, w) plane over parts of equal size."""
    for axis in (0, 1):
        length = plane.shape[axis]
        if length < side:
            plane = np.repeat(plane, -(-side // length), axis=axis)
            length = plane.shape[axis]
        edges = np.linspace(0, length, side + 1).astype(np.intp)[:-1]
        counts = np.diff([*edges.tolist(), length])
        sums = np.add.reduceat(plane, edges, axis=axis)
        plane = (sums / (counts[:, None] if axis == 0 else counts[None])).astype(np.float32)
    return plane


def near_duplicates(
    samples: Sequence[Sample], thumbs: Sequence[FloatArray], digests: Mapping[str, bytes | None]
) -> Pairs:
    """Return each image with a near-duplicate in another split, and the nearest one; equal files by their digest."""
    if len(samples) < 3:
        return []
    whole = np.stack(thumbs)  # (N, C, 24, 24)
    mean = whole.mean(axis=0).ravel()
    common = _common(whole.reshape(len(whole), -1) - mean)  # (K, C · 24 · 24)

    def own(planes: FloatArray) -> FloatArray:
        """Return (N, D) unit vectors: each image without the common structure."""
        flat = planes.reshape(len(planes), -1) - mean
        flat -= (flat @ common.T) @ common
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        unit: FloatArray = np.where(length > 0.05 * np.sqrt(flat.shape[1]), flat / np.maximum(length, 1e-9), 0)
        return unit  # 0 for a plane without structure

    flat = own(whole)
    splits = np.asarray([SPLITS.index(sample.split) for sample in samples])
    best, partner = np.zeros(len(flat)), np.zeros(len(flat), np.intp)
    for turned in _turned(whole):
        other = own(turned)
        for start in range(0, len(flat), 512):
            rows = np.arange(start, min(start + 512, len(flat)))
            alike = flat[rows] @ other.T
            alike[splits[rows, None] == splits] = 0
            nearest = alike.argmax(axis=1)
            better = alike.max(axis=1) > best[rows]
            best[rows[better]], partner[rows[better]] = alike.max(axis=1)[better], nearest[better]
    pairs: dict[tuple[int, int], float] = {}
    for i in np.flatnonzero(best >= MIN_CORRELATION).tolist():
        pair = (min(i, int(partner[i])), max(i, int(partner[i])))
        pairs[pair] = max(pairs.get(pair, 0.0), float(best[i]))
    found = [
        (alike, one, other)
        for alike, one, other in ((alike, samples[i], samples[j]) for (i, j), alike in pairs.items())
        if digests[one.id] != digests[other.id] and one.paths[0] != other.paths[0]
    ]
    return sorted(found, key=lambda pair: (-pair[0], pair[1].id, pair[2].id))


def _common(flat: FloatArray) -> FloatArray:
    """Return (K, D) directions that many of the (N, D) images share, such as the shapes of a sonar's fan."""
    count = min(_MAX_COMMON, len(flat) // _MAX_COMMON)
    some = flat[:: max(len(flat) // 1000, 1)]
    directions: FloatArray = np.linalg.svd(some, full_matrices=False)[2][:count]
    return directions


def _turned(planes: FloatArray) -> Iterator[FloatArray]:
    """Yield the eight flips and rotations of (N, C, s, s)."""
    for quarter in range(4):
        turned = np.rot90(planes, quarter, axes=(2, 3))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[..., ::-1])
