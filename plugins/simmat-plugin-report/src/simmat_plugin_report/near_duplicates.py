"""Find near-duplicate images in different splits.

Each image is averaged to 24 x 24 pixels per channel. Low frequencies are removed, the local contrast is equalized, and
structure that many images of the set share, such as the fan of a sonar, is removed. Two images are near-duplicates if
the rest has a correlation of 0.8 or more, for one of the eight flips and rotations. This finds copies that were
compressed, resized, brightened or flipped, and scenes recorded twice, but not a scene seen from another place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import adaptive_avg_pool2d

from simmat.data.index import DataIndex
from simmat.data.samples import SPLITS, Sample, evenly_spaced
from simmat.errors import SimMATError
from simmat.types import BoolArray, FloatArray, SensorImage

MIN_CORRELATION = 0.8
"""Least correlation of near-duplicates."""
MAX_COMPARED = 4000
"""Most images that are compared with each other; those of val and test first."""
_SIDE = 24
"""Side of a thumbnail in pixels."""
_MAX_CHANNELS = 3
"""Most channels of a thumbnail, evenly spread over all."""
_MAX_COMMON = 12
"""Most directions that are removed as common to many images."""

NearDuplicates = list[tuple[float, Sample, Sample]]
"""Correlation and the two samples."""


def near_duplicate_warning(
    index: DataIndex, progress: Callable[[int], object] = lambda _: None
) -> tuple[str, list[str], tuple[tuple[str, str], ...]] | None:
    """Read the images of a data set again, and find near-duplicates in different splits.

    Returns:
        A warning, the ids of the samples and of the pairs; None if there are none.
    """
    digests = {}
    for sample, digest in zip(
        index.usable, index.table.rows["sha256"][:, 0], strict=True
    ):
        digests[sample.id] = digest.tobytes()
    thumbs: list[FloatArray] = []
    seen: list[Sample] = []
    for sample in _sample_subset(index):
        try:
            thumbs.append(
                thumbnail(index.dataset.adapter.transform(index.dataset.image(sample)))
            )
        except SimMATError:  # changed since the index was made
            continue
        finally:
            progress(1)
        seen.append(sample)
    pairs = [
        (alike, one, other)
        for alike, one, other in near_duplicates(seen, thumbs)
        # equal files are an error already
        if digests[one.id] != digests[other.id] and one.paths[0] != other.paths[0]
    ]
    if not pairs:
        return None
    held_out = {
        sample.id: sample.split
        for _, *pair in pairs
        for sample in pair
        if sample.split != "train"
    }
    first = "; ".join(
        f"{one.id!r} ({one.split}) and {other.id!r} ({other.split}), {alike:.2f}"
        for alike, one, other in pairs[:3]
    )
    text = (
        f"{len(held_out)} of the images of {' and '.join(sorted(set(held_out.values())))} show nearly the same "
        f"as an image of another split, so scores are too high: {first}"
        + ("; --json lists all" if len(pairs) > 3 else "")
        + f". Found by the correlation of the fine structure of {len(seen)} images, scaled down, in every flip "
        f"and rotation (threshold {MIN_CORRELATION}); view some before you move them to one split"
    )
    ids = tuple((one.id, other.id) for _, one, other in pairs)
    return text, sorted({name for pair in ids for name in pair}), ids


def _sample_subset(index: DataIndex) -> list[Sample]:
    """Return the samples to compare, each image once: at most `MAX_COMPARED`, evenly spread in train and the rest."""
    once: dict[object, Sample] = {}
    for sample in index.usable:
        once.setdefault((sample.images, sample.window), sample)
    train = [sample for sample in once.values() if sample.split == "train"]
    rest = [sample for sample in once.values() if sample.split != "train"]
    rest = list(evenly_spaced(rest, max(MAX_COMPARED // 2, MAX_COMPARED - len(train))))
    return [*evenly_spaced(train, MAX_COMPARED - len(rest)), *rest]


def thumbnail(image: SensorImage) -> FloatArray:
    """Return (C, 24, 24): the fine structure of a few channels with equalized local contrast; 0 where invalid."""
    count = len(image.channels)
    picked = sorted(
        {
            round(place * (count - 1) / (_MAX_CHANNELS - 1))
            for place in range(_MAX_CHANNELS)
        }
    )
    valid: BoolArray = image.valid[picked]
    total, share = (
        adaptive_avg_pool2d(torch.from_numpy(planes.astype(np.float64)), _SIDE).numpy()
        for planes in (np.where(valid, image.data[picked], 0), valid)
    )
    mean = np.ma.masked_array(total / np.maximum(share, 1e-9), share <= 0.5)
    small = mean - mean.mean(axis=(1, 2), keepdims=True)
    small = (small / small.std(axis=(1, 2), keepdims=True)).filled(0)
    fine = small - ndimage.gaussian_filter(small, (0, 3, 3), mode="nearest")
    local = np.sqrt(ndimage.gaussian_filter(fine**2, (0, 2, 2), mode="nearest"))
    equal: FloatArray = (fine / (local + 0.05)).astype(np.float32)
    return equal


def near_duplicates(
    samples: Sequence[Sample], thumbs: Sequence[FloatArray]
) -> NearDuplicates:
    """Return each image with a near-duplicate in another split, and the nearest one."""
    if len(samples) < 3 or len({sample.split for sample in samples}) < 2:
        return []
    whole = np.stack(thumbs)  # (N, C, 24, 24)
    mean = whole.mean(axis=0).ravel()
    some = whole.reshape(len(whole), -1)[:: max(len(whole) // 1000, 1)] - mean
    # (K, C · 24 · 24): directions that many images share, such as the shapes of a sonar's fan
    common = np.linalg.svd(some, full_matrices=False)[2][
        : min(_MAX_COMMON, len(whole) // _MAX_COMMON)
    ]

    def own(planes: FloatArray) -> FloatArray:
        """Return (N, D) unit vectors: each image without the common structure."""
        flat = planes.reshape(len(planes), -1) - mean
        flat -= (flat @ common.T) @ common
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        unit: FloatArray = np.where(
            length > 0.05 * np.sqrt(flat.shape[1]), flat / np.maximum(length, 1e-9), 0
        )
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
            best[rows[better]], partner[rows[better]] = (
                alike.max(axis=1)[better],
                nearest[better],
            )
    pairs: dict[tuple[int, int], float] = {}
    for i in np.flatnonzero(best >= MIN_CORRELATION).tolist():
        pair = (min(i, int(partner[i])), max(i, int(partner[i])))
        pairs[pair] = max(pairs.get(pair, 0.0), float(best[i]))
    found = [(alike, samples[i], samples[j]) for (i, j), alike in pairs.items()]
    return sorted(found, key=lambda pair: (-pair[0], pair[1].id, pair[2].id))


def _turned(planes: FloatArray) -> Iterator[FloatArray]:
    """Yield the eight flips and rotations of (N, C, s, s)."""
    for quarter in range(4):
        turned = np.rot90(planes, quarter, axes=(2, 3))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[..., ::-1])
