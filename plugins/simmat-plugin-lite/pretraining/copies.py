"""Views of many small things alike, as a frame of nuclei, plants, ships or animals from above is.

Photographs seldom show it. A model that has mostly seen one object in a photograph answers a click on one of many with
all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from pretraining.photographs import Cutout, Photo, cut_object

SMALLEST_PX = 20
"""Smallest part of a thing that is shown and may be asked for."""

SHAPES = 0.6
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

Floats = npt.NDArray[np.float32]


def random_shape(photo: Photo, rng: np.random.Generator) -> Cutout:
    """Return a smooth blob, up to about five times as long as wide, filled with a piece of a photograph."""
    side = _SHAPE_PX
    angles = np.linspace(0, 2 * np.pi, side, endpoint=False)
    radius = np.ones(side)
    for waves in range(2, 6):
        radius += rng.normal(0, 0.25 / waves) * np.cos(
            waves * angles + rng.uniform(0, 2 * np.pi)
        )
    radius = np.clip(radius, 0.3, 2)
    longer = np.exp(rng.uniform(0, 1.4))
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    turn = (np.arctan2(y * longer, x) % (2 * np.pi)) / (2 * np.pi) * side
    border = (
        np.interp(turn, np.arange(side + 1), np.append(radius, radius[0]))
        / radius.max()
    )
    h, w = photo.labels.shape
    cut = int(rng.integers(min(16, h, w), min(h, w) + 1))
    top, left = int(rng.integers(h - cut + 1)), int(rng.integers(w - cut + 1))
    texture = photo.resized(
        (side, side), (left, top, left + cut, top + cut)
    ).image.astype(np.float32)
    own = texture.mean((0, 1))
    colour = own if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    # of less contrast than the photograph
    filled = colour + (texture - own) * rng.uniform(0, 0.8)
    return Cutout.of(
        np.clip(filled, 0, 255).astype(np.uint8), np.hypot(y * longer, x) <= border
    )


def many_copies(ground: Photo, photo: Photo, rng: np.random.Generator) -> Photo:
    """Put many copies of one thing on a photograph, half of them close to another; they alone are regions.

    Args:
        ground: what they lie on, often blurred, faint or dark.
        photo: whose object they are, or whose pixels fill their shape.
        rng: where chance comes from.

    Returns:
        `ground` as it is where `photo` has no object.
    """
    thing = (
        random_shape(photo, rng) if rng.random() < SHAPES else cut_object(photo, rng)
    )
    if thing is None:
        return ground
    height, width = size_hw = ground.labels.shape[0], ground.labels.shape[1]
    side_px = min(size_hw) * float(np.exp(rng.uniform(np.log(0.035), np.log(0.22))))
    many = int(np.clip(rng.uniform(0.05, 0.8) * height * width / side_px**2, 2, _MOST))
    kind = _Kind(side_px, rng.random() < 0.3, rng.uniform(0, 0.4), rng.uniform(0, 0.25))
    image, labels = _dimmed(ground.image, rng), np.zeros(size_hw, np.uint16)
    centres: list[tuple[float, float]] = []
    for _ in range(many):
        pixels, alpha, long_px = kind.one(thing, rng)
        for _ in range(_TRIES):
            centre = _somewhere(centres, long_px, size_hw, rng)
            y, x = (
                int(centre[0] - alpha.shape[0] / 2),
                int(centre[1] - alpha.shape[1] / 2),
            )
            where = np.s_[
                max(y, 0) : max(y + alpha.shape[0], 0),
                max(x, 0) : max(x + alpha.shape[1], 0),
            ]
            part = np.s_[
                max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)
            ]
            a = alpha[part]
            seen = a > 0.5
            if seen.sum() < SMALLEST_PX or (labels[where][seen] > 0).mean() > _OVERLAP:
                continue
            image[where] = (
                image[where] * (1 - a[..., None]) + pixels[part] * a[..., None]
            )
            centres.append(centre)
            labels[where][seen] = len(centres)
            break
    return Photo(np.clip(image + 0.5, 0, 255).astype(np.uint8), labels)


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

    def one(
        self, thing: Cutout, rng: np.random.Generator
    ) -> tuple[Floats, Floats, float]:
        """Return a thing's pixels (h, w, 3), its alpha (h, w) in 0..1 and its longer side before it was turned."""
        long_px = self.side_px * float(np.exp(rng.normal(0, self.sizes)))
        degrees = rng.normal(0, 8) if self.upright else rng.uniform(0, 360)
        gain, shift = np.exp(rng.normal(0, self.light)), rng.normal(0, 40 * self.light)
        h, w = thing.mask.shape
        scale = long_px / max(h, w)
        size_wh = (max(3, round(w * scale)), max(3, round(h * scale)))
        smooth = Image.Resampling.BILINEAR
        pixels, alpha = (
            np.asarray(
                Image.fromarray(plane)
                .resize(size_wh, smooth)
                .rotate(degrees, smooth, expand=True),
                np.float32,
            )
            for plane in (thing.image, thing.mask.astype(np.uint8) * 255)
        )
        if self.upright and rng.random() < 0.5:
            pixels, alpha = pixels[:, ::-1], alpha[:, ::-1]
        return (
            pixels * np.float32(gain) + np.float32(shift),
            alpha / np.float32(255),
            long_px,
        )


def _dimmed(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    x = image.astype(np.float32)
    if rng.random() < 0.7:
        sigma = np.exp(rng.uniform(np.log(1.5), np.log(40)))
        x = gaussian_filter(x, (sigma, sigma, 0))
    if rng.random() < 0.6:
        mean = x.mean((0, 1))
        x = mean + (x - mean) * np.float32(rng.uniform(0.0, 0.7))
    if rng.random() < 0.3:
        x = x * np.float32(rng.uniform(0.1, 0.6))
    return x


def _somewhere(
    centres: list[tuple[float, float]],
    long_px: float,
    size_hw: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return a centre (y, x) for a thing of a longer side of `long_px`: close to one that is there, or anywhere."""
    if centres and rng.random() < _NEAR:
        y, x = centres[int(rng.integers(len(centres)))]
        angle, far = rng.uniform(0, 2 * np.pi), long_px * rng.uniform(0.5, 1.3)
        return y + far * np.sin(angle), x + far * np.cos(angle)
    return rng.uniform(0, size_hw[0]), rng.uniform(0, size_hw[1])
