"""The contract that SimMAT builds on, over everything this package gives."""

from __future__ import annotations

import pytest
from simmat_plugin_depth import DEPTH_MODALITIES, HHA_MODALITIES

from simmat.modality import ModalityAdapter
from simmat.testing import ModalityContract, PackageContract

SENSORS = [
    pytest.param(adapter, id=adapter.name, marks=[pytest.mark.slow] if adapter.variant_of else [])
    for adapter in (*DEPTH_MODALITIES, *HHA_MODALITIES)
]
"""Variants share the code of their sensor, so they are held to the contract with the slow tests."""


class TestDepth(ModalityContract):
    """Every sensor keeps every rule."""

    @pytest.fixture(params=SENSORS)
    def modality(self, request: pytest.FixtureRequest) -> ModalityAdapter:
        """Each in turn."""
        adapter: ModalityAdapter = request.param
        return adapter


class TestPackage(PackageContract):
    """The package is found, loads at once, and says what it needs."""

    @pytest.fixture
    def package(self) -> str:
        """Its distribution name."""
        return "simmat-plugin-depth"
