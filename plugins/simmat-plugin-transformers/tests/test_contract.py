"""The contract of foundation models, for a tiny model of every family."""

from __future__ import annotations

from typing import Any

import pytest

from simmat.plugin_specs import FoundationSpec
from simmat.testing import FoundationContract


class TestFamilies(FoundationContract):
    @pytest.fixture
    def foundation(self, tiny: Any) -> FoundationSpec:
        spec: FoundationSpec = tiny.spec()
        return spec
