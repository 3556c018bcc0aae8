"""A radar image from a satellite lies somewhere, and so must the mask of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from simmat_plugin_sar.adapter import Sar, SarOptions

from simmat.errors import DataError
from simmat.types import Georeference, SensorImage

ADAPTERS = {
    "sar": Sar(),
    "sar-lee": Sar(SarOptions(filter="lee")),
    "sar-dual": Sar(SarOptions(polarizations="dual")),
    "sar-files": Sar(SarOptions(polarizations="dual", separate_files=True)),
}
PLACE = Georeference("EPSG:32632", (10.0, 0.0, 500000.0, 0.0, -10.0, 4500000.0))


def write(path: Path, planes: np.ndarray, **profile: Any) -> Path:
    """Write a GeoTIFF that lies at PLACE unless said otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = planes.shape
    place = {"crs": PLACE.crs, "transform": rasterio.Affine(*PLACE.transform)}
    size = {
        "count": count,
        "height": height,
        "width": width,
        "dtype": planes.dtype.name,
    }
    with rasterio.open(path, "w", driver="GTiff", **size, **(place | profile)) as file:
        file.write(planes)
    return path


def load(path: Path, modality: str) -> SensorImage:
    """Read one file as a modality."""
    return ADAPTERS[modality].load({"sar": path})


@pytest.mark.parametrize(
    ("modality", "planes"), [("sar", 1), ("sar-lee", 1), ("sar-dual", 2)]
)
def test_the_place_goes_all_the_way_to_the_network(
    tmp_path: Path, modality: str, planes: int
) -> None:
    """Filter and decibel change the values, not where they were measured."""
    path = write(tmp_path / "a.tif", np.full((planes, 9, 8), 7, dtype=np.uint16))
    image = load(path, modality)
    assert image.georeference == PLACE
    assert ADAPTERS[modality].transform(image).georeference == PLACE


def test_a_file_without_a_place_has_none(tmp_path: Path) -> None:
    """Chips for training seldom have one, and a made-up one would put the mask into the sea."""
    Image.fromarray(np.full((4, 4), 7, dtype=np.uint8)).save(tmp_path / "a.tif")
    assert load(tmp_path / "a.tif", "sar").georeference is None


def test_two_polarizations_in_two_files_must_lie_together(tmp_path: Path) -> None:
    """Both state their place, so that one can be held against the other."""
    files = {
        name: write(tmp_path / f"{name}.tif", np.ones((1, 4, 4), np.uint16))
        for name in ("co", "cross")
    }
    assert ADAPTERS["sar-files"].load(files).georeference == PLACE
    Image.fromarray(np.ones((4, 4), np.uint16)).save(files["cross"])
    with pytest.raises(DataError, match=r"cross.tif"):
        ADAPTERS["sar-files"].load(files)
