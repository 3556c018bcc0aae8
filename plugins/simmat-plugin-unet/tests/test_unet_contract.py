"""`unet` against the conformance kit."""

from __future__ import annotations

import pytest
from simmat_plugin_unet.spec import UNET

from simmat.plugin_specs import FoundationSpec
from simmat.testing import FoundationContract


class TestUNet(FoundationContract):
    """The model, with random weights and with those of ImageNet."""

    @pytest.fixture
    def foundation(self) -> FoundationSpec:
        return UNET
