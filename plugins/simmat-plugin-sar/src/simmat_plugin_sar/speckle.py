"""Lee's speckle filter, and an estimate of the number of looks that it needs.

Sources: J.-S. Lee, Digital image enhancement and noise filtering by use of local statistics, IEEE Transactions on
Pattern Analysis and Machine Intelligence 2(2), 1980. The number of looks is the mode of local estimates, as in
Anfinsen, Doulgeris and Eltoft, Estimation of the equivalent number of looks in polarimetric synthetic aperture radar
imagery, IEEE Transactions on Geoscience and Remote Sensing 47(11), 2009.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d, gaussian_filter1d

from simmat.types import BoolArray

Array = npt.NDArray[np.float64]

WINDOW = 7
"""Side of the square window in pixels."""
_BINS = 64
# from a single look, with a margin for random variation, to an image without speckle
_LOOKS = (0.5, 200.0)
_SMALLEST = 1e-30


def lee(power: Array, valid: BoolArray, looks: float | None = None) -> Array:
    """Smooth speckle in homogeneous areas; keep edges and bright points.

    Args:
        power: (H, W), 0 or more.
        valid: (H, W); invalid pixels are ignored and returned unchanged.
        looks: equivalent number of looks of the image; None estimates it.

    Returns:
        (H, W): mean + w (power - mean), w = (c² - s²) / (c² (1 + s²)) clipped to 0..1, with c² the local squared
        coefficient of variation and s² = 1 / looks that of speckle.
    """
    mean, varied = _local(power, valid)
    speckle = 1 / (looks if looks is not None else estimate_looks(power, valid))
    weight = (varied - speckle) / np.maximum(varied * (1 + speckle), _SMALLEST)
    return np.where(valid, mean + weight.clip(0, 1) * (power - mean), power)


def estimate_looks(power: Array, valid: BoolArray) -> float:
    """Return the equivalent number of looks, 0.5 to 200: the most frequent mean² / variance of windows."""
    _, varied = _local(power, valid)
    speckled = valid & (varied > 1 / _LOOKS[1]) & (varied < 1 / _LOOKS[0])
    if not speckled.any():
        return _LOOKS[1]
    counts, edges = np.histogram(
        -np.log(varied[speckled]), bins=_BINS, range=tuple(np.log(_LOOKS))
    )
    best = int(np.argmax(gaussian_filter1d(counts.astype(np.float64), 1.5)))
    return float(np.exp((edges[best] + edges[best + 1]) / 2))


def _local(power: Array, valid: BoolArray) -> tuple[Array, Array]:
    """Return (H, W) mean and squared coefficient of variation of the valid pixels in each window."""
    share = np.maximum(_window_mean(valid.astype(np.float64)), 1 / WINDOW**4)
    known = np.where(valid, power, 0.0)
    mean = _window_mean(known) / share
    variance = np.maximum(_window_mean(known**2) / share - mean**2, 0)
    return mean, variance / np.maximum(mean**2, _SMALLEST)


def _window_mean(values: Array) -> Array:
    """Return (H, W) mean of the window around each pixel.

    Each window is summed separately: running sums, as in `uniform_filter`, carry the rounding error of a bright target
    along the rest of the line.
    """
    weights = np.full(WINDOW, 1 / WINDOW)
    for axis in (0, 1):
        values = correlate1d(values, weights, axis)
    return values
