"""Scales of a file's numbers (amplitude, power, decibel), and conversions between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from simmat.types import BoolArray, FloatArray

Kind = Literal["amplitude", "power", "decibel"]
Array = npt.NDArray[np.float64]

DB_RANGE = (-100.0, 100.0)
"""Range of backscatter in decibel, which excludes fill values such as -9999."""
HALF_COUNT = 0.5
"""Upper bound of the amplitude where its whole count is 0."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale of the numbers of a file.

    Attributes:
        kind: amplitude (proportional to the field), power (its square; sigma nought, intensity), decibel.
        description: for messages.
    """

    kind: Kind
    description: str

    def to_power(self, values: FloatArray) -> Array:
        """Convert values in this scale to power."""
        wide = values.astype(np.float64)
        if self.kind == "amplitude":
            return wide**2
        return wide if self.kind == "power" else 10 ** (wide / 10)

    def from_power(self, power: Array) -> FloatArray:
        """Convert power above 0 to values in this scale."""
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
    """Convert power above 0 to decibel: 10 log10(power)."""
    return np.asarray(
        10 * np.log10(np.asarray(power, dtype=np.float64)), dtype=np.float32
    )


def to_decibel(
    values: FloatArray, valid: BoolArray, scale: Scale, unit: str
) -> tuple[FloatArray, BoolArray]:
    """Convert values to decibel; return them with where they are valid.

    Whole counts of 0 are dark, not missing: they become half a count of amplitude. Other values of 0 or below have no
    logarithm and are invalid.

    Args:
        values: (P, H, W) in `scale`.
        valid: (P, H, W).
        scale: what the values are.
        unit: "count" for whole numbers.
    """
    if scale.kind == "decibel":
        return values, valid
    found, defined = decibel_arrays(values.astype(np.float64), valid, scale, unit, np)
    return found.astype(np.float32), defined


def decibel_arrays(
    values: Any, valid: Any, scale: Scale, unit: str, library: Any
) -> tuple[Any, Any]:
    """Do what `to_decibel` does with arrays of numpy, torch or the like."""
    if scale.kind == "decibel":
        return values, valid
    if unit == "count":
        floor = HALF_COUNT if scale.kind == "amplitude" else HALF_COUNT**2
        values = library.where(values > floor, values, floor)
    defined = valid & (values > 0)
    factor = 20 if scale.kind == "amplitude" else 10
    return factor * library.log10(library.where(defined, values, 1.0)), defined
