"""The camera of a scene, and the noise that cameras make."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

from simmat_plugin_scenes.optics import detected, radiance
from simmat_plugin_scenes.scene import Scene

Array = npt.NDArray[np.float64]

LENS_BLUR_PX = 0.55
_FULL_WELL = 6000.0  # electrons at white, base gain
_READ_NOISE = 6.0  # electrons
_MAX_GAIN = 12.0
_VISIBLE = ("red", "green", "blue")
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709


class PicturedScene(Scene):
    """A scene of which two cameras for visible light take pictures, without an import by those who ask for one."""

    __slots__ = ()

    def rgb_counts(self, rng: np.random.Generator) -> Array:
        """Return the picture of a colour camera: (3, H, W) whole sRGB counts 0 to 255."""
        return _counts(self, radiance(self, _VISIBLE), rng)

    def gray_counts(self, rng: np.random.Generator) -> Array:
        """Return that of a monochrome camera, which measures Rec. 709 luminance: (1, H, W) whole counts 0 to 255."""
        # (1, H, W)
        luminance = np.einsum("c,chw->hw", _LUMINANCE, radiance(self, _VISIBLE))[None]
        return _counts(self, luminance, rng)


def _counts(scene: Scene, linear: Array, rng: np.random.Generator) -> Array:
    """Return whole counts 0 to 255 for (C, H, W) radiance: automatic exposure, blur, noise and the sRGB curve.

    The bright parts below the sky become nearly white, but a surface of reflectance 0.5 does not saturate.
    """
    metered = linear[:, np.isfinite(scene.surface.depth_m)]
    incident = max(scene.light.sun_rgb) + max(scene.light.ambient_rgb)
    gain = min(
        0.7 / max(float(np.percentile(metered, 97)), 1e-4),
        1 / (0.5 * incident),
        _MAX_GAIN,
    )
    blurred = gaussian_filter(
        (linear * gain).clip(0, 1.5), (0, LENS_BLUR_PX, LENS_BLUR_PX)
    )
    full_well = _FULL_WELL / max(gain, 1.0)  # electrons at white fall with the gain
    values = detected(
        blurred, full_well=full_well, read_noise=_READ_NOISE, rng=rng
    ).clip(0, 1)
    curved = np.where(
        values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055
    )
    return np.asarray(np.rint(curved * 255))


_SIDE = 32


class Noise:
    """Value noise: random numbers on a periodic lattice of 32³ points, smoothly interpolated; mean 0, within ±1."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the lattice."""
        self._lattice = rng.uniform(-1, 1, (_SIDE, _SIDE, _SIDE))

    def __call__(self, points: Array, octaves: int = 3) -> Array:
        """Return (N,) values at (N, 3) points; a lattice cell has side 1, and each octave halves size and amplitude."""
        total = np.zeros(len(points))
        weight, weights = 1.0, 0.0
        for octave in range(octaves):
            total += weight * self._once(points * 2.0**octave + 7.3 * octave)
            weights += weight
            weight /= 2
        return total / weights

    def _once(self, points: Array) -> Array:
        floor = np.floor(points)
        part = points - floor
        places = floor % _SIDE + part * part * (3 - 2 * part)
        return np.asarray(
            map_coordinates(self._lattice, places.T, order=1, mode="grid-wrap")
        )

    def gradient(self, points: Array) -> Array:
        """Return (N, 3) slopes of the field, for bumps."""
        here, step = self(points, 2), 0.05
        return np.stack(
            [(self(points + step * axis, 2) - here) / step for axis in np.eye(3)],
            axis=1,
        )
