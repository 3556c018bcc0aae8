"""Measure by how many pixels two images of one scene, by different sensors, are shifted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simmat.types import SensorImage

WARN_PX = 2.0
"""Median shift of a set of images above which masks of one sensor lie beside what the other sees."""
_LOW_PASS = 0.1
"""Standard deviation, in cycles a pixel, of the frequencies by which shifts are found: the finest are noise."""


def shift_between(first: SensorImage, second: SensorImage) -> tuple[int, int]:
    """Return the (dy, dx) in pixels by which `second` must move to lie on `first`, by phase correlation.

    Their edges are compared: sensors differ in what is bright, not in where things end. Both have the same size.
    """
    product = np.fft.fft2(_edges(first)) * np.conj(np.fft.fft2(_edges(second)))
    product /= np.abs(product) + 1e-12
    rows, columns = (np.fft.fftfreq(length) for length in first.size_hw)
    product *= np.exp(-(rows[:, None] ** 2 + columns**2) / (2 * _LOW_PASS**2))
    peak = np.unravel_index(np.argmax(np.fft.ifft2(product).real), first.size_hw)
    dy, dx = (
        (int(at) + length // 2) % length - length // 2
        for at, length in zip(peak, first.size_hw, strict=True)
    )
    return dy, dx


def _edges(image: SensorImage) -> npt.NDArray[np.float64]:
    """Return the (H, W) sum of the gradients of all channels, faded out towards the border."""
    total = np.zeros(image.size_hw)
    for plane, valid in zip(image.data.astype(np.float64), image.valid, strict=True):
        if valid.any() and min(plane.shape) > 1:
            filled = np.where(valid, plane, plane[valid].mean())
            gradient = np.hypot(*np.gradient(filled))
            total += gradient / max(float(gradient.mean()), 1e-12)
    height, width = total.shape
    faded: npt.NDArray[np.float64] = (
        (total - total.mean()) * np.hanning(height)[:, None] * np.hanning(width)
    )
    return faded
