"""The contract that SimMAT builds on, over what this package gives."""

from __future__ import annotations

import pytest

from simmat.testing import PackageContract


class TestPackage(PackageContract):
    """The package is found, loads at once, and says what it needs."""

    @pytest.fixture
    def package(self) -> str:
        """Its distribution name."""
        return "simmat-plugin-distill"
