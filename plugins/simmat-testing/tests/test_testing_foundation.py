"""The contract of a foundation model: each rule fails for a model that breaks it, and for no good one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from broken_foundations import BROKEN, GOOD, shipped
from simmat_testing import FoundationContract
from simmat_testing.checks import run_check
from simmat_testing.find_parts import FOUNDATION_CHECKS
from simmat_testing.foundation_checks import FoundationCase

from simmat.plugin_specs import FoundationSpec

CASES = [(name, spec, said) for name, specs in BROKEN.items() for spec, said in specs]


class TestGood(FoundationContract):
    """A model that keeps every rule passes every check."""

    @pytest.fixture
    def foundation(self) -> FoundationSpec:
        return GOOD


class TestTiny(FoundationContract):
    """The built-in model, by its name."""

    image_size = 64

    @pytest.fixture
    def foundation(self) -> str:
        return "tiny"


def test_every_check_has_a_model_that_breaks_it() -> None:
    """A check that nothing fails may check nothing."""
    assert set(BROKEN) == set(FOUNDATION_CHECKS)


@pytest.mark.parametrize(
    ("name", "spec", "said"), CASES, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(CASES)]
)
def test_a_broken_model_fails_its_check_and_is_given_the_reason(
    name: str, spec: FoundationSpec, said: str, tmp_path: Path
) -> None:
    """The author reads this message and nothing else."""
    result = run_check(FOUNDATION_CHECKS[name], FoundationCase(spec, tmp_path))
    assert result.status == "failed"
    assert re.search(said, result.why), result.why
    assert result.advice


def test_a_network_may_scale_its_pixels_itself(tmp_path: Path) -> None:
    """Statistics times 255, as those on the scale of 0 to 1 are told, would break one that takes 0 to 255."""
    spec = replace(GOOD, pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0))
    assert (
        run_check(
            FOUNDATION_CHECKS["pixel-statistics-are-counts"],
            FoundationCase(spec, tmp_path),
        ).status
        == "ok"
    )


def test_weights_that_are_shipped_are_loaded(tmp_path: Path) -> None:
    """A digest that fits says nothing of a file that the builder cannot read."""
    check = FOUNDATION_CHECKS["weights-are-the-ones-described"]
    for content, status in ((b"weights", "ok"), (b"other", "failed")):
        file = tmp_path / "w.bin"
        file.write_bytes(content)
        spec = shipped(file, hashlib.sha256(content).hexdigest())
        assert run_check(check, FoundationCase(spec, tmp_path)).status == status
