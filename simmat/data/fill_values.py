"""Find stored numbers that are read as measurements but look like fill values, so that the user can check them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.composition import SelectedChannels
from simmat.types import BoolArray, Channel, SensorImage

FILL_VALUES = (-9999.0, -99999.0, -32768.0)
"""Values that files often hold where nothing was measured."""
_MANY_FILLS, _MANY_ZEROS = 1e-3, 0.01  # fractions of pixels; a zero can be a measurement, a fill value hardly

Plane = tuple[str, int]
"""Source name, and index of the plane in its file."""

Counts = npt.NDArray[np.int64]


def count_stored(
    adapter: ModalityAdapter,
    used: Collection[str],
    files: Mapping[str, Path],
    image: SensorImage,
    stored: Mapping[Path, npt.NDArray[Any]],
) -> Counts:
    """Count fill values and zeros that the files of a sample hold at valid pixels.

    Args:
        adapter: the sensor.
        used: names of the channels that reach the network.
        files: source name -> file.
        image: (C, H, W) as loaded.
        stored: file -> (P, H, W) of stored numbers.

    Returns:
        (Q, 8) one row per plane: index of its source; index of the plane in the file; number of valid pixels; 1 if all
        are whole counts, else 0; number of pixels with each of `FILL_VALUES`; number with 0.
    """
    rows = []
    groups = channels_by_source(adapter, image.channels)
    for place, source in enumerate(adapter.source_names()):
        planes, indices = stored.get(Path(files[source])), groups.get(source, [])
        if planes is None or planes.shape[1:] != image.size_hw:
            continue
        for number, plane in enumerate(planes):
            own = [indices[number]] if len(planes) == len(indices) else indices
            if len(own) > 1 or not isinstance(adapter, SelectedChannels) or image.channels[own[0]].name in used:
                rows.append([place, number, *_count(plane, np.asarray(image.valid[own].any(axis=0)), image, own)])
    return np.asarray(rows, dtype=np.int64).reshape(-1, 8)


def _count(plane: npt.NDArray[Any], taken: BoolArray, image: SensorImage, own: Sequence[int]) -> list[int]:
    everywhere = bool(taken.all())

    def count(where: npt.NDArray[Any]) -> int:
        return int(np.count_nonzero(where if everywhere else where[taken]))

    pixels = int(np.count_nonzero(taken))
    fills = [0 if plane.dtype.kind in "bu" else count(plane == value) for value in FILL_VALUES]
    # In whole counts, 0 is a black pixel, which is a measurement.
    whole = any(image.channels[index].unit == "count" for index in own) and (
        plane.dtype.kind in "bui" or bool(((plane == np.rint(plane)) | ~taken).all())
    )
    return [pixels, int(whole), *fills, pixels - count(plane)]


@dataclass
class StoredNumbers:
    """Counts of fill values and zeros that the files of a split hold at valid pixels.

    Attributes:
        adapter: the sensor.
    """

    adapter: ModalityAdapter
    taken: Counter[Plane] = field(default_factory=Counter)
    values: Counter[tuple[Plane, float]] = field(default_factory=Counter)
    counted: dict[Plane, bool] = field(default_factory=dict)

    def add(self, counts: Counts) -> None:
        """Add the result of `count_stored` for some samples."""
        names = self.adapter.source_names()
        for place, number, taken, whole, *found in counts.tolist():
            key = (names[place], number)
            self.taken[key] += taken
            self.counted[key] = self.counted.get(key, True) and bool(whole)
            for value, count in zip((*FILL_VALUES, 0.0), found, strict=True):
                self.values[key, value] += count

    def hints(self, split: str, nodata: float | Mapping[str, float] | None) -> Iterator[str]:
        """Describe the planes with many fill values or zeros, except of sources whose nodata is set.

        Args:
            split: its name.
            nodata: of the data card.
        """
        alike: dict[tuple[str, float], list[tuple[int, float]]] = {}
        for (source, number), taken in self.taken.items():
            is_set = isinstance(nodata, float | int) or source in (nodata or {})
            if taken and not is_set and (value := self._suspect((source, number))) is not None:
                share = self.values[(source, number), value] / taken
                alike.setdefault((source, value), []).append((number, share))
        for (source, value), planes in alike.items():
            option = f"--nodata {source}=" if len(self.adapter.sensors()) > 1 else "--nodata "
            what = f"{value:g}, a usual fill value" if value else "exactly 0"
            most = ("up to " if len(planes) > 1 else "") + f"{max(share for _, share in planes):.1%}"
            where = f"plane{'s' * (len(planes) > 1)} {', '.join(str(number) for number, _ in planes)}"
            yield (
                f"{split}: {most} of {source!r}, {where}, is stored as {what}; if that means no measurement, "
                f"use {option}{value:g}"
            )

    def _suspect(self, plane: Plane) -> float | None:
        """Return the number that looks like a fill value, or None."""
        fill = max(FILL_VALUES, key=lambda value: self.values[plane, value])
        if self.values[plane, fill] > _MANY_FILLS * self.taken[plane]:
            return fill
        return 0.0 if self.values[plane, 0.0] > _MANY_ZEROS * self.taken[plane] and not self.counted[plane] else None


def channels_by_source(adapter: ModalityAdapter, channels: Sequence[Channel]) -> dict[str, list[int]]:
    """Return, for each source, the indices of all loaded channels of its sensor."""
    parts, names = adapter.sensors(), iter(adapter.source_names())
    known = sum(len(part.channels) for part in parts)
    found: dict[str, list[int]] = {}
    start = 0
    for part in parts:
        end = start + (len(part.channels) or len(channels) - known)
        found |= {source: list(range(start, end)) for source in islice(names, len(part.sources))}
        start = end
    return found
