"""Views of many small things alike, as a frame of nuclei, plants, ships or animals from above is.

Photographs seldom show it. Who has mostly seen one object in a photograph answers a click on one of many with all of
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from simmat_plugin_lite.regions import Photo, region_values
from simmat_plugin_lite.views import Cutout, View, cut_object

SMALLEST_PX = 20
"""Smallest part of a thing that is shown and may be asked for, in pixels of the frame."""

_SHAPES = 0.6
"""How often the thing is a random shape, not an object of a photograph."""

_SHAPE_PX = 64
"""Side of the square a random shape is drawn in."""

_NEAR = 0.5
"""How often a thing is put close to another."""

_OVERLAP = 0.15
"""How much of a thing may lie on others before another place is tried."""

_MOST = 60
"""Most things in a view."""

_TRIES = 6
"""Places tried for a thing before it is left out."""


def random_shape(photo: Photo, rng: np.random.Generator) -> Cutout:
    """A smooth blob, up to about five times as long as wide, filled with a piece of a photograph of less contrast."""
    side = _SHAPE_PX
    angles = np.linspace(0, 2 * np.pi, side, endpoint=False)
    radius = np.ones(side)
    for waves in range(2, 6):
        radius += rng.normal(0, 0.25 / waves) * np.cos(waves * angles + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.3, 2)
    longer = np.exp(rng.uniform(0, 1.4))
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    turn = (np.arctan2(y * longer, x) % (2 * np.pi)) / (2 * np.pi) * side
    border = np.interp(turn, np.arange(side + 1), np.append(radius, radius[0])) / radius.max()
    mask = np.hypot(y * longer, x) <= border
    h, w = photo.image.shape[:2]
    shorter = min(h, w)
    cut = int(rng.integers(min(16, shorter), shorter + 1))
    top, left = int(rng.integers(h - cut + 1)), int(rng.integers(w - cut + 1))
    piece = Image.fromarray(photo.image[top : top + cut, left : left + cut])
    texture = np.asarray(piece.resize((side, side), Image.Resampling.BILINEAR), np.float32)
    own = texture.mean((0, 1))
    colour = own if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    filled = colour + (texture - own) * rng.uniform(0, 0.8)
    return Cutout(np.clip(filled, 0, 255).astype(np.uint8), mask).tight()


def _ground(view: View, rng: np.random.Generator) -> np.ndarray:
    """What the things lie on, (S, S, 3) float32: a photograph, often blurred, faint or dark."""
    x = view.image.astype(np.float32)
    if rng.random() < 0.7:
        sigma = np.exp(rng.uniform(np.log(1.5), np.log(40)))
        rows, columns = view.content.any(1).sum(), view.content.any(0).sum()
        x[:rows, :columns] = gaussian_filter(x[:rows, :columns], (sigma, sigma, 0))
    if rng.random() < 0.6:
        mean = x[view.content].mean(0)
        x = mean + (x - mean) * rng.uniform(0.0, 0.7)
    if rng.random() < 0.3:
        x = x * rng.uniform(0.1, 0.6)
    return np.clip(x, 0, 255)


@dataclass(frozen=True)
class _Kind:
    """How much the things of one view differ.

    Attributes:
        side_px: usual longer side.
        upright: whether they stand, and at most face the other way; else they lie in any direction.
        sizes: standard deviation of the logarithm of their sizes.
        light: the same of their brightness.
    """

    side_px: float
    upright: bool
    sizes: float
    light: float

    def one(self, thing: Cutout, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
        """Return a thing's pixels (h, w, 3) float32, its alpha (h, w) and its longer side before it was turned."""
        long_px = self.side_px * float(np.exp(rng.normal(0, self.sizes)))
        degrees = rng.normal(0, 8) if self.upright else rng.uniform(0, 360)
        gain, shift = np.exp(rng.normal(0, self.light)), rng.normal(0, 40 * self.light)
        h, w = thing.mask.shape
        scale = long_px / max(h, w)
        size_wh = (max(3, round(w * scale)), max(3, round(h * scale)))
        smooth = Image.Resampling.BILINEAR
        planes = (thing.image, (thing.mask * 255).astype(np.uint8))
        pixels, alpha = (
            np.asarray(Image.fromarray(plane).resize(size_wh, smooth).rotate(degrees, smooth, expand=True), np.float32)
            for plane in planes
        )
        if self.upright and rng.random() < 0.5:
            pixels, alpha = pixels[:, ::-1], alpha[:, ::-1]
        return pixels * np.float32(gain) + np.float32(shift), alpha / 255, long_px


Centre = tuple[float, float]
Part = tuple[slice, slice]


def _somewhere(centres: list[Centre], long_px: float, content_hw: tuple[int, int], rng: np.random.Generator) -> Centre:
    """A centre (y, x) for a thing of a longer side of `long_px`: close to one that is there, or anywhere."""
    if centres and rng.random() < _NEAR:
        y, x = centres[int(rng.integers(len(centres)))]
        angle, far = rng.uniform(0, 2 * np.pi), long_px * rng.uniform(0.5, 1.3)
        return y + far * np.sin(angle), x + far * np.cos(angle)
    return rng.uniform(0, content_hw[0]), rng.uniform(0, content_hw[1])


def _spot(alpha: np.ndarray, centre: Centre, content_hw: tuple[int, int]) -> tuple[Part, Part] | None:
    """Which part of a thing lies within the content, and where; None where less than three pixels do."""
    h, w = alpha.shape
    y, x = int(centre[0] - h / 2), int(centre[1] - w / 2)
    y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + h, content_hw[0]), min(x + w, content_hw[1])
    if y1 - y0 < 3 or x1 - x0 < 3:
        return None
    return (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)), (slice(y0, y1), slice(x0, x1))


def many_copies(view: View, photo: Photo, rng: np.random.Generator) -> View:
    """Many copies of one thing on the ground of a view, half of them close to another; they alone are its regions.

    Args:
        view: what they lie on.
        photo: whose object they are, or whose pixels fill their shape.
        rng: where chance comes from.

    Returns:
        `view` as it is where the photograph has no object, or no two copies found a place; in frames below 128 pixels
        a copy is often too small to be one.
    """
    size = view.image.shape[0]
    thing = random_shape(photo, rng) if rng.random() < _SHAPES else cut_object(photo, rng)
    if thing is None:
        return view
    height, width = int(view.content.any(1).sum()), int(view.content.any(0).sum())
    side_px = size * float(np.exp(rng.uniform(np.log(0.035), np.log(0.22))))
    many = int(np.clip(rng.uniform(0.05, 0.8) * height * width / side_px**2, 2, _MOST))
    kind = _Kind(side_px, rng.random() < 0.3, rng.uniform(0, 0.4), rng.uniform(0, 0.25))
    image = _ground(view, rng)
    owner = np.zeros((size, size), np.int16)
    centres: list[Centre] = []
    for _ in range(many):
        pixels, alpha, long_px = kind.one(thing, rng)
        for _ in range(_TRIES):
            y, x = _somewhere(centres, long_px, (height, width), rng)
            if (spot := _spot(alpha, (y, x), (height, width))) is None:
                continue
            part, where = spot
            a = alpha[part] * view.content[where]
            seen = a > 0.5
            if seen.sum() < SMALLEST_PX or (owner[where][seen] > 0).mean() > _OVERLAP:
                continue
            image[where] = image[where] * (1 - a[..., None]) + pixels[part] * a[..., None]
            centres.append((y, x))
            owner[where][seen] = len(centres)
            break
    values, _ = region_values(owner, SMALLEST_PX, False)
    if len(values) < 2:
        return view
    out = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    out[~view.content] = 0
    return View(out, view.content, [owner == value for value in values], [1.0] * len(values))
