"""Photographs that look less like photographs: one plane, mixed or inverted channels, other tones, less detail.

The model shall learn what belongs together also where colour means nothing, as on a sensor that is not RGB.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Floats = npt.NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _one_plane(x: Floats, rng: np.random.Generator) -> Floats:
    """One grey plane, three times: luminance or a random mix of the channels, either sign."""
    plane = x @ (
        _LUMA if rng.random() < 0.5 else rng.normal(0, 1, 3).astype(np.float32)
    )
    low, high = np.percentile(plane, (1, 99))
    plane = (plane - low) / max(high - low, 1e-3) * rng.uniform(0.6, 1.0)
    return np.repeat(plane[..., None], 3, axis=-1)


def _mix(x: Floats, rng: np.random.Generator) -> Floats:
    """Swap or mix the channels, some of them inverted."""
    if rng.random() < 0.5:
        x = x[..., rng.permutation(3)]
        return np.where(rng.random(3) < 0.4, 1 - x, x)
    x = (x - 0.5) @ rng.normal(0, 0.6, (3, 3)).astype(np.float32)
    return x / max(float(x.std()) * 4, 1e-3) + 0.5


def _curve(x: Floats, rng: np.random.Generator) -> Floats:
    """A random piecewise linear tone curve, not always monotonic: other physics, other contrasts."""
    knots = rng.random(5)
    if rng.random() < 0.7:
        knots = np.sort(knots)
    return np.interp(x, np.linspace(0, 1, 5), knots).astype(np.float32)


def _blurred(x: Floats, rng: np.random.Generator) -> Floats:
    sigma_px = rng.uniform(0.4, 2.4)
    return np.asarray(gaussian_filter(x, (sigma_px, sigma_px, 0)))


def _speckled(x: Floats, rng: np.random.Generator) -> Floats:
    """Multiplicative noise, in grey or in colour."""
    shape = x.shape if rng.random() < 0.5 else (*x.shape[:2], 1)
    return x * (
        1
        + rng.standard_normal(shape, dtype=np.float32)
        * np.float32(rng.uniform(0.02, 0.24))
    )


def _gamma(x: Floats, rng: np.random.Generator) -> Floats:
    return np.asarray(x ** np.float32(np.exp(rng.uniform(-0.8, 0.8))))


def _inverted(x: Floats, rng: np.random.Generator) -> Floats:
    return 1 - x


_STEPS: tuple[tuple[Callable[[Floats, np.random.Generator], Floats], float], ...] = (
    (_mix, 0.10),
    (_one_plane, 0.2),
    (_curve, 0.10),
    (_blurred, 0.15),
    (_speckled, 0.08),
    (_gamma, 0.25),
    (_inverted, 0.08),
)
"""Each with its probability, in this order; of a channel in 0..1."""


def recolour(
    image: npt.NDArray[np.uint8], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Change how an (H, W, 3) image looks, not where anything is."""
    x: Floats = image.astype(np.float32) / np.float32(255)
    for step, probability in _STEPS:
        if rng.random() < probability:
            x = np.clip(step(x, rng).astype(np.float32), np.float32(0), np.float32(1))
    return (x * 255 + 0.5).astype(np.uint8)
