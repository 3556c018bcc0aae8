"""Simulate a calibrated multispectral camera on a synthetic scene: apparent reflectance in six bands.

Reflected light is divided by that of a white panel facing the sun, so shadows are dark and sky and glints can exceed 1.
Every band has its own blur, shot noise and offset noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from simmat_plugin_scenes import Scene, optics

Array = npt.NDArray[np.float64]

WAVELENGTHS_UM = {name: band.wavelength_um for name, band in optics.BANDS.items()}
"""Centre wavelengths of blue, green, red, nir, swir1 and swir2."""
# short-wave infrared detectors have larger pixels
_BLUR_PX = (0.5, 0.5, 0.5, 0.6, 0.9, 1.0)
# at a reflectance of 1 in full sun
_SIGNAL_TO_NOISE = (120.0, 140.0, 130.0, 120.0, 80.0, 60.0)
_FLOOR = 0.001


def apparent_reflectance(scene: Scene, rng: np.random.Generator) -> Array:
    """Return (6, H, W) reflectance in the order of `WAVELENGTHS_UM`; noise can make it negative."""
    bands = tuple(WAVELENGTHS_UM)
    sun, ambient = optics.irradiance(scene, bands)
    panel = (sun + ambient)[:, None, None]
    ideal = optics.radiance(scene, bands) / panel
    seen = np.stack(
        [
            gaussian_filter(plane, blur)
            for plane, blur in zip(ideal, _BLUR_PX, strict=True)
        ]
    )
    # Integration is longer in weak light, up to a limit: at night the image is mostly noise.
    weak = np.sqrt(np.maximum(0.3 / max(float(panel.max()), 1e-6), 1.0))
    shot = np.sqrt(seen.clip(0, None)) / np.asarray(_SIGNAL_TO_NOISE)[:, None, None]
    return np.asarray(
        seen + rng.normal(size=seen.shape) * weak * np.sqrt(shot**2 + _FLOOR**2)
    )
