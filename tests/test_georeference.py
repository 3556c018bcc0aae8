"""A place on the earth travels from the file through composition to the predicted mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import config, gray_set, registry
from simmat.io.images.georeference import pixel_areas

from simmat.bundle import load_bundle
from simmat.cli import predict as predict_command
from simmat.cli import run
from simmat.errors import DataError
from simmat.sensors.adapter import Files, Missing, ModalityAdapter, Nodata, Source
from simmat.sensors.composition import ComposedModality, SelectedChannels
from simmat.training import train
from simmat.types import BoolArray, Channel, Georeference, SensorImage

PLACE = Georeference("EPSG:32632", (10.0, 0.0, 500000.0, 0.0, -10.0, 4500000.0))
MOVED = Georeference("EPSG:32632", (10.0, 0.0, 500010.0, 0.0, -10.0, 4500000.0))


class Placed(ModalityAdapter):
    """A sensor whose images lie somewhere, and which writes masks as text."""

    description = "test"

    def __init__(self, name: str, place: Georeference | None, ending: str = ".txt") -> None:
        self.name, self.place, self.ending = name, place, ending
        self.sources = (Source(name, (".png",)),)
        self.channels = (Channel(name, "counts", "count"),)

    def load(self, files: Files, *, nodata: Nodata = None, missing: Missing = None) -> SensorImage:
        return SensorImage.from_planes(np.ones((1, 2, 3)), self.channels, georeference=self.place)

    def save_mask(self, mask: BoolArray, georeference: Georeference, path: Path) -> Path | None:
        if self.place is None:
            return None
        written = path.with_name(path.name + self.ending)
        written.write_text(f"{int(mask.sum())} {georeference.crs}")
        return written


def both(first: Georeference | None, second: Georeference | None) -> tuple[ComposedModality, dict[str, Path]]:
    """Return the composition of two sensors at these places, and files for it."""
    return ComposedModality([Placed("a", first), Placed("b", second)]), {"a": Path("a"), "b": Path("b")}


@pytest.mark.parametrize(
    ("crs", "transform", "area"),
    [
        ("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_540_000.0), 100.0),
        ("EPSG:32632", (6.0, 8.0, 500_000.0, 8.0, -6.0, 5_540_000.0), 100.0),
        ("EPSG:2263", (3.0, 0.0, 984_000.0, 0.0, -3.0, 208_000.0), (3 * 1200 / 3937) ** 2),  # New York, in US feet
        ("EPSG:4326", (1e-4, 0.0, 9.0, 0.0, -1e-4, 50.0), 7.169529 * 11.122903),  # lengths of 1e-4 degrees at 50 north
        ("EPSG:3857", (10.0, 0.0, 1_000_000.0, 0.0, -10.0, 6_446_275.84), 100 * 0.4131759 * 1.0011263),
    ],
)
def test_areas_are_those_on_the_earth(crs: str, transform: tuple[float, ...], area: float) -> None:
    """In degrees a pixel has no area of its own, and Web Mercator doubles the size of Germany."""
    pytest.importorskip("rasterio")
    place = Georeference(crs, transform)  # type: ignore[arg-type]
    areas = pixel_areas(place, (20, 20))
    assert areas is not None
    np.testing.assert_allclose(areas(np.array([[0.0, 0.0], [10.0, 10.0]])), area, rtol=2e-4)


def test_a_grid_that_is_not_on_the_earth_has_no_areas() -> None:
    """A plan of a factory states metres, and no place."""
    pytest.importorskip("rasterio")
    plan = 'LOCAL_CS["factory",UNIT["metre",1]]'
    assert pixel_areas(Georeference(plan, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)), (9, 9)) is None


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


def test_one_coordinate_system_may_be_spelt_in_two_ways() -> None:
    """Some programs write it in full where others write its number."""
    crs = pytest.importorskip("rasterio").crs.CRS.from_epsg(32632)
    sensor, files = both(PLACE, replace(PLACE, crs=crs.to_wkt()))
    assert sensor.load(files).georeference == PLACE


def test_a_mask_is_written_by_the_part_that_can(tmp_path: Path) -> None:
    """Picked channels and compositions hide the sensor that knows the format."""
    sensor, _ = both(None, PLACE)
    written = SelectedChannels(sensor, ["b"]).save_mask(np.ones((2, 3), dtype=bool), PLACE, tmp_path / "x_mask")
    assert written == tmp_path / "x_mask.txt"
    assert written.read_text() == "6 EPSG:32632"


def test_predict_asks_the_sensor_for_a_mask_that_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core knows no GIS format; the sensor's plugin does."""
    data = gray_set(tmp_path / "data")
    train(config(data, tmp_path / "run", steps=1), registry())
    sensor = type(load_bundle(tmp_path / "run" / "bundle", registry()).adapter)
    plain = sensor.load

    def placed(self: ModalityAdapter, files: Files, **given: Any) -> SensorImage:
        image = plain(self, files, **given)
        return SensorImage(image.data, image.valid, image.channels, image.origin, PLACE)

    monkeypatch.setattr(sensor, "load", placed)
    monkeypatch.setattr(sensor, "save_mask", Placed("a", PLACE).save_mask)
    monkeypatch.setattr(predict_command, "load_registry", registry)
    words = ["predict", str(tmp_path / "run/bundle"), str(data / "images/s0.png"), "--point", "20,20"]
    assert run([*words, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert (tmp_path / "out/s0_mask.txt").read_text().endswith("EPSG:32632")


def test_grids_that_drift_apart_are_refused() -> None:
    """The same corner and another pixel size: the far edge lies elsewhere, the farther the larger the image."""
    wider = replace(PLACE, transform=(PLACE.transform[0] * 1.2, *PLACE.transform[1:]))
    sensor, files = both(PLACE, wider)
    with pytest.raises(DataError, match="pixel grid"):
        sensor.load(files)


def test_places_that_are_rounded_differently_are_one() -> None:
    """Programs write ten digits, or six."""
    rounded = replace(PLACE, transform=tuple(value * (1 + 1e-12) for value in PLACE.transform))
    sensor, files = both(PLACE, rounded)
    assert sensor.load(files).georeference == PLACE
