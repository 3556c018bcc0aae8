"""Geometry of a training view: which part of which photograph is seen, at what size.

Everything returns a square frame of S pixels with the content at the top left, as the model gets it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from simmat_plugin_lite.regions import WHOLE_WEIGHT, Photo, region_values

SMALLEST_LEFT_PX = 64
"""A region that a pasted object leaves less of, or a pasted object that shows less, is none."""


@dataclass
class View:
    """What is seen.

    Attributes:
        image: (S, S, 3) uint8; 0 outside the content.
        content: (S, S) bool.
        regions: list of (S, S) bool masks that may be asked for.
        weights: how often each is asked for, relative.
    """

    image: np.ndarray
    content: np.ndarray
    regions: list[np.ndarray]
    weights: list[float]


@dataclass(frozen=True)
class Cutout:
    """A thing cut out of a photograph: (h, w, 3) uint8, and which of these pixels are it, (h, w) bool."""

    image: np.ndarray
    mask: np.ndarray

    def tight(self) -> Cutout:
        """The same without what lies around it."""
        ys, xs = np.nonzero(self.mask)
        part = (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))
        return Cutout(self.image[part], self.mask[part])


def cut_object(photo: Photo, rng: np.random.Generator) -> Cutout | None:
    """A random object of a photograph, larger ones sooner; None where it has none of 200 pixels."""
    mask = photo.masks[0]
    values, areas = region_values(mask, 200, False)
    if not len(values):
        return None
    chosen = mask > 0 if photo.parts_of_one else mask == rng.choice(values, p=areas / areas.sum())
    return Cutout(photo.image, chosen).tight()


Window = tuple[float, float, float, float]


def _resize(array: np.ndarray, window: Window, size_wh: tuple[int, int], smooth: bool) -> np.ndarray:
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(array).resize(size_wh, how, box=window))


def whole_window(shape_hw: tuple[int, int], rng: np.random.Generator, trim: float) -> Window:
    """Nearly everything: each side loses up to a share `trim`. XYXY in pixels."""
    h, w = shape_hw
    left, right = rng.uniform(0, trim, 2) * w
    top, bottom = rng.uniform(0, trim, 2) * h
    return left, top, w - right, h - bottom


def zoom_window(mask: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> Window:
    """A part of the image that holds some place of a random region. XYXY in pixels."""
    h, w = mask.shape
    share = rng.uniform(0.35, 0.9)
    ratio = np.exp(rng.uniform(-0.3, 0.3))
    ww, hh = min(w, w * share * ratio), min(h, h * share / ratio)
    ys, xs = np.nonzero(mask == rng.choice(values)) if len(values) else (np.array([h // 2]), np.array([w // 2]))
    pick = rng.integers(len(ys))
    x0 = np.clip(xs[pick] - ww * rng.uniform(0.2, 0.8), 0, w - ww)
    y0 = np.clip(ys[pick] - hh * rng.uniform(0.2, 0.8), 0, h - hh)
    return x0, y0, x0 + ww, y0 + hh


def _turn(arrays: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The same random flip or quarter turn of all; mostly left-right only, as photographs have an up."""
    if rng.random() < 0.5:
        arrays = [a[:, ::-1] for a in arrays]
    if rng.random() < 0.05:
        arrays = [a[::-1] for a in arrays]
    if rng.random() < 0.06:
        arrays = [np.rot90(a) for a in arrays]
    return arrays


def view_of(photo: Photo, size: int, rng: np.random.Generator, smallest_px: int, zoom: float) -> View:
    """One photograph in a frame of `size`, cut at random with probability `zoom`."""
    which = int(rng.integers(len(photo.masks)))
    mask = photo.masks[which]
    values, _ = region_values(mask, 64, photo.zero_is_region)
    window = zoom_window(mask, values, rng) if rng.random() < zoom else whole_window(mask.shape, rng, 0.12)
    width, height = window[2] - window[0], window[3] - window[1]
    longest = size if rng.random() < 0.7 else int(size * rng.uniform(0.6, 1.0))
    stretch = np.exp(rng.normal(0, 0.08))
    width, height = width * stretch, height / stretch
    scale = longest / max(width, height)
    size_wh = (max(8, min(size, round(width * scale))), max(8, min(size, round(height * scale))))
    small, label = _turn([_resize(photo.image, window, size_wh, True), _resize(mask, window, size_wh, False)], rng)
    return _framed(photo, small, label, size, smallest_px)


def _framed(photo: Photo, small: np.ndarray, label: np.ndarray, size: int, smallest_px: int) -> View:
    """Content at the top left of the frame, and the regions left of it."""
    h, w = label.shape
    image = np.zeros((size, size, 3), np.uint8)
    image[:h, :w] = small
    content = np.zeros((size, size), bool)
    content[:h, :w] = True
    labels = np.full((size, size), -1, np.int16)
    labels[:h, :w] = label
    values, areas = region_values(label, smallest_px, photo.zero_is_region)
    regions = [labels == value for value in values]
    weights = [float(np.sqrt(area)) for area in areas]
    if photo.parts_of_one and len(values) > 1:
        regions.append(labels > 0)
        weights.append(WHOLE_WEIGHT * sum(weights))
    return View(image, content, regions, weights)


def mosaic(views: list[View], size: int) -> View:
    """Four views of half size as one: small objects, and many in a frame."""
    image = np.zeros((size, size, 3), np.uint8)
    content = np.zeros((size, size), bool)
    regions: list[np.ndarray] = []
    weights: list[float] = []
    half = size // 2
    for index, view in enumerate(views):
        rows = slice(index // 2 * half, index // 2 * half + half)
        columns = slice(index % 2 * half, index % 2 * half + half)
        image[rows, columns] = view.image
        content[rows, columns] = view.content
        for region in view.regions:
            placed = np.zeros((size, size), bool)
            placed[rows, columns] = region
            regions.append(placed)
        total = sum(view.weights) or 1.0
        weights += [w / total for w in view.weights]
    return View(image, content, regions, weights)


def paste(view: View, photo: Photo, rng: np.random.Generator) -> View:
    """Put an object of another photograph somewhere; it becomes a region and hides what it covers."""
    size = view.image.shape[0]
    thing = cut_object(photo, rng)
    if thing is None:
        return view
    h, w = thing.mask.shape
    scale = size * float(np.exp(rng.uniform(np.log(0.12), np.log(0.7)))) / max(h, w)
    size_wh = (max(4, round(w * scale)), max(4, round(h * scale)))
    cut = _resize(thing.image, (0, 0, w, h), size_wh, True)
    alpha = _resize((thing.mask * 255).astype(np.uint8), (0, 0, w, h), size_wh, True).astype(np.float32) / 255
    if rng.random() < 0.5:
        cut, alpha = cut[:, ::-1], alpha[:, ::-1]
    h, w = alpha.shape
    ch, cw = int(view.content.any(1).sum()), int(view.content.any(0).sum())
    y = int(rng.integers(-h // 4, max(ch - 3 * h // 4, 1)))
    x = int(rng.integers(-w // 4, max(cw - 3 * w // 4, 1)))
    y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + h, ch), min(x + w, cw)
    if y1 - y0 < 4 or x1 - x0 < 4:
        return view
    part = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    where = (slice(y0, y1), slice(x0, x1))
    a = alpha[part] * view.content[where]  # a mosaic's content has gaps
    covered = np.zeros((size, size), bool)
    covered[where] = a > 0.5
    if covered.sum() < SMALLEST_LEFT_PX:
        return view
    view.image[where] = (view.image[where] * (1 - a[..., None]) + cut[part] * a[..., None] + 0.5).astype(np.uint8)
    left = [region & ~covered for region in view.regions]
    kept = [i for i, region in enumerate(left) if region.sum() >= SMALLEST_LEFT_PX]
    regions = [left[i] for i in kept] + [covered]
    weights = [view.weights[i] for i in kept]
    return View(view.image, view.content, regions, [*weights, max(weights, default=1.0)])
