"""What is installed keeps the rules for plugins: the sensors of every package, and every package itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sensor_contract import SensorContract
from simmat_testing import PackageContract
from simmat_testing.package_checks import simmat_packages

from simmat.plugins.loader import installed
from simmat.sensors.adapter import ModalityAdapter

BANDS = {
    "landsat8": ("B2", "B3", "B4", "B5", "B6", "B7"),
    "sentinel2": ("B2", "B3", "B4", "B8", "B11", "B12"),
}
"""Sensor that cannot be simulated -> bands of a file."""
OTHERS = [
    name
    for name in installed().names("modality")
    if not installed().owner("modality", name).startswith("simmat ")
]
"""Sensors that packages bring."""


class TestSensors(SensorContract):
    """Every sensor keeps every rule."""

    modalities = tuple(map(installed().modality, OTHERS))

    @pytest.fixture
    def samples(
        self, modality: ModalityAdapter, tmp_path: Path
    ) -> list[dict[str, Path]] | None:
        """Digital numbers as satellites deliver them, for the sensors that cannot be simulated."""
        if modality.name not in BANDS:
            return None
        from simmat_plugin_geo.geotiff import BandTags, write_geotiff

        bands = BANDS[modality.name]
        numbers = (
            np.random.default_rng(0)
            .integers(7500, 20000, (len(bands), 61, 83))
            .astype(np.uint16)
        )
        write_geotiff(
            tmp_path / "a.tif", numbers, bands=[BandTags(name) for name in bands]
        )
        return [{"multispectral": tmp_path / "a.tif"}]


class TestPackages(PackageContract):
    """Every package is found, loads without torch, and says what it needs."""

    @pytest.fixture(params=simmat_packages())
    def package(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name
