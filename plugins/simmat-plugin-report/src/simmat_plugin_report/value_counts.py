"""A mergeable histogram of any number of values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simmat.types import FloatArray

_MOST_DISTINCT = 1 << 17
"""Most different values that are counted exactly; 16 bits have half as many."""

Keys = npt.NDArray[np.uint32]


class ValueCounts:
    """Counts of float32 values.

    Up to `_MOST_DISTINCT` different values are counted exactly. If there are more, neighbouring values are counted
    together, by dropping as few of the last bits as necessary. The order of the values has no effect.

    Attributes:
        dropped: number of dropped last bits; 0 means exact.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._keys: Keys = np.zeros(0, np.uint32)
        self._counts = np.zeros(0, np.int64)

    def add(self, values: FloatArray) -> None:
        """Count (N,) finite values."""
        keys, counts = np.unique(_ordered(values) >> np.uint32(self.dropped), return_counts=True)
        self._add(keys, counts)

    def merge(self, other: ValueCounts) -> None:
        """Add the counts of another histogram."""
        while self.dropped < other.dropped:
            self._drop()
        self._add(other._keys >> np.uint32(self.dropped - other.dropped), other._counts)

    def _add(self, keys: Keys, counts: npt.NDArray[np.int64]) -> None:
        self._join(np.concatenate([self._keys, keys]), np.concatenate([self._counts, counts]))
        while len(self._keys) > _MOST_DISTINCT:
            self._drop()

    def _drop(self) -> None:
        self.dropped += 1
        self._join(self._keys >> np.uint32(1), self._counts)

    def _join(self, keys: Keys, counts: npt.NDArray[np.int64]) -> None:
        self._keys, places = np.unique(keys, return_inverse=True)
        self._counts = np.zeros(len(self._keys), np.int64)
        np.add.at(self._counts, places, counts)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self._counts.sum())

    def values(self) -> npt.NDArray[np.float64]:
        """Return the different values in ascending order; for values counted together, their middle."""
        middle = (1 << self.dropped) >> 1
        return _values((self._keys << np.uint32(self.dropped)) | np.uint32(middle))

    def percentiles(self, wanted: Sequence[float]) -> list[float]:
        """Return lower percentiles, which are occurring values."""
        reached = np.cumsum(self._counts)
        places = np.searchsorted(reached, np.asarray(wanted) / 100 * reached[-1])
        return [float(value) for value in self.values()[np.minimum(places, len(reached) - 1)]]

    def histogram(self, low: float, high: float, bins: int) -> tuple[list[int], int, int]:
        """Return the counts of equal bins from `low` to `high` inclusive, and the numbers of values below and above."""
        values = self.values()
        inside = (values >= low) & (values <= high)
        span = high - low
        places = np.minimum(((values[inside] - low) / span * bins).astype(np.int64), bins - 1) if span > 0 else 0
        counts = np.zeros(bins, np.int64)
        np.add.at(counts, places, self._counts[inside])
        return counts.tolist(), int(self._counts[values < low].sum()), int(self._counts[values > high].sum())


def _ordered(values: FloatArray) -> Keys:
    """Map float32 values to integers with the same order."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0 becomes 0
    top = np.uint32(1 << 31)
    return np.where(bits & top, ~bits, bits | top)


def _values(keys: Keys) -> npt.NDArray[np.float64]:
    top = np.uint32(1 << 31)
    return np.where(keys & top, keys & ~top, ~keys).astype(np.uint32).view(np.float32).astype(np.float64)
