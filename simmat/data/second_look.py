"""Look at images and masks again for faults that no single file shows: copies across splits, masks that do not fit.

Both are guesses from the sensor's own planes, as the network gets them, so each finding says how it was found and how
sure it is.

**Near-duplicates.** Each image is shrunk to 24 x 24 pixels a channel. Its slow changes are taken away, strong and weak
structure is made equal, and what many images of the set have in common, such as the shape of a sonar's fan, is taken
away too. Two images are near-duplicates where what is left has a correlation of 0.8 or more, in one of the eight ways
to flip and turn one of them. So copies are found that were compressed, resized, brightened or flipped, and a scene that
was recorded twice; parts of one scene, seen from another place, are not.

**Misaligned masks.** The outline of a mask should lie on edges of the image. The strength of the edges under the
outlines is compared for the mask where it is, moved in any direction, flipped and turned, in standard deviations of
that strength over all places. Where another place is better over many images by more than chance allows, the masks of
the set are misaligned; where the set fits and one image does not, that one is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from simmat.data.index import DataIndex
from simmat.data.instances import Label
from simmat.data.samples import SPLITS, Sample
from simmat.errors import SimMATError
from simmat.types import BoolArray, FloatArray, SensorImage

MOST_COMPARED = 4000
"""Images that are compared with each other, at most; those of val and test first."""
MOST_ALIGNED = 400
"""Images whose masks are looked at, at most."""
ALIKE = 0.8
"""Correlation from which two images are near-duplicates."""
_SIDE = 24
"""Side of a thumbnail in pixels."""
_MOST_COMMON = 12
"""Directions that are taken away as common to many images, at most."""
_CHANNELS = 3
"""Channels that are looked at, at most, evenly over all."""
_LONGEST = 256
"""Longest side of the images in which edges are looked for."""
_REACH = 16
"""Farthest place to which a mask is moved, in pixels of these images."""
_FEWEST = 5
"""Images from which the masks of a set can be judged."""
_FITS = 2.5
"""Strength under the masks from which those of a set are taken to fit, so that one that does not is odd."""
_SURE = 4
"""Standard errors by which another place must be better over a set, and standard deviations in a single image."""

Pairs = list[tuple[float, Sample, Sample]]
"""Correlation and the two samples."""


class Place(NamedTuple):
    """Where a mask fits better than where it is.

    Attributes:
        what: "moved by 12 px to the right", "flipped left to right".
        here: strength of the edges under the outlines, in standard deviations above chance.
        there: the same at the other place.
        sure: standard errors between the two; of a single image, standard deviations.
        share: fraction of the images where the other place is better.
    """

    what: str
    here: float
    there: float
    sure: float
    share: float


@dataclass(frozen=True)
class Fit:
    """How the masks of an image fit its edges at each place.

    Attributes:
        moved: (2·R + 1, 2·R + 1) strength with the mask moved down and right by -R … R pixels of the shrunk image;
            -inf for moves that a small image has no room for.
        turned: name of a flip or turn -> strength.
        step: pixels of the image to one of the shrunk image.
    """

    moved: FloatArray
    turned: Mapping[str, float]
    step: int

    @property
    def here(self) -> float:
        """Strength where the mask is, or one pixel beside that."""
        return float(self.near[_REACH, _REACH])

    @property
    def near(self) -> FloatArray:
        """(2·R + 1, 2·R + 1) as `moved`, the strongest of each move and those one pixel beside it."""
        strongest: FloatArray = ndimage.maximum_filter(self.moved, 3, mode="constant", cval=-np.inf)
        return strongest


@dataclass(frozen=True)
class SecondLook:
    """What was found.

    Attributes:
        pairs: near-duplicates in different splits, the most alike first.
        compared: number of images that were compared.
        places: split -> where all its masks fit better.
        odd: images whose own mask fits better elsewhere, though those of the set fit.
        aligned: number of images whose masks were looked at.
    """

    pairs: Pairs
    compared: int
    places: Mapping[str, Place]
    odd: tuple[tuple[Sample, Place], ...]
    aligned: int


def look_again(index: DataIndex, progress: Callable[[int], None] | None = None) -> SecondLook:
    """Read images and masks of a data set again and look for near-duplicates and misaligned masks.

    Args:
        index: of the data set; samples that cannot be read are left out.
        progress: called with the number of images that are done.
    """
    samples = chosen(index)
    digests = dict(zip((sample.id for sample in index.dataset.samples), index.reference_digests(), strict=True))
    every = max(len(samples) // MOST_ALIGNED, 1)
    thumbs: list[FloatArray] = []
    seen: list[Sample] = []
    fits: list[tuple[Sample, Fit]] = []
    for number, sample in enumerate(samples):
        try:
            image = shrunk(index, sample)
            fit = None
            if number % every == 0:
                fit = mask_fit(image, index.dataset.label(sample))
        except SimMATError:  # it changed since it was read
            continue
        thumbs.append(thumbnail(image.planes, image.valid))
        seen.append(sample)
        if fit is not None:
            fits.append((sample, fit))
        if progress is not None:
            progress(1)
    places = {split: place for split in SPLITS if (place := _place_of([f for s, f in fits if s.split == split]))}
    odd = tuple(_odd(fits)) if not places else ()
    return SecondLook(near_duplicates(seen, thumbs, digests), len(seen), places, odd, len(fits))


def chosen(index: DataIndex) -> list[Sample]:
    """Return the samples to look at, each image once: at most `MOST_COMPARED`, evenly from train and from the rest."""
    once: dict[object, Sample] = {}
    for sample in index.dataset.samples:
        if sample.id not in index.faults:
            once.setdefault((sample.images, sample.window), sample)
    train = [sample for sample in once.values() if sample.split == "train"]
    rest = [sample for sample in once.values() if sample.split != "train"]
    rest = _evenly(rest, MOST_COMPARED // 2)
    return [*_evenly(train, MOST_COMPARED - len(rest)), *rest]


def _evenly(samples: Sequence[Sample], most: int) -> list[Sample]:
    count = min(len(samples), most)
    return [samples[place * len(samples) // count] for place in range(count)]


class Shrunk(NamedTuple):
    """A shrunk image.

    Attributes:
        planes: (C, h, w) of mean 0 and standard deviation 1 over valid pixels; 0 elsewhere.
        valid: (C, h, w).
        step: pixels of the image to one of these.
    """

    planes: FloatArray
    valid: BoolArray
    step: int


def shrunk(index: DataIndex, sample: Sample) -> Shrunk:
    """Read an image as the network gets it, and take means over squares of pixels.

    Raises:
        SimMATError: it cannot be read.
    """
    image = index.dataset.adapter.transform(index.dataset.image(sample))
    return shrink(image)


def shrink(image: SensorImage) -> Shrunk:
    """Take means of a few channels over squares of pixels, so that the longer side has at most `_LONGEST`."""
    count = len(image.channels)
    picked = sorted({round(place * (count - 1) / max(_CHANNELS - 1, 1)) for place in range(_CHANNELS)})
    step = -(-max(image.size_hw) // _LONGEST)
    height, width = (max(side // step, 1) for side in image.size_hw)
    rows, columns = (min(step * side, whole) for side, whole in zip((height, width), image.size_hw, strict=True))
    data, valid = image.data[picked, :rows, :columns], image.valid[picked, :rows, :columns]
    shape = len(picked), height, rows // height, width, columns // width
    share = valid.reshape(shape).mean(axis=(2, 4), dtype=np.float32)  # (C, h, w)
    total = np.where(valid, data, 0).reshape(shape).mean(axis=(2, 4), dtype=np.float64)
    planes, good = total / np.maximum(share, 1e-9), share > 0.5
    for plane, known in zip(planes, good, strict=True):
        values = plane[known]
        spread = values.std() if values.size else 0
        plane -= values.mean() if values.size else 0
        plane /= spread if spread > 0 else 1
    return Shrunk(np.where(good, planes, 0).astype(np.float32), good, step)


def thumbnail(planes: FloatArray, valid: BoolArray) -> FloatArray:
    """Return (C, 24, 24): the image's finer structure, without what changes slowly, of equal strength everywhere.

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
    """Return the means of an (h, w) plane over `side` by `side` parts of it."""
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
    """Return the pairs of different splits that are alike, but for equal files, which are found by their digest."""
    if len(samples) < 3:
        return []
    whole = np.stack(thumbs)  # (N, C, 24, 24)
    mean = whole.mean(axis=0).ravel()
    common = _common(whole.reshape(len(whole), -1) - mean)  # (K, C · 24 · 24)

    def own(planes: FloatArray) -> FloatArray:
        """Return (N, D) of length 1: what of each image is not common to many."""
        flat = planes.reshape(len(planes), -1) - mean
        flat -= (flat @ common.T) @ common
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        unit: FloatArray = np.where(length > 0.05 * np.sqrt(flat.shape[1]), flat / np.maximum(length, 1e-9), 0)
        return unit  # 0 for a plane without structure, which is like any other

    flat = own(whole)
    splits = np.asarray([SPLITS.index(sample.split) for sample in samples])
    found: dict[tuple[int, int], float] = {}
    for turned in _turned(whole):
        other = own(turned)
        for start in range(0, len(flat), 512):
            alike = flat[start : start + 512] @ other.T
            alike[splits[start : start + 512, None] == splits] = 0
            for i, j in np.argwhere(alike >= ALIKE).tolist():
                pair = (min(start + i, j), max(start + i, j))
                found[pair] = max(found.get(pair, 0.0), float(alike[i, j]))
    pairs = [(alike, samples[i], samples[j]) for (i, j), alike in found.items()]
    pairs = [
        (alike, one, other)
        for alike, one, other in pairs
        if digests[one.id] != digests[other.id] and one.paths[0] != other.paths[0]
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1].id, pair[2].id))


def _common(flat: FloatArray) -> FloatArray:
    """Return (K, D) directions that many of (N, D) images share, such as the few shapes of a sonar's fan."""
    count = min(_MOST_COMMON, len(flat) // _MOST_COMMON)
    some = flat[:: max(len(flat) // 1000, 1)]
    directions: FloatArray = np.linalg.svd(some, full_matrices=False)[2][:count]
    return directions


def _turned(planes: FloatArray) -> Iterator[FloatArray]:
    """Yield (N, C, s, s) in the eight ways to flip and turn it."""
    for quarter in range(4):
        turned = np.rot90(planes, quarter, axes=(2, 3))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[..., ::-1])


def mask_fit(image: Shrunk, label: Label) -> Fit | None:
    """Return how well outlines lie on edges, at each place; None without an outline or without an edge."""
    outline = _outline(label, image.planes.shape[1:], image.step)
    edges = _edges(image)
    if outline.sum() < 24 or not edges.any():
        return None
    height, width = outline.shape
    spectrum = np.fft.rfft2(edges)

    def strengths(mask: FloatArray) -> FloatArray:
        found: FloatArray = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(mask)), s=mask.shape) / mask.sum()
        return found

    every = strengths(outline)
    spread = float(every.std())
    if not spread > 0:
        return None
    every = (every - every.mean()) / spread
    moved = np.full((2 * _REACH + 1, 2 * _REACH + 1), -np.inf)
    down, right = (np.arange(-reach, reach + 1) for reach in (min(_REACH, (side - 1) // 2) for side in (height, width)))
    moved[np.ix_(down + _REACH, right + _REACH)] = every[np.ix_(down, right)]  # negative: the spectrum wraps round
    ways = {
        "flipped left to right": outline[:, ::-1],
        "flipped top to bottom": outline[::-1],
        "turned by 180°": outline[::-1, ::-1],
    }
    if height == width:
        ways["transposed (rows and columns swapped)"] = outline.T
    near = [-1, 0, 1]
    turned = {}
    for name, mask in ways.items():
        found = strengths(np.ascontiguousarray(mask))
        turned[name] = float(((found[np.ix_(near, near)] - found.mean()) / max(float(found.std()), 1e-9)).max())
    return Fit(moved, turned, image.step)


def _outline(label: Label, size_hw: tuple[int, ...], step: int) -> FloatArray:
    """Return (h, w), 1 on both sides of the border of a region, in pixels of the shrunk image."""
    numbers = np.zeros(label.size_hw, np.int32)
    for number, region in enumerate((*label.regions, *label.small), start=1):
        y0, x0, y1, x1 = region.box
        numbers[y0:y1, x0:x1][region.crop] = number
    height, width = size_hw
    small = numbers[step // 2 :: step, step // 2 :: step][:height, :width]
    outline = np.zeros((height, width), np.float32)
    down, right = (np.diff(small, axis=axis) != 0 for axis in (0, 1))
    for begin in (0, 1):  # both pixels of a border, so that the outline is no half pixel beside it
        outline[begin : begin + len(down), : small.shape[1]] += down
        outline[: len(small), begin : begin + right.shape[1]] += right
    return np.minimum(outline, 1)


def _edges(image: Shrunk) -> FloatArray:
    """Return (h, w) the strength of edges over all channels, of mean 0; 0 beside pixels without a measurement."""
    total = np.zeros(image.planes.shape[1:], np.float32)
    for plane, valid in zip(image.planes, image.valid, strict=True):
        strength = ndimage.gaussian_gradient_magnitude(plane, 1.0, mode="nearest")
        near = ~ndimage.binary_erosion(valid, iterations=3, border_value=1)
        strength[near] = np.median(strength)
        top = np.percentile(strength, 99)
        total += np.minimum(strength / top, 1) if top > 0 else 0
    edges: FloatArray = total - total.mean()
    return edges


def _place_of(fits: Sequence[Fit]) -> Place | None:
    """Return where all masks fit better than where they are, if there is such a place."""
    if len(fits) < _FEWEST:
        return None
    here = np.asarray([fit.here for fit in fits])
    candidates: list[tuple[str, npt.NDArray[Any]]] = []
    names = set.intersection(*(set(fit.turned) for fit in fits))
    candidates += [(name, np.asarray([fit.turned[name] for fit in fits])) for name in sorted(names)]
    moved = np.stack([fit.moved for fit in fits])  # (N, 2R + 1, 2R + 1)
    mean = moved.mean(axis=0)
    mean[_REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2] = -np.inf
    y, x = np.unravel_index(mean.argmax(), mean.shape)
    step = int(np.median([fit.step for fit in fits]))
    if np.isfinite(mean[y, x]):
        there = np.stack([fit.near for fit in fits])[:, y, x]
        candidates.append((_moved_words(int(y) - _REACH, int(x) - _REACH, step), there))
    places = []
    for what, there in candidates:
        better = there - here
        sure = float(better.mean() / max(better.std(ddof=1) / np.sqrt(len(better)), 1e-9))
        if sure > _SURE and better.mean() > 0.5 and there.mean() > 1.5:
            places.append(Place(what, float(here.mean()), float(there.mean()), sure, float((better > 0).mean())))
    return max(places, key=lambda place: place.there, default=None)


def _odd(fits: Sequence[tuple[Sample, Fit]]) -> Iterator[tuple[Sample, Place]]:
    """Yield the images whose mask fits much better elsewhere, where those of the set fit."""
    usual = float(np.median([fit.here for _, fit in fits])) if fits else 0.0
    if len(fits) < _FEWEST or usual < _FITS:
        return
    for sample, fit in fits:
        moved = fit.moved.copy()
        moved[_REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2] = -np.inf
        y, x = np.unravel_index(moved.argmax(), moved.shape)
        there = float(fit.near[y, x]) if np.isfinite(moved[y, x]) else -np.inf
        ways = {_moved_words(int(y) - _REACH, int(x) - _REACH, fit.step): there, **fit.turned}
        what = max(ways, key=ways.__getitem__)
        if ways[what] - fit.here > _SURE and fit.here < usual / 2:
            yield sample, Place(what, fit.here, ways[what], ways[what] - fit.here, 1.0)


def _moved_words(down: int, right: int, step: int) -> str:
    """Describe a move in pixels of the image."""
    words = []
    if right:
        words.append(f"{abs(right) * step} px to the {'right' if right > 0 else 'left'}")
    if down:
        words.append(f"{abs(down) * step} px {'down' if down > 0 else 'up'}")
    return f"moved by {' and '.join(words)}"
