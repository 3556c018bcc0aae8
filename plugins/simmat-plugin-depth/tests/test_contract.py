"""The contract that SimMAT builds on, over everything this package gives."""

from __future__ import annotations

import pytest
from sensor_contract import SensorContract
from simmat_plugin_depth import DEPTH_MODALITIES, HHA_MODALITIES

from simmat.testing import PackageContract


class TestDepth(SensorContract):
    """Every sensor keeps every rule."""

    modalities = (*DEPTH_MODALITIES, *HHA_MODALITIES)


class TestPackage(PackageContract):
    """The package is found, loads at once, and says what it needs."""

    @pytest.fixture
    def package(self) -> str:
        """Its distribution name."""
        return "simmat-plugin-depth"
