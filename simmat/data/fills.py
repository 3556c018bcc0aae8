"""Stored numbers that look like "no measurement" and are taken for one; whether they are, a person has to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.composition import ComposedModality, SelectedChannels, uncut
from simmat.imageio.reading import Reading
from simmat.modality import ModalityAdapter
from simmat.types import BoolArray, Channel, SensorImage

FILL_VALUES = (-9999.0, -99999.0, -32768.0)
"""Values that files often hold where nothing was measured."""
_MANY_FILLS, _MANY_ZEROS = 1e-3, 0.01  # parts of the pixels: a fill value is none by chance, a zero can be

Plane = tuple[str, int]
"""Source name, plane of its file from 0."""


@dataclass
class StoredNumbers:
    """Counts of what the files of a split hold where a pixel is taken for a measurement.

    Attributes:
        adapter: the sensor.
        used: names of the channels that reach the network.
    """

    adapter: ModalityAdapter
    used: frozenset[str]
    taken: Counter[Plane] = field(default_factory=Counter)
    values: Counter[tuple[Plane, float]] = field(default_factory=Counter)
    counted: dict[Plane, bool] = field(default_factory=dict)

    def add(self, files: Mapping[str, Path], image: SensorImage, found: Reading) -> None:
        """Count one sample.

        Args:
            files: source name -> file.
            image: (C, H, W) as loaded.
            found: what its files hold.
        """
        for source, indices in channels_by_source(self.adapter, image.channels).items():
            planes = found.stored.get(Path(files[source]))
            if planes is None or planes.shape[1:] != image.size_hw:
                continue
            for number, plane in enumerate(planes):
                own = [indices[number]] if len(planes) == len(indices) else indices
                if len(own) > 1 or self._is_used(image.channels[own[0]]):
                    channels = [image.channels[index] for index in own]
                    self._count((source, number), plane, np.asarray(image.valid[own].any(axis=0)), channels)

    def hints(self, split: str, nodata: float | Mapping[str, float] | None) -> Iterator[str]:
        """Say which planes hold much that looks like nothing; of sources whose nodata is said, nothing.

        Args:
            split: its name.
            nodata: of the data card.
        """
        alike: dict[tuple[str, float], list[tuple[int, float]]] = {}
        for (source, number), taken in self.taken.items():
            said = isinstance(nodata, float | int) or source in (nodata or {})
            if taken and not said and (value := self._suspect((source, number))) is not None:
                share = self.values[(source, number), value] / taken
                alike.setdefault((source, value), []).append((number, share))
        for (source, value), planes in alike.items():
            say = f"--nodata {source}=" if isinstance(uncut(self.adapter), ComposedModality) else "--nodata "
            what = f"{value:g}, a usual fill value" if value else "exactly 0"
            most = ("up to " if len(planes) > 1 else "") + f"{max(share for _, share in planes):.1%}"
            where = f"plane{'s' * (len(planes) > 1)} {', '.join(str(number) for number, _ in planes)}"
            yield (
                f"{split}: {most} of {source!r}, {where}, is stored as {what}; if that means no measurement, "
                f"say {say}{value:g}"
            )

    def _suspect(self, plane: Plane) -> float | None:
        """Return the number that looks like no measurement, if there is one."""
        fill = max(FILL_VALUES, key=lambda value: self.values[plane, value])
        if self.values[plane, fill] > _MANY_FILLS * self.taken[plane]:
            return fill
        return 0.0 if self.values[plane, 0.0] > _MANY_ZEROS * self.taken[plane] and not self.counted[plane] else None

    def _is_used(self, channel: Channel) -> bool:
        return not isinstance(self.adapter, SelectedChannels) or channel.name in self.used

    def _count(self, key: Plane, plane: npt.NDArray[Any], taken: BoolArray, channels: Sequence[Channel]) -> None:
        self.taken[key] += int(np.count_nonzero(taken))
        for value in (*FILL_VALUES, 0.0):
            self.values[key, value] += int(np.count_nonzero((plane == value) & taken))
        # A whole count of 0 is a measurement like any other: a black pixel.
        whole = bool(((plane == np.rint(plane)) | ~taken).all()) and any(c.unit == "count" for c in channels)
        self.counted[key] = self.counted.get(key, True) and whole


def channels_by_source(adapter: ModalityAdapter, channels: Sequence[Channel]) -> dict[str, list[int]]:
    """Return, for each source, the indices of the loaded channels that its sensor makes of it and its other sources."""
    whole = uncut(adapter)
    if not isinstance(whole, ComposedModality):
        return {source: list(range(len(channels))) for source in whole.source_names()}
    found: dict[str, list[int]] = {}
    start = 0
    for index, group in enumerate(whole.split(channels)):
        indices = list(range(start, start + len(group)))
        found |= dict.fromkeys(whole.source_map(index).values(), indices)
        start += len(group)
    return found
