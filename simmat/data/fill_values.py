"""Find stored numbers that are read as measurements but look like fill values, so that the user can check them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import PluginError
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.composition import SelectedChannels
from simmat.types import BoolArray, Channel, SensorImage

FILL_VALUES = (-9999.0, -99999.0, -32768.0)
"""Values that files often hold where nothing was measured."""
_MANY_FILLS, _MANY_ZEROS = 1e-3, 0.01  # fractions of pixels; a zero can be a measurement, a fill value hardly

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
        used: names of the channels that reach the network.
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


def fill_value_hints(
    adapter: ModalityAdapter, counts: Counts, split: str, nodata: float | Mapping[str, float] | None
) -> Iterator[str]:
    """Describe the planes with many fill values or zeros at valid pixels, except of sources whose nodata is set.

    `counts` are (Q, 8), those of `count_stored` for all samples of a split.
    """
    names, values = adapter.source_names(), (*FILL_VALUES, 0.0)
    alike: dict[tuple[str, float], list[tuple[int, float]]] = {}
    for place, number in np.unique(counts[:, :2], axis=0).tolist():
        rows = counts[(counts[:, 0] == place) & (counts[:, 1] == number)]
        source, taken, whole = names[place], int(rows[:, 2].sum()), bool(rows[:, 3].all())
        if not taken or isinstance(nodata, float | int) or source in (nodata or {}):
            continue
        found = dict(zip(values, rows[:, 4:].sum(axis=0).tolist(), strict=True))
        value = max(FILL_VALUES, key=found.__getitem__)
        if found[value] <= _MANY_FILLS * taken:
            if whole or found[0.0] <= _MANY_ZEROS * taken:
                continue
            value = 0.0
        alike.setdefault((source, value), []).append((number, found[value] / taken))
    for (source, value), planes in alike.items():
        option = f"--nodata {source}=" if len(adapter.sensors()) > 1 else "--nodata "
        what = f"{value:g}, a usual fill value" if value else "exactly 0"
        most = ("up to " if len(planes) > 1 else "") + f"{max(share for _, share in planes):.1%}"
        where = f"plane{'s' * (len(planes) > 1)} {', '.join(str(number) for number, _ in planes)}"
        yield (
            f"{split}: {most} of {source!r}, {where}, is stored as {what}; if that means no measurement, "
            f"use {option}{value:g}"
        )


def channels_by_source(adapter: ModalityAdapter, channels: Sequence[Channel]) -> dict[str, list[int]]:
    """Return, for each source, the indices of all loaded channels of its sensor.

    PluginError: their number is not that of the channels which the sensor declares.
    """
    parts, names = adapter.sensors(), iter(adapter.source_names())
    known = sum(len(part.channels) for part in parts)
    found: dict[str, list[int]] = {}
    start = 0
    for part in parts:
        end = start + (len(part.channels) or len(channels) - known)
        found |= {source: list(range(start, end)) for source in islice(names, len(part.sources))}
        start = end
    if start != len(channels):
        raise PluginError(
            f"modality {adapter.name!r} declares {known} channels, but its load returned {len(channels)}: "
            f"{', '.join(channel.name for channel in channels)}. Tell its author"
        )
    return found
