"""The contract of a sensor: each rule fails for a sensor that breaks it, and for no good one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_modalities import (
    BROKEN,
    Angles,
    Filters,
    Good,
    LoadsCounts,
    OwnFormat,
    Rounds,
    SwapsSides,
    with_channel,
)
from simmat_testing import ModalityContract
from simmat_testing.checks import run_check, run_checks
from simmat_testing.find_parts import MODALITY_CHECKS
from simmat_testing.modality_case import ModalityCase, numbered_scene

from simmat.io.images import write_image
from simmat.sensors.adapter import ModalityAdapter, PathsBySource
from simmat.sensors.builtin import MODALITIES, Raster
from simmat.types import SensorImage

CASES = [
    pytest.param(name, make, said, id=f"{name}-{index}")
    for name, sensors in BROKEN.items()
    for index, (make, said) in enumerate(sensors)
]


class TestGood(ModalityContract):
    """A sensor that keeps every rule passes every check."""

    @pytest.fixture
    def modality(self) -> ModalityAdapter:
        return Good()


class TestOwnFormat(ModalityContract):
    """A format that only its sensor reads is checked as any other."""

    @pytest.fixture
    def modality(self) -> ModalityAdapter:
        return OwnFormat()

    def test_nothing_is_skipped(
        self, modality: ModalityAdapter, tmp_path: Path
    ) -> None:
        case = ModalityCase(modality, tmp_path)
        assert run_check(MODALITY_CHECKS["missing-stays-missing"], case).status == "ok"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (SwapsSides, r"\(84, 60\) was saved and loaded as \(60, 84\)"),
        (LoadsCounts, "was saved as .* and loaded as"),
    ],
)
def test_what_an_authors_file_holds_must_survive_saving(
    make: Callable[[], ModalityAdapter], said: str, tmp_path: Path
) -> None:
    """Of a given file nothing is known but what the sensor says, and that must agree with itself."""
    good = OwnFormat()
    scene = numbered_scene(0)
    given = {"lwir": tmp_path / "given.own"}
    good.save(good.simulate(scene, np.random.default_rng(0)), given)
    check = MODALITY_CHECKS["what-is-saved-is-loaded"]
    assert run_check(check, ModalityCase(good, tmp_path / "a", [given])).status == "ok"
    result = run_check(check, ModalityCase(make(), tmp_path / "b", [given]))
    assert result.status == "failed"
    assert re.search(said, result.why), result.why


class Sideways(Raster):
    """Takes rows for columns."""

    def load(self, files: PathsBySource) -> SensorImage:
        image = super().load(files)
        data = image.data.transpose(0, 2, 1)
        return SensorImage.from_planes(data, image.channels)


def test_swapped_sides_of_an_ordinary_file_are_seen(tmp_path: Path) -> None:
    """The file says its size."""
    write_image(tmp_path / "a.npy", np.random.default_rng(0).random((2, 9, 11)))
    case = ModalityCase(Sideways(), tmp_path / "c", [{"raster": tmp_path / "a.npy"}])
    result = run_check(MODALITY_CHECKS["loads-what-it-declares"], case)
    assert "(9, 11) was loaded as (11, 9)" in result.why


class Faulty(Good):
    def load(self, files: PathsBySource) -> SensorImage:
        return files["lwir"].pixels()  # type: ignore[attr-defined]


def test_a_fault_in_the_authors_code_is_shown_with_its_line(tmp_path: Path) -> None:
    """The message is all that its author sees."""
    case = ModalityCase(Faulty(), tmp_path)
    result = run_check(MODALITY_CHECKS["loads-what-it-declares"], case)
    line = Faulty.load.__code__.co_firstlineno + 1
    assert f"'pixels' ({__file__}, line {line})" in result.why


def test_angles_that_turn_with_the_image_are_right(tmp_path: Path) -> None:
    """A rule on places must leave room for values that change with direction."""
    assert (
        run_check(
            MODALITY_CHECKS["flips-and-turns-move-pixels"],
            ModalityCase(Angles(), tmp_path),
        ).status
        == "ok"
    )


@pytest.mark.parametrize(
    "sensor", [Rounds(), Filters()], ids=["whole numbers", "a filter against speckle"]
)
def test_a_file_may_round_and_load_may_filter(
    sensor: ModalityAdapter, tmp_path: Path
) -> None:
    """What is saved comes back as the format and the sensor let it, not bit for bit."""
    assert (
        run_check(
            MODALITY_CHECKS["what-is-saved-is-loaded"], ModalityCase(sensor, tmp_path)
        ).status
        == "ok"
    )


class TestBuiltIn(ModalityContract):
    """Our own sensors are the first that people read."""

    @pytest.fixture(
        params=[adapter for adapter in MODALITIES if adapter.name != "raster"],
        ids=lambda a: a.name,
    )
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
        write_image(
            tmp_path / "a.tif",
            np.random.default_rng(0).integers(0, 4096, (4, 61, 83)).astype(np.uint16),
        )
        return [{"raster": tmp_path / "a.tif"}]


def test_every_check_has_a_sensor_that_breaks_it() -> None:
    """A check that nothing fails may check nothing."""
    assert set(BROKEN) == set(MODALITY_CHECKS)


@pytest.mark.parametrize(("name", "make", "said"), CASES)
def test_a_broken_sensor_fails_its_check_and_is_given_the_reason(
    name: str, make: Callable[[], ModalityAdapter], said: str, tmp_path: Path
) -> None:
    """The author reads this message and nothing else."""
    result = run_check(MODALITY_CHECKS[name], ModalityCase(make(), tmp_path))
    assert result.status == "failed"
    assert re.search(said, result.why), result.why
    assert result.advice


RIGHT = [
    {"quantity": "angle_of_polarization", "unit": "deg"},
    {"quantity": "variance", "unit": "K2"},  # a quantity of the author's own
    {
        "name": "tb_1.4h",
        "quantity": "brightness_temperature",
        "wavelength_um": 214_000.0,
    },
    {"name": "range", "quantity": "range", "unit": "m", "wavelength_um": 3893.0},
]


@pytest.mark.parametrize(
    "changes",
    RIGHT,
    ids=lambda changes: str(changes.get("wavelength_um", changes["quantity"])),
)
@pytest.mark.parametrize("name", ["unit-fits-quantity", "wavelengths-plausible"])
def test_a_right_channel_of_any_sensor_is_taken(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """A rule that fails what is right teaches its readers to look away."""
    result = run_check(
        MODALITY_CHECKS[name], ModalityCase(with_channel(**changes)(), tmp_path)
    )
    assert result.status == "ok", result.why


def test_without_simulation_and_files_reading_is_skipped_with_the_reason(
    tmp_path: Path,
) -> None:
    """A check that did not run must not look like one that passed."""
    results = {
        r.check: r
        for r in run_checks(MODALITY_CHECKS.values(), ModalityCase(Raster(), tmp_path))
    }
    assert results["options-are-described"].status == "ok"
    assert (
        "give sample files: --source raster=FILE"
        in results["wavelengths-plausible"].found
    )
    assert results["same-file-same-bits"].status == "skipped"
    assert results["same-file-same-bits"].found == "no sample files, see above"


def test_given_files_are_copied_and_never_touched(tmp_path: Path) -> None:
    """An author gives the only recording there is."""
    file = tmp_path / "a.npy"
    write_image(file, np.random.default_rng(0).random((1, 9, 11)).astype(np.float32))
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    list(
        run_checks(
            MODALITY_CHECKS.values(),
            ModalityCase(Raster(), tmp_path / "scratch", [{"raster": file}]),
        )
    )
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "scratch"]


class Unreadable(Good):
    """Writes what it cannot read."""

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        for file in files.values():
            file.write_bytes(b"kelvin")


def test_a_sample_that_cannot_be_loaded_is_reported_once(tmp_path: Path) -> None:
    """Twelve lines of one cause hide the cause."""
    results = [
        r
        for r in run_checks(
            MODALITY_CHECKS.values(), ModalityCase(Unreadable(), tmp_path)
        )
        if r.status != "ok"
    ]
    assert [r.check for r in results if r.status == "failed"] == [
        "loads-what-it-declares"
    ]
    assert results[0].advice == "let load read what save writes"
    assert {r.found for r in results[1:]} == {"the sample cannot be loaded, see above"}
