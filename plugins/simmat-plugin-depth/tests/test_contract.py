"""The contract that SimMAT builds on, over everything this package gives."""

from __future__ import annotations

import pytest
from simmat_plugin_depth import DEPTH_MODALITIES, HHA_MODALITIES

from simmat.sensors.adapter import ModalityAdapter
from simmat.testing import ModalityContract, PackageContract, name_with_options, with_each_option

SENSORS = [
    pytest.param(made, id=name_with_options(made), marks=[pytest.mark.slow] if made.stated_options() else [])
    for adapter in (*DEPTH_MODALITIES, *HHA_MODALITIES)
    for made in with_each_option(adapter)
]
"""Options share the code of their sensor, so each of their values is held to the contract with the slow tests."""


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
