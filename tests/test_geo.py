"""A place on the earth travels through compositions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simmat.errors import DataError
from simmat.sensors.adapter import ModalityAdapter, PathsBySource, Source
from simmat.sensors.composed_modality import ComposedModality
from simmat.types import Channel, Georeference, SensorImage

PLACE = Georeference("EPSG:32632", (10.0, 0.0, 500000.0, 0.0, -10.0, 4500000.0))
MOVED = Georeference("EPSG:32632", (10.0, 0.0, 500010.0, 0.0, -10.0, 4500000.0))


class Placed(ModalityAdapter):
    """A sensor whose images lie somewhere."""

    description = "test"

    def __init__(self, name: str, place: Georeference | None) -> None:
        self.name, self.place = name, place
        self.sources = (Source(name, (".png",)),)
        self.channels = (Channel(name, "counts", "count"),)

    def load(self, files: PathsBySource) -> SensorImage:
        return SensorImage.from_planes(
            np.ones((1, 2, 3)), self.channels, georeference=self.place
        )


def both(
    first: Georeference | None, second: Georeference | None
) -> tuple[ComposedModality, dict[str, Path]]:
    """Return the composition of two sensors at these places, and files for it."""
    return ComposedModality([Placed("a", first), Placed("b", second)]), {
        "a": Path("a"),
        "b": Path("b"),
    }


def test_a_composition_has_the_georeference_of_any_part() -> None:
    """Colour pictures state no place; the satellite's grid is theirs too."""
    sensor, files = both(None, PLACE)
    assert sensor.load(files).georeference == PLACE


def test_parts_that_are_apart_are_refused() -> None:
    """One pixel off on the ground is one pixel off in every mask."""
    sensor, files = both(PLACE, MOVED)
    with pytest.raises(DataError, match="pixel grid"):
        sensor.load(files)


def test_parts_in_different_coordinate_systems_are_refused() -> None:
    """Neighbouring UTM zones count from their own meridian: equal numbers are places hundreds of kilometres apart."""
    sensor, files = both(PLACE, replace(PLACE, crs="EPSG:32633"))
    with pytest.raises(DataError, match=r"EPSG:32633 .*EPSG:32632"):
        sensor.load(files)


def test_grids_that_drift_apart_are_refused() -> None:
    """The same corner and another pixel size: the far edge lies elsewhere, the farther the larger the image."""
    wider = replace(PLACE, transform=(PLACE.transform[0] * 1.2, *PLACE.transform[1:]))
    sensor, files = both(PLACE, wider)
    with pytest.raises(DataError, match="pixel grid"):
        sensor.load(files)
