"""Warn of tiles of one map that lie side by side in different splits, since scores are then too good."""

from __future__ import annotations

import numpy as np

from simmat.data.index import DataIndex
from simmat.data.index_file import Floats

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


def _touching(place: Floats, places: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return (N,) whether each of (N, 5) places touches one of the same coordinate system, see `row_type`."""
    x0, y0, x1, y1, system = place
    gap_x, gap_y = _NEAR * (x1 - x0), _NEAR * (y1 - y0)
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        (places[:, 4] == system)
        & (places[:, 0] <= x1 + gap_x)
        & (places[:, 2] >= x0 - gap_x)
        & (places[:, 1] <= y1 + gap_y)
        & (places[:, 3] >= y0 - gap_y)
    )
    return found
