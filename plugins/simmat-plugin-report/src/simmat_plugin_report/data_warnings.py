"""What may be wrong with a data set that can be read: alike tiles in different splits, lost units, joined objects."""

from __future__ import annotations

from itertools import islice

import numpy as np
import numpy.typing as npt
from simmat_plugin_align.shift import WARN_PX, shift_between

from simmat.data.index import DataIndex
from simmat.data.samples import evenly_spaced
from simmat.errors import SimMATError
from simmat.geo import read_georeference
from simmat.sensors.adapter import channel_spans, channels_by_source
from simmat.sensors.options import describe_options

_MAX_COMPARED = 1024
"""Tiles of val and test that are compared with all others, at most."""
_MAX_MEASURED = 50
"""Images in which the shift between two sensors is measured, at most."""
_MAX_GAP = 0.01
"""Largest gap of two tiles that touch, as a part of a tile's side."""


def neighbour_warning(index: DataIndex) -> str:
    """Return a warning that names two tiles of one map which touch or overlap in different splits, else "".

    Only splits chosen by hash are checked, by the georeferences of the images.
    """
    if not index.dataset.by_hash or index.dataset.card.crop:
        return ""
    samples = index.usable
    places = _places(index)
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    splits = np.array([samples[row].split for row in known.tolist()])
    for row in known[splits != "train"][:_MAX_COMPARED].tolist():
        least = places[row, :2]
        most = places[row, 2:4]  # (2,) x, y
        gap = _MAX_GAP * (most - least)
        # (N, 2)
        apart = (places[known, :2] > most + gap) | (places[known, 2:4] < least - gap)
        touching = (places[known, 4] == places[row, 4]) & ~apart.any(axis=1)
        others = known[(splits != samples[row].split) & touching]
        if len(others):
            one = samples[row]
            other = samples[int(others[0])]
            return (
                f"Warning: {one.reference.name} ({one.split}) and {other.reference.name} ({other.split}) of "
                f"{index.dataset.root} touch or overlap on the map, because the splits were chosen by hash. "
                "Neighbouring tiles are alike, so scores will be too high. Name the splits by area (folders, "
                "or the column split "
                "of manifest.csv), or train on the whole map with --crop"
            )
    return ""


def _places(index: DataIndex) -> npt.NDArray[np.float64]:
    """Return (N, 5): where each image is on the map, smallest x, y, largest x, y, and the number of its CRS; or NaN."""
    places = np.full((len(index.usable), 5), np.nan)
    systems: dict[str, int] = {}
    sizes = index.table.rows[["height", "width"]].tolist()
    for place, sample, (height, width) in zip(places, index.usable, sizes, strict=True):
        found = read_georeference(sample.reference)
        if found is None:
            continue
        # (4, 2)
        corners = found.to_map(
            np.array([(x, y) for x in (0, width) for y in (0, height)], np.float64)
        )
        place[:2] = corners.min(axis=0)
        place[2:4] = corners.max(axis=0)
        place[4] = systems.setdefault(found.crs, len(systems))
    return places


def normalized_warning(index: DataIndex) -> str:
    """Return a warning that names the sensors whose files hold only values from 0 to 1 and no unit, else "".

    Only sensors with an option `unit` are checked: others are not asked for one.
    """
    dataset = index.dataset
    rows = index.table.rows
    groups = channels_by_source(dataset.adapter, dataset.loaded_channels)
    names = iter(dataset.adapter.source_names())
    found = []
    sensors = dataset.adapter.sensors()
    for sensor in sensors:
        sources = islice(names, len(sensor.sources))
        own = set()
        for source in sources:
            for number in groups[source]:
                own.add(dataset.loaded_channels[number])
        seen = [
            number
            for number, channel in enumerate(dataset.channels())
            if channel in own
        ]
        if (
            not hasattr(sensor.options, "unit")
            or sensor.options.unit
            or any(one.unit != "count" for one in own)
        ):
            continue
        least = rows["low"][:, seen].min(initial=np.inf)
        most = rows["high"][:, seen].max(initial=-np.inf)
        if 0 <= least < most <= 1:
            option = "unit" if len(sensors) == 1 else f"{sensor.name}.unit"
            allowed = next(
                values
                for name, values, *_ in describe_options(sensor.Options)
                if name == "unit"
            )
            found.append(
                f"Warning: every {sensor.name} value of {dataset.root} is from {least:.3g} to {most:.3g}. Neither the "
                "files nor the option unit says what it measures, so the values are read as counts. They look "
                "as if an export had scaled them: export them in their unit, and state it with --modality-option "
                f"{option}={allowed}. If all images were scaled alike, a sensor.toml with scale and offset "
                "restores the unit. If the unit is lost, leave the option out"
            )
    return "\n".join(found)


def joined_warning(index: DataIndex) -> str:
    """Say how many pieces of one class are joined to one region; "" if none are."""
    joined = index.table.rows["joined"]
    if not joined.any():
        return ""
    return (
        f"In {np.count_nonzero(joined)} of {len(joined)} images a class has separate pieces, {joined.sum()} more "
        "than there are regions: --regions classes makes one region of all pieces, so one click means all of them. "
        'If the pieces are objects, use regions = "components" (--regions components)'
    )


def shift_warning(index: DataIndex) -> str:
    """Return a warning if the images of joined sensors are shifted against each other, else ""."""
    adapter = index.dataset.adapter
    if len(list(adapter.sensors())) < 2:
        return ""
    shifts: dict[str, list[tuple[int, int]]] = {}
    first = ""
    for sample in evenly_spaced(index.usable, _MAX_MEASURED):
        try:
            image = index.dataset.image(sample)
            spans = channel_spans(adapter, image.channels)
        except SimMATError:  # changed since the index was made, or without a sensor
            continue
        first = spans[0][0].name
        reference = image.select(spans[0][1])
        for part, span in spans[1:]:
            other = image.select(span)
            if reference.valid.any() and other.valid.any():
                shift = shift_between(reference, other)
                shifts.setdefault(part.name, []).append(shift)
    said = []
    for name, found in shifts.items():
        distance = float(np.median(np.hypot(*np.transpose(found))))
        down, right = np.median(found, axis=0)
        if distance > WARN_PX:
            said.append(
                f"{name} seems to be shifted against {first}: median {distance:.1f} px in {len(found)} images, "
                f"{_moved(right, 'right', 'left')} and {_moved(down, 'down', 'up')} would align it with {first}"
            )
    if not said:
        return ""
    return (
        f"{'; '.join(said)}; masks do not lie on the objects in one of them. Estimate where the images lie on each "
        f"other: simmat align {index.dataset.root} --modality {adapter.name}"
    )


def _moved(pixels: float, forward: str, back: str) -> str:
    """Say by how much an image is to be moved."""
    return f"{abs(pixels):.0f} px {back if pixels < 0 else forward}"
