"""The contract of a sensor: each rule fails for a sensor that breaks it, and for no good one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from broken_modalities import BROKEN, Good

from simmat.builtin.sensors import MODALITIES, Raster
from simmat.imageio import write_image
from simmat.modality import ModalityAdapter
from simmat.testing import MODALITY_CHECKS, Check, ModalityCase, ModalityContract, run_check, run_checks

CHECKS = {check.id: check for check in MODALITY_CHECKS}
CASES = [(name, make, said) for name, sensors in BROKEN.items() for make, said in sensors]


class TestGood(ModalityContract):
    """A sensor that keeps every rule passes every check, the slow ones too."""

    full = True

    @pytest.fixture
    def modality(self) -> ModalityAdapter:
        return Good()


class TestBuiltIn(ModalityContract):
    """Our own sensors are the first that people read."""

    @pytest.fixture(params=[adapter for adapter in MODALITIES if adapter.name != "raster"], ids=lambda a: a.name)
    def modality(self, request: pytest.FixtureRequest) -> ModalityAdapter:
        adapter: ModalityAdapter = request.param
        return adapter


class TestRaster(ModalityContract):
    """A sensor that cannot be simulated is checked on files."""

    @pytest.fixture
    def modality(self) -> ModalityAdapter:
        return Raster()

    @pytest.fixture
    def samples(self, tmp_path: Path) -> list[dict[str, Path]]:
        write_image(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 4096, (4, 61, 83)).astype(np.uint16))
        return [{"raster": tmp_path / "a.tif"}]


def test_every_check_has_a_sensor_that_breaks_it() -> None:
    """A check that nothing fails may check nothing."""
    assert set(BROKEN) == set(CHECKS)


@pytest.mark.parametrize(("name", "make", "said"), CASES, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(CASES)])
def test_a_broken_sensor_fails_its_check_and_is_told_why(
    name: str, make: Callable[[], ModalityAdapter], said: str, tmp_path: Path
) -> None:
    """The author reads this message and nothing else."""
    result = run_check(CHECKS[name], ModalityCase(make(), tmp_path))
    assert result.status == "failed"
    assert re.search(said, result.why), result.why
    assert result.advice


@pytest.mark.parametrize("check", MODALITY_CHECKS, ids=lambda check: check.id)
def test_a_rule_is_one_sentence(check: Check[ModalityCase]) -> None:
    """It stands in reports, with what was found behind it."""
    assert 20 < len(check.rule) < 160
    assert check.rule.endswith(".")


def test_without_simulation_and_files_reading_is_skipped_with_the_reason(tmp_path: Path) -> None:
    """A check that did not run must not look like one that passed."""
    results = {r.check: r for r in run_checks(MODALITY_CHECKS, ModalityCase(Raster(), tmp_path))}
    assert results["names-unique"].status == "ok"
    assert results["same-file-same-bits"].status == "skipped"
    assert "give sample files" in results["same-file-same-bits"].found


def test_given_files_are_copied_and_never_touched(tmp_path: Path) -> None:
    """An author gives the only recording there is."""
    file = tmp_path / "a.npy"
    write_image(file, np.random.default_rng(0).random((1, 9, 11)).astype(np.float32))
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    list(run_checks(MODALITY_CHECKS, ModalityCase(Raster(), tmp_path / "scratch", [{"raster": file}])))
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "scratch"]


def test_files_for_other_sources_are_refused(tmp_path: Path) -> None:
    """A misspelt source would otherwise end in a KeyError of the sensor."""
    case = ModalityCase(Raster(), tmp_path, [{"rastre": tmp_path / "a.npy"}])
    result = run_check(CHECKS["same-file-same-bits"], case)
    assert result.status == "failed"
    assert "give one file for each source: ['raster']" in result.why
