"""`unet` and its package against the conformance kit."""

from __future__ import annotations

import pytest
from simmat_plugin_unet.spec import UNET

from simmat.plugin_specs import FoundationSpec
from simmat.testing import FoundationContract, PackageContract


class TestUNet(FoundationContract):
    """The model, with random weights and with those of ImageNet."""

    @pytest.fixture
    def foundation(self) -> FoundationSpec:
        return UNET


class TestPackage(PackageContract):
    """The package as it is installed."""

    @pytest.fixture
    def package(self) -> str:
        return "simmat-plugin-unet"
