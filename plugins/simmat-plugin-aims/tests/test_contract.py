"""The contract that SimMAT builds on, over everything this package gives."""

from __future__ import annotations

import pytest
from sensor_contract import SensorContract
from simmat_plugin_aims import MODALITIES

from simmat.testing import PackageContract


class TestAims(SensorContract):
    """Every sensor keeps every rule."""

    modalities = MODALITIES


class TestPackage(PackageContract):
    """The package is found, loads at once, and says what it needs."""

    @pytest.fixture
    def package(self) -> str:
        """Its distribution name."""
        return "simmat-plugin-aims"
