"""Simulated users: first clicks, boxes, and corrections of what a mask got wrong."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from simmat.data.clicks import tight_box


def depth_inside(region: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest one outside, one pixel of outside padded around."""
    depth: np.ndarray = distance_transform_edt(np.pad(region, 1))
    return depth[1:-1, 1:-1]


def click_inside(region: np.ndarray, rng: np.random.Generator, central: float) -> tuple[int, int]:
    """Return a pixel (x, y) of a region that is not empty.

    Near its deepest place with probability `central`, else a random one, with a slight preference for depth.
    """
    depth = depth_inside(region)
    if rng.random() < central:
        near = np.flatnonzero(depth >= depth.max() * rng.uniform(0.85, 1.0))
        index = int(rng.choice(near))
    else:
        inside = np.flatnonzero(depth > 0.25 * depth.max() * rng.random())
        index = int(rng.choice(inside))
    y, x = divmod(index, region.shape[1])
    return x, y


def box_around(region: np.ndarray, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """XYXY of a region, each side moved by a normal of `jitter` times the box's size, at most 20 pixels."""
    box = tight_box(region)
    side = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    shift = np.clip(rng.normal(0, jitter, 4) * side, -20, 20)
    moved = box + shift
    h, w = region.shape
    moved = np.clip(moved, 0, [w, h, w, h])
    fine = moved[2] - moved[0] > 2 and moved[3] - moved[1] > 2
    return (moved if fine else box).astype(np.float32)


def correction(
    predicted: np.ndarray, region: np.ndarray, content: np.ndarray, rng: np.random.Generator, central: float
) -> tuple[int, int, int] | None:
    """Say where a user would click next: (x, y, label) in the deeper of the missed and the wrongly added area.

    None where the mask is right.
    """
    missed = region & ~predicted & content
    added = predicted & ~region & content
    deep_missed = depth_inside(missed).max() if missed.any() else 0.0
    deep_added = depth_inside(added).max() if added.any() else 0.0
    if deep_missed == 0 and deep_added == 0:
        return None
    positive = deep_missed >= deep_added
    x, y = click_inside(missed if positive else added, rng, central)
    return x, y, int(positive)
