"""The contract that SimMAT builds on, over everything this package gives."""

from __future__ import annotations

import pytest
from simmat_plugin_aims import MODALITIES

from simmat.sensors.adapter import ModalityAdapter
from simmat.testing import ModalityContract, PackageContract


class TestAims(ModalityContract):
    """Every sensor keeps every rule."""

    @pytest.fixture(params=MODALITIES, ids=lambda adapter: adapter.name)
    def modality(self, request: pytest.FixtureRequest) -> ModalityAdapter:
        """Each in turn."""
        adapter: ModalityAdapter = request.param
        return adapter


class TestPackage(PackageContract):
    """The package is found, loads at once, and says what it needs."""

    @pytest.fixture
    def package(self) -> str:
        """Its distribution name."""
        return "simmat-plugin-aims"
