"""Segment Anything against the conformance kit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simmat_plugin_sam.specs import SAM_VIT_H
from simmat_testing import FoundationContract
from simmat_testing.checks import run_checks
from simmat_testing.find_parts import FOUNDATION_CHECKS
from simmat_testing.foundation_checks import FoundationCase


class TestTiny(FoundationContract):
    """The architecture, by its name."""

    image_size = 64

    @pytest.fixture
    def foundation(self) -> str:
        return "sam_vit_tiny"


class TestMobileSam(FoundationContract):
    """With its packaged weights."""

    image_size = 64

    @pytest.fixture
    def foundation(self) -> str:
        return "mobilesam"


class TestLargeSam(FoundationContract):
    """The released models are measured without their weights."""

    @pytest.fixture(
        params=[
            "sam_vit_b",
            *(pytest.param(f"sam_vit_{x}", marks=pytest.mark.slow) for x in "lh"),
        ]
    )
    def foundation(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name


def test_a_large_model_is_measured_without_values(tmp_path: Path) -> None:
    """Nobody waits for 2.5 GB of random weights to hear that a pattern is misspelt."""
    pattern = r"backbone[.]image_encoder[.]block[.]qkv"
    spec = replace(
        SAM_VIT_H, targets=replace(SAM_VIT_H.targets, lora={pattern: ((0,), 1)})
    )
    asked = [
        FOUNDATION_CHECKS[name]
        for name in ("tuning-targets-match", "same-seed-same-answers")
    ]
    results = {r.check: r for r in run_checks(asked, FoundationCase(spec, tmp_path))}
    assert results["tuning-targets-match"].status == "failed"
    assert results["same-seed-same-answers"].status == "skipped"
    assert "run with --full" in results["same-seed-same-answers"].found
