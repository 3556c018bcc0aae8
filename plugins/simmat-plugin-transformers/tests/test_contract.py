"""The contract of foundation models, for a tiny model of every family, and that of the package."""

from __future__ import annotations

from typing import Any

import pytest

from simmat.plugin_specs import FoundationSpec
from simmat.testing import FoundationContract, PackageContract


class TestFamilies(FoundationContract):
    @pytest.fixture
    def foundation(self, tiny: Any) -> FoundationSpec:
        spec: FoundationSpec = tiny.spec()
        return spec


class TestPackage(PackageContract):
    @pytest.fixture
    def package(self) -> str:
        return "simmat-plugin-transformers"
