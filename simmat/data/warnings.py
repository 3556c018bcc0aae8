"""Warnings about a data set that training and `simmat data check` give: neighbouring tiles, values without a unit."""

from __future__ import annotations

from itertools import islice

import numpy as np
import numpy.typing as npt

from simmat.data.index import DataIndex
from simmat.data.index_storage import Floats
from simmat.sensors.channel_selection import channels_by_source
from simmat.sensors.options import describe_options

_MAX_COMPARED = 1024
"""Tiles of val and test that are compared with all others, at most."""
_NEAR = 0.01
"""Part of a tile's side up to which a gap is none."""


def neighbour_warning(index: DataIndex) -> str:
    """Return a warning that names two tiles of one map which touch or overlap in different splits, else "".

    Only splits chosen by hash are checked, by the georeferences of the images.
    """
    samples = [sample for sample in index.dataset.samples if sample.id not in index.faults]
    if not index.dataset.by_hash or index.dataset.card.crop is not None:
        return ""
    places = index.table.rows["place"]
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    splits = np.array([samples[row].split for row in known.tolist()])
    for row in known[splits != "train"][:_MAX_COMPARED].tolist():
        others = known[(splits != samples[row].split) & _touching(places[row], places[known])]
        if len(others):
            one, other = samples[row], samples[int(others[0])]
            return (
                f"Warning: {one.reference.name} ({one.split}) and {other.reference.name} ({other.split}) of "
                f"{index.dataset.root} touch or overlap on the map, since the splits were chosen by hash. Neighbouring "
                "tiles are alike, so scores will be too good. Name the splits by area (folders, or the column split "
                "of manifest.csv), or train on the whole map with --crop"
            )
    return ""


def _touching(place: Floats, places: Floats) -> npt.NDArray[np.bool_]:
    """Return (N,) whether each of (N, 5) places touches one of the same coordinate system, see `row_type`."""
    gap = _NEAR * (place[2:4] - place[:2])  # (2,) x, y
    apart = (places[:, :2] > place[2:4] + gap) | (places[:, 2:4] < place[:2] - gap)  # (N, 2)
    return np.asarray((places[:, 4] == place[4]) & ~apart.any(axis=1))


def normalized_warning(index: DataIndex) -> str:
    """Return a warning that names the sensors whose files hold only values from 0 to 1 and no unit, else "".

    Only sensors with an option `unit` are checked: others are not asked for one.
    """
    dataset, rows = index.dataset, index.table.rows
    groups, names = channels_by_source(dataset.adapter, dataset.loaded_channels), iter(dataset.adapter.source_names())
    found = []
    sensors = dataset.adapter.sensors()
    for sensor in sensors:
        sources = islice(names, len(sensor.sources))
        own = {dataset.loaded_channels[number] for source in sources for number in groups[source]}
        seen = [number for number, channel in enumerate(dataset.channels()) if channel in own]
        if not hasattr(sensor.options, "unit") or sensor.options.unit or any(one.unit != "count" for one in own):
            continue
        least, most = rows["low"][:, seen].min(initial=np.inf), rows["high"][:, seen].max(initial=-np.inf)
        if 0 <= least < most <= 1:
            option = "unit" if len(sensors) == 1 else f"{sensor.name}.unit"
            allowed = next(values for name, values, *_ in describe_options(sensor.Options) if name == "unit")
            found.append(
                f"Warning: every {sensor.name} value of {dataset.root} is from {least:.3g} to {most:.3g}. Neither the "
                "files nor the option unit says what it measures, so it is taken for counts. It looks like an export "
                "that scaled the values: export them in their unit, and name it with --modality-option "
                f"{option}={allowed}. If all images were scaled alike, a sensor.toml with scale and offset brings the "
                "unit back. If the unit is lost, nothing needs to be set"
            )
    return "\n".join(found)
