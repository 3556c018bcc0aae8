"""A file of a microscope: its scenes, and what is stated of the axes and channels of each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from simmat import Channel, Window
from simmat.errors import DataError

_MAX_NM, _MIN_NM = 20_000.0, 100.0
"""Emission wavelengths beyond these limits are placeholders, such as 0."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of a file: a position of the stage, a tile, a series.

    Attributes:
        name: unique in its file.
        times: T.
        slices: Z.
        size_hw: (height, width) in pixels.
        channels: C channels.
        pixel_um: size of a pixel along z, y and x; None where the file does not say.
    """

    name: str
    times: int
    slices: int
    size_hw: tuple[int, int]
    channels: tuple[Channel, ...]
    pixel_um: tuple[float | None, float | None, float | None]

    @property
    def frame_axis(self) -> str:
        """The axis along which its frames lie: "t", or "z" if it has only one time."""
        return "t" if self.times > 1 else "z"

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.times if self.times > 1 else self.slices

    @property
    def pixel_size_um(self) -> tuple[float, float] | None:
        """(height, width) of a pixel in µm; None if the file does not say."""
        _, height, width = self.pixel_um
        if height is None or width is None:
            return None
        return height, width


class MicroscopeFile(Protocol):
    """An open file; it is used in one thread of one process."""

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def scene_names(self) -> tuple[str, ...]:
        """Names of its scenes."""

    def scene(self, number: int) -> Scene:
        """Return what the file states of a scene."""

    def read(
        self, number: int, t: int, z: int, picked: Sequence[int], window: Window
    ) -> npt.NDArray[Any]:
        """Read the planes (P, h, w) of the picked channels of a scene, as they are stored."""


def make_channels(
    names: Sequence[str | None], emissions_nm: Sequence[float | None]
) -> tuple[Channel, ...]:
    """Return a channel of counts for each name; one without a name is `band0`, `band1`, … by its place."""
    channels = []
    used: set[str] = set()
    for place, (name, emission) in enumerate(zip(names, emissions_nm, strict=True)):
        plain = re.sub(r"[^a-z0-9._+]+", "-", (name or "").lower()).strip("-")
        plain = plain or f"band{place}"
        if plain in used:  # two exposures of one stain
            plain = f"{plain}-{place}"
        while plain in used:
            plain += "+"
        used.add(plain)
        micron = None
        if emission is not None and _MIN_NM <= emission <= _MAX_NM:
            micron = emission / 1000
        channels.append(Channel(plain, "counts", "count", wavelength_um=micron))
    return tuple(channels)


def checked_size_um(path: Path, axis: str, size: float | None) -> float | None:
    """Return the size of a pixel along an axis; DataError if it is not a length."""
    if size is None:
        return None
    if not (math.isfinite(size) and size > 0):
        raise DataError(
            f"{path}: states a pixel size of {size:g} µm along {axis}, which is not a length; correct it in the "
            "file, or remove it, so that areas are in pixels"
        )
    return float(size)


def project(planes: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the largest number of each pixel over slices (P, h, w)."""
    largest = planes[0]
    for one in planes[1:]:
        largest = np.maximum(largest, one)
    return largest
