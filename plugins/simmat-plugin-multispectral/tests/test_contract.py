"""The contract that SimMAT builds on, over everything this package gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sensor_contract import SensorContract
from simmat_plugin_geo.geotiff import BandTags, write_geotiff
from simmat_plugin_multispectral.adapter import MODALITIES

from simmat.sensors.adapter import ModalityAdapter
from simmat.testing import PackageContract

BANDS = {"landsat8": ("B2", "B3", "B4", "B5", "B6", "B7")}
OTHER_BANDS = ("B2", "B3", "B4", "B8", "B11", "B12")


class TestMultispectral(SensorContract):
    """Every sensor keeps every rule."""

    modalities = MODALITIES

    @pytest.fixture
    def samples(self, modality: ModalityAdapter, tmp_path: Path) -> list[dict[str, Path]] | None:
        """Digital numbers as satellites deliver them, for the sensors that are not simulated."""
        if modality.name == "multispectral":
            return None
        bands = BANDS.get(modality.name, OTHER_BANDS)
        numbers = np.random.default_rng(0).integers(7500, 20000, (len(bands), 61, 83)).astype(np.uint16)
        write_geotiff(tmp_path / "a.tif", numbers, bands=[BandTags(name) for name in bands])
        return [{"multispectral": tmp_path / "a.tif"}]


class TestPackage(PackageContract):
    """The package is found, loads at once, and says what it needs."""

    @pytest.fixture
    def package(self) -> str:
        """Its distribution name."""
        return "simmat-plugin-multispectral"
