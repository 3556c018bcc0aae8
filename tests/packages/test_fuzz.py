"""The harness `tests/fuzz` runs: a block of each target ends as it must; `make fuzz` runs 20,000 cases."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from pathlib import Path

import pytest
from fuzz.case import Place
from fuzz.probes import PROBES
from fuzz.run import BLOCK, run_block
from fuzz.seeds import Seeds
from fuzz.targets import TARGETS

from simmat.errors import SimMATError


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    # one for all of xdist
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fuzz-seeds"


_QUICK = (
    "nifti",
    "dicom",
    "video",
    "frames",
    "gallery-index",
)
"""Targets whose cases take some milliseconds."""


@pytest.mark.parametrize("name", _QUICK)
def test_some_damaged_files_are_read_or_refused(
    name: str, seeds: Path, tmp_path: Path
) -> None:
    """A few cases without the limits of the harness show a traceback at once."""
    target = TARGETS[name]
    if target.missing_module is not None:
        pytest.skip(f"{target.missing_module} is not installed")
    values = 0
    for number in range(100, 130):  # none of them makes the large seeds
        files = tmp_path / f"files-{number}"
        files.mkdir()
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir()
        place = Place(Seeds(seeds), files, scratch)
        case = target.prepare(place, random.Random(f"{name}-{number}"))
        with warnings.catch_warnings(), contextlib.suppress(SimMATError):
            warnings.simplefilter("ignore")
            case.read()
            values += 1
    assert values, "all were refused: the seeds are not valid any more"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused(name: str, seeds: Path) -> None:
    """What a stranger sends must end in one clear error, within limits of time and memory."""
    if (missing := TARGETS[name].missing_module) is not None:
        pytest.skip(f"{missing} is not installed")
    result = run_block(name, 0, range(BLOCK), seeds)
    assert not result.problem, result.problem
    assert result.kinds["value"], "all were refused: the seeds are not valid any more"


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
def test_a_failure_is_noticed_and_its_file_is_kept(tmp_path: Path, name: str) -> None:
    """A file that ends or blocks the process must be found as well as one that raises."""
    kept = tmp_path / "kept"
    result = run_block(name, 0, range(BLOCK), tmp_path, kept=kept, clock_seconds=5)
    if name == "refused":
        assert not result.problem
        return
    stopped = name in ("died", "hangs")
    kind = "died or hangs" if stopped else name.split(" of ")[0]
    assert result.problem.startswith(kind)
    (file,) = kept.glob("*/number.txt")
    assert int(file.read_text()) > 40
