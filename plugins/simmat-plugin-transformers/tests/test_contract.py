"""The contract of foundation models, for a tiny model of every family."""

from __future__ import annotations

from typing import Any

import pytest
from simmat_testing import FoundationContract

from simmat.plugin_specs import FoundationSpec


class TestFamilies(FoundationContract):
    @pytest.fixture
    def foundation(self, tiny: Any) -> FoundationSpec:
        spec: FoundationSpec = tiny.spec()
        return spec
