"""Amplitude, power and decibel: what the numbers of a file are, and the way between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from simmat.types import BoolArray, FloatArray

Kind = Literal["amplitude", "power", "decibel"]
Array = npt.NDArray[np.float64]

DB_RANGE = (-100.0, 100.0)
"""What a backscatter in decibel can be; fill values such as -9999 lie outside."""
HALF_COUNT = 0.5
"""Where a whole number of counts is zero the amplitude lay somewhere below this."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What the numbers of a file are.

    Attributes:
        kind: amplitude (proportional to the field), power (its square; sigma nought, intensity), decibel.
        words: for descriptions.
    """

    kind: Kind
    words: str

    def to_power(self, values: FloatArray) -> Array:
        """Return power of values in this scale."""
        wide = values.astype(np.float64)
        if self.kind == "amplitude":
            return wide**2
        return wide if self.kind == "power" else 10 ** (wide / 10)

    def from_power(self, power: Array) -> FloatArray:
        """Return values in this scale of a power above 0."""
        if self.kind == "amplitude":
            return np.sqrt(power).astype(np.float32)
        return power.astype(np.float32) if self.kind == "power" else decibel(power)


SCALES: Mapping[str, Scale] = {
    "amplitude": Scale("amplitude", "amplitude"),
    "power": Scale("power", "power (sigma nought or intensity, linear)"),
    "db": Scale("decibel", "decibel"),
}
"""The option `scale` -> scale."""


def decibel(power: npt.ArrayLike) -> FloatArray:
    """Return 10 log10 of a power above 0."""
    return np.asarray(10 * np.log10(np.asarray(power, dtype=np.float64)), dtype=np.float32)


def to_decibel(values: FloatArray, valid: BoolArray, scale: Scale, unit: str) -> tuple[FloatArray, BoolArray]:
    """Return decibel and where they mean something.

    Whole counts of zero are dark, not missing: they become half a count of amplitude. A measured zero or negative
    value that is not a whole count has no logarithm and is invalid.

    Args:
        values: (P, H, W) in `scale`.
        valid: (P, H, W).
        scale: what the values are.
        unit: "count" for the whole numbers of a file.
    """
    if scale.kind == "decibel":
        return values, valid
    if unit == "count":
        floor = HALF_COUNT if scale.kind == "amplitude" else HALF_COUNT**2
        values = np.maximum(values, np.float32(floor))
    defined = valid & (values > 0)
    return decibel(scale.to_power(np.where(defined, values, np.float32(1)))), defined
