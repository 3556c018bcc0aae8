"""The foundation contract, on a tiny random configuration of each family."""

from __future__ import annotations

from typing import Any

import pytest
from simmat_testing import FoundationContract

from simmat.cli import run
from simmat.plugin_specs import FoundationSpec


class TestFamilies(FoundationContract):
    """Each family."""

    @pytest.fixture
    def foundation(self, family: Any) -> FoundationSpec:
        """Its tiny configuration."""
        found: FoundationSpec = family.spec
        return found


def test_the_name_of_the_family_alone_means_the_package(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model is timm/NAME; `timm` is how `simmat plugins list` calls the plugin."""
    assert run(["plugins", "check", "timm"]) == 0
    assert "package simmat-plugin-timm" in capsys.readouterr().out
