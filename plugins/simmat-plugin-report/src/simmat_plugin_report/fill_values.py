"""Find stored numbers that are read as measurements but look like fill values, so that the user can check them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from simmat.data.dataset import Dataset, Sample
from simmat.errors import SimMATError
from simmat.io.images import read_image
from simmat.sensors.channel_selection import channels_by_source
from simmat.sensors.composition import SelectedChannels
from simmat.types import BoolArray
from simmat_plugin_report.channel_stats import parts_of

FILL_VALUES = (-9999.0, -99999.0, -32768.0)
"""Values that files often hold where nothing was measured."""
MAX_SAMPLES = 64
"""Most images of a split that are looked at, evenly spread."""
_MANY_FILLS, _MANY_ZEROS = 1e-3, 0.01  # fractions of pixels; a zero can be a measurement, a fill value hardly


@dataclass
class _Plane:
    """What one plane of a source stores at valid pixels: their number, and how often each of `FILL_VALUES` and 0."""

    pixels: int = 0
    are_counts: bool = True
    found: dict[float, int] = field(default_factory=lambda: dict.fromkeys((*FILL_VALUES, 0.0), 0))

    def add(self, stored: npt.NDArray[np.generic], valid: BoolArray, *, in_counts: bool) -> None:
        """Count in (H, W) stored numbers."""
        taken = stored[valid]
        self.pixels += taken.size
        # In whole counts, 0 is a black pixel, which is a measurement.
        self.are_counts &= in_counts and (taken.dtype.kind in "bui" or bool((taken == np.rint(taken)).all()))
        for value in self.found:
            self.found[value] += int(np.count_nonzero(taken == value))

    def suspect(self) -> float | None:
        """Return the value that looks like a fill value, if there is one."""
        value = max(FILL_VALUES, key=self.found.__getitem__)
        if self.found[value] > _MANY_FILLS * self.pixels:
            return value
        return 0.0 if not self.are_counts and self.found[0.0] > _MANY_ZEROS * self.pixels else None


def fill_value_hints(dataset: Dataset, samples: Sequence[Sample], title: str) -> Iterator[str]:
    """Describe the planes with many fill values or zeros at valid pixels, except of sources whose nodata is set.

    Files that `read_image` does not read are left out.
    """
    planes: dict[tuple[str, int], _Plane] = {}
    for sample in samples[:: -(-len(samples) // MAX_SAMPLES) or 1]:
        for part in parts_of(dataset, sample):
            _count(dataset, part, planes)
    alike: dict[tuple[str, float], list[tuple[int, float]]] = {}
    for (source, number), plane in sorted(planes.items()):
        if (value := plane.suspect()) is not None:
            alike.setdefault((source, value), []).append((number, plane.found[value] / plane.pixels))
    for (source, value), found in alike.items():
        option = f"--nodata {source}=" if len(dataset.adapter.sensors()) > 1 else "--nodata "
        what = f"{value:g}, a usual fill value" if value else "exactly 0"
        most = ("up to " if len(found) > 1 else "") + f"{max(share for _, share in found):.1%}"
        where = f"plane{'s' * (len(found) > 1)} {', '.join(str(number) for number, _ in found)}"
        yield (
            f"{title}: {most} of {source!r}, {where}, is stored as {what}; if that means no measurement, "
            f"use {option}{value:g}"
        )


def _count(dataset: Dataset, sample: Sample, planes: dict[tuple[str, int], _Plane]) -> None:
    """Add the stored numbers of a sample's files at its valid pixels."""
    adapter = dataset.adapter
    try:
        image = dataset.image(sample)
    except SimMATError:  # reported as damaged
        return
    used = {channel.name for channel in adapter.transform(image).channels}
    nodata = [part.nodata(source) for part in adapter.sensors() for source in part.source_names()]
    groups = channels_by_source(adapter, image.channels)
    for number, (source, indices) in zip(nodata, groups.items(), strict=True):
        if number is not None:
            continue
        try:
            stored = read_image(sample.files[source], window=sample.window).planes
        except SimMATError:
            continue
        if stored.shape[1:] != image.size_hw:
            continue
        for place, plane in enumerate(stored):
            seen = [indices[place]] if len(stored) == len(indices) else indices
            if len(seen) > 1 or not isinstance(adapter, SelectedChannels) or image.channels[seen[0]].name in used:
                in_counts = any(image.channels[index].unit == "count" for index in seen)
                valid = np.asarray(image.valid[seen].any(axis=0))
                planes.setdefault((source, place), _Plane()).add(plane, valid, in_counts=in_counts)
