"""The contract that SimMAT builds on, over what this package gives."""

from __future__ import annotations

import pytest
from simmat_testing import FoundationContract


class TestLite(FoundationContract):
    """The model keeps every rule."""

    image_size = 64

    @pytest.fixture
    def foundation(self) -> str:
        """Its name."""
        return "lite"
