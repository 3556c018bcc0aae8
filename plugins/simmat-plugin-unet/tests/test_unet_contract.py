"""`unet` against the conformance kit."""

from __future__ import annotations

import pytest
from simmat_plugin_unet.spec import UNET
from simmat_testing import FoundationContract

from simmat.plugin_specs import FoundationSpec


class TestUNet(FoundationContract):
    """The model, with random weights and with those of ImageNet."""

    @pytest.fixture
    def foundation(self) -> FoundationSpec:
        return UNET
