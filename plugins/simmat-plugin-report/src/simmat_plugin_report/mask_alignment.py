"""Find masks that do not fit their images.

The outline of a mask should be on edges of the image. The strength of the edges under the outlines is compared between
the original mask and the mask shifted in any direction, flipped and rotated, in standard deviations of that strength
over all positions. If another position is significantly better over many images, the masks of the data set are
misaligned; if the data set fits and one image does not, its mask is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from simmat.data.instances import Label
from simmat.data.samples import Sample
from simmat.types import BoolArray, FloatArray, SensorImage

MIN_Z = 4
"""How much better another position must be: standard errors for a set, standard deviations for a single image."""
_REACH = 16
"""Largest shift of a mask, in pixels of the shrunk images."""
_MIN_IMAGES = 5
"""Least number of images to judge the masks of a set."""
_MIN_FIT = 2.5
"""Least strength under the masks of a set that fits, so that a mask that does not fit is an outlier."""


class Offset(NamedTuple):
    """A position in which masks fit better.

    Attributes:
        what: "moved by 12 px to the right", "flipped left to right".
        in_place: strength of the edges under the original outlines, in standard deviations above chance.
        z_score: difference of the two in standard errors; for a single image in standard deviations.
        share: fraction of the images where the other position is better.
    """

    what: str
    in_place: float
    there: float
    z_score: float
    share: float


@dataclass(frozen=True)
class Fit:
    """How well the masks of an image fit its edges at each position.

    Attributes:
        moved: (2·R + 1, 2·R + 1) strength with the mask moved down and right by -R … R pixels of the shrunk image;
            -inf for shifts that do not fit into a small image.
        turned: name of a flip or rotation -> strength.
        step: pixels of the image per pixel of the shrunk image.
    """

    moved: FloatArray
    turned: Mapping[str, float]
    step: int

    @property
    def in_place(self) -> float:
        """Largest strength at the original position or one pixel from it."""
        return float(self.near[_REACH, _REACH])

    @property
    def near(self) -> FloatArray:
        """(2·R + 1, 2·R + 1), as `moved`, the largest strength within one pixel of each shift."""
        strongest: FloatArray = ndimage.maximum_filter(self.moved, 3, mode="constant", cval=-np.inf)
        return strongest


def mask_fit(image: Shrunk, label: Label) -> Fit | None:
    """Return how well outlines fit edges at each position; None without an outline or without an edge."""
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
    moved[np.ix_(down + _REACH, right + _REACH)] = every[
        np.ix_(down, right)
    ]  # negative indices: the correlation is periodic
    ways = {
        "flipped left to right": outline[:, ::-1],
        "flipped top to bottom": outline[::-1],
        "rotated by 180°": outline[::-1, ::-1],
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
    """Return (h, w), 1 on both sides of the border of a region, on the shrunk grid."""
    numbers = np.zeros(label.size_hw, np.int32)
    for number, region in enumerate((*label.regions, *label.small), start=1):
        y0, x0, y1, x1 = region.window
        numbers[y0:y1, x0:x1][region.crop] = number
    height, width = size_hw
    small = numbers[step // 2 :: step, step // 2 :: step][:height, :width]
    outline = np.zeros((height, width), np.float32)
    down, right = (np.diff(small, axis=axis) != 0 for axis in (0, 1))
    for begin in (0, 1):  # both pixels of a border, so that the outline is not shifted by half a pixel
        outline[begin : begin + len(down), : small.shape[1]] += down
        outline[: len(small), begin : begin + right.shape[1]] += right
    return np.minimum(outline, 1)


def _edges(image: Shrunk) -> FloatArray:
    """Return (h, w) edge strength over all channels, with mean 0; 0 next to invalid pixels."""
    total = np.zeros(image.planes.shape[1:], np.float32)
    for plane, valid in zip(image.planes, image.valid, strict=True):
        strength = ndimage.gaussian_gradient_magnitude(plane, 1.0, mode="nearest")
        near = ~ndimage.binary_erosion(valid, iterations=3, border_value=1)
        strength[near] = np.median(strength)
        top = np.percentile(strength, 99)
        total += np.minimum(strength / top, 1) if top > 0 else 0
    edges: FloatArray = total - total.mean()
    return edges


def offset_of_all(fits: Sequence[Fit]) -> Offset | None:
    """Return the position in which all masks fit better, if there is one."""
    if len(fits) < _MIN_IMAGES:
        return None
    in_place = np.asarray([fit.in_place for fit in fits])
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
    found = []
    for what, there in candidates:
        better = there - in_place
        z_score = float(better.mean() / max(better.std(ddof=1) / np.sqrt(len(better)), 1e-9))
        if z_score > MIN_Z and better.mean() > 0.5 and there.mean() > 1.5:
            found.append(Offset(what, float(in_place.mean()), float(there.mean()), z_score, float((better > 0).mean())))
    return max(found, key=lambda offset: offset.there, default=None)


def outliers(fits: Sequence[tuple[Sample, Fit]]) -> Iterator[tuple[Sample, Offset]]:
    """Yield the images whose mask fits much better elsewhere, if the masks of the set fit."""
    usual = float(np.median([fit.in_place for _, fit in fits])) if fits else 0.0
    if len(fits) < _MIN_IMAGES or usual < _MIN_FIT:
        return
    for sample, fit in fits:
        moved = fit.moved.copy()
        moved[_REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2] = -np.inf
        y, x = np.unravel_index(moved.argmax(), moved.shape)
        there = float(fit.near[y, x]) if np.isfinite(moved[y, x]) else -np.inf
        ways = {_moved_words(int(y) - _REACH, int(x) - _REACH, fit.step): there, **fit.turned}
        what = max(ways, key=ways.__getitem__)
        if ways[what] - fit.in_place > MIN_Z and fit.in_place < usual / 2:
            yield sample, Offset(what, fit.in_place, ways[what], ways[what] - fit.in_place, 1.0)


def _moved_words(down: int, right: int, step: int) -> str:
    """Describe a shift in pixels of the image."""
    words = []
    if right:
        words.append(f"{abs(right) * step} px to the {'right' if right > 0 else 'left'}")
    if down:
        words.append(f"{abs(down) * step} px {'down' if down > 0 else 'up'}")
    return f"moved by {' and '.join(words)}"


_CHANNELS = 3
"""Most channels that are used, evenly spread over all."""
_LONGEST = 256
"""Longest side of a shrunk image."""


class Shrunk(NamedTuple):
    """A shrunk image.

    Attributes:
        planes: (C, h, w) with mean 0 and standard deviation 1 over valid pixels; 0 elsewhere.
        valid: (C, h, w) bool.
        step: pixels of the image per pixel of the planes.
    """

    planes: FloatArray
    valid: BoolArray
    step: int


def shrink(image: SensorImage) -> Shrunk:
    """Average a few channels over squares of pixels, so that the longer side has at most `_LONGEST` pixels."""
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
