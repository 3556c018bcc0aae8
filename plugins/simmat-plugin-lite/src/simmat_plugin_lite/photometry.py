"""What makes a photograph look less like one: grey, mixed, inverted, blurred, noisy.

The model shall learn 'what here belongs together' also where colour means nothing, as it will for a
sensor that is not RGB.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _jitter(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and white balance."""
    grey = (x @ _LUMA)[..., None]
    x = grey + (x - grey) * rng.uniform(0.4, 1.6)
    x = (x - x.mean()) * rng.uniform(0.6, 1.5) + x.mean() + rng.uniform(-0.15, 0.15)
    return x * (1 + rng.uniform(-0.12, 0.12, 3).astype(np.float32))


def _one_plane(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One grey plane, three times: luminance or a random mix of the channels, either sign."""
    weights = _LUMA if rng.random() < 0.5 else rng.normal(0, 1, 3).astype(np.float32)
    plane = x @ weights
    low, high = np.percentile(plane, (1, 99))
    plane = (plane - low) / max(high - low, 1e-3) * rng.uniform(0.6, 1.0)
    return np.repeat(plane[..., None], 3, axis=-1)


def _mix(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Swap or mix the channels, some of them inverted."""
    if rng.random() < 0.5:
        x = x[..., rng.permutation(3)]
        return np.asarray(np.where(rng.random(3) < 0.4, 1 - x, x), np.float32)
    matrix = rng.normal(0, 0.6, (3, 3)).astype(np.float32)
    x = (x - 0.5) @ matrix
    return np.asarray(x / max(float(x.std()) * 4, 1e-3) + 0.5)


def _curve(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random piecewise linear tone curve, not always monotonic: other physics, other contrasts."""
    knots = rng.random(5)
    if rng.random() < 0.7:
        knots = np.sort(knots)
    return np.asarray(np.interp(x, np.linspace(0, 1, 5), knots), np.float32)


def _blurred(x: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur (H, W, C) along height and width."""
    return np.asarray(gaussian_filter(x, (sigma_px, sigma_px, 0)))


def _coarse(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lower resolution: blurred, or sampled down and up."""
    if rng.random() < 0.6:
        return _blurred(x, rng.uniform(0.4, 1.8))
    h, w, _ = x.shape
    step = int(rng.integers(2, 4))
    small = x[::step, ::step]
    return np.asarray(zoom(small, (h / small.shape[0], w / small.shape[1], 1), order=1))


def _noise(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Additive noise or speckle, in grey or in colour."""
    shape = x.shape if rng.random() < 0.5 else (*x.shape[:2], 1)
    grain = rng.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(0.01, 0.12))
    if rng.random() < 0.3:
        grain = _blurred(grain, 0.7) * 2
    return np.asarray(x + grain if rng.random() < 0.6 else x * (1 + 2 * grain))


_STEPS = (
    (_jitter, 0.7),
    (_mix, 0.10),
    (_one_plane, 0.2),
    (_curve, 0.10),
    (_coarse, 0.15),
    (_noise, 0.20),
)


def recolour(image: np.ndarray, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change how the content of a frame looks, not where anything is.

    Args:
        image: (S, S, 3) uint8.
        content: (S, S) bool, False in the padding.
        rng: where chance comes from.

    Returns:
        (S, S, 3) uint8; outside the content as it was.
    """
    rows, columns = np.flatnonzero(content.any(1)), np.flatnonzero(content.any(0))
    where = (slice(0, rows[-1] + 1), slice(0, columns[-1] + 1))
    x = image[where].astype(np.float32) / 255
    for step, probability in _STEPS:
        if rng.random() < probability:
            x = step(np.clip(x, 0, 1), rng)
    if rng.random() < 0.25:
        x = np.clip(x, 0, 1) ** np.float32(np.exp(rng.uniform(-0.8, 0.8)))
    if rng.random() < 0.08:
        x = 1 - x
    out = image.copy()
    out[where] = np.clip(x * 255 + 0.5, 0, 255).astype(np.uint8)
    out[~content] = 0
    return out
