"""The checks as pytest tests: subclass, give one fixture. Only this module imports pytest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from simmat.plugin_specs import FoundationSpec
from simmat.plugins.kinds import Kind
from simmat.plugins.loader import load_plugins
from simmat.sensors.adapter import ModalityAdapter
from simmat_testing.checks import Check, CheckFailed, NoSamples, PartCase, run_check
from simmat_testing.find_parts import (
    FOUNDATION_CHECKS,
    LOSS_CHECKS,
    METRIC_CHECKS,
    MODALITY_CHECKS,
    PACKAGE_CHECKS,
    RESULT_FORMAT_CHECKS,
    TRANSFER_LAYER_CHECKS,
    TUNER_CHECKS,
)
from simmat_testing.foundation_checks import FoundationCase
from simmat_testing.modality_case import ModalityCase
from simmat_testing.package_checks import PackageCase


class _Contract:
    """One test per check; the id of the test is that of the check."""

    checks: ClassVar[Mapping[str, Check]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each check of this class."""
        if "contract_check" in metafunc.fixturenames:
            metafunc.parametrize(
                "contract_check", self.checks.values(), ids=self.checks
            )

    def test_contract(self, contract_check: Check, contract_case: Any) -> None:
        """Run one check; the message is the rule, what was found, and what to do."""
        __tracebackhide__ = True
        result = run_check(contract_check, contract_case)
        if result.status == "ok":
            return
        if result.status == "skipped" and not isinstance(result.error, NoSamples):
            pytest.skip(result.found)
        advice = (
            result.advice
            or "give the fixture `samples`: a list of dicts, source name -> file"
        )
        message = (
            f"{result.check}: {result.rule}\n  found: {result.found}\n  do: {advice}"
        )
        cause = (
            result.error.__cause__
            if isinstance(result.error, CheckFailed)
            else result.error
        )
        if cause is None or result.status == "skipped":
            pytest.fail(message, pytrace=False)
        raise AssertionError(message) from cause


class ModalityContract(_Contract):
    """The contract of a modality; give the fixture `modality`, an adapter.

    A sensor without `simulate` and `save` also needs the fixture `samples`.
    """

    checks = MODALITY_CHECKS

    @pytest.fixture
    def samples(self) -> Sequence[Mapping[str, Path]] | None:
        """Sample files, each as source name -> file; by default the sensor simulates its own."""
        return None

    @pytest.fixture
    def contract_case(
        self,
        modality: ModalityAdapter,
        samples: Sequence[Mapping[str, Path]] | None,
        tmp_path: Path,
    ) -> ModalityCase:
        """The sensor with its samples."""
        return ModalityCase(modality, tmp_path / "contract", samples)


class FoundationContract(_Contract):
    """The contract of a foundation model; give the fixture `foundation`: a spec, or the name of an installed model.

    Attributes:
        image_size: side of the input in pixels; by default the model's smallest one of at least 64.
        full: build large models with values too.
    """

    image_size: ClassVar[int | None] = None
    full: ClassVar[bool] = False
    checks = FOUNDATION_CHECKS

    @pytest.fixture
    def contract_case(
        self, foundation: FoundationSpec | str, tmp_path: Path
    ) -> FoundationCase:
        """The model."""
        spec = (
            load_plugins().foundation(foundation, fetch=True)
            if isinstance(foundation, str)
            else foundation
        )
        return FoundationCase(
            spec, tmp_path, image_size=self.image_size, full=self.full
        )


class _PartContract(_Contract):
    """The contract of a part; its fixture has the name of its kind, and is a spec or an installed name.

    Each contract marks its fixture as used, so that pytest runs a fixture with parameters once for each.
    """

    kind: ClassVar[Kind]

    @pytest.fixture
    def contract_case(self, request: pytest.FixtureRequest, tmp_path: Path) -> PartCase:
        """The part."""
        part = request.getfixturevalue(self.kind.replace(" ", "_"))
        if isinstance(part, str):
            part = load_plugins().get(self.kind, part)
        return PartCase(part, tmp_path)


@pytest.mark.usefixtures("transfer_layer")
class TransferLayerContract(_PartContract):
    """The contract of a transfer layer; give the fixture `transfer_layer`: its spec or an installed name."""

    kind = "transfer layer"
    checks = TRANSFER_LAYER_CHECKS


@pytest.mark.usefixtures("tuner")
class TunerContract(_PartContract):
    """The contract of a tuner; give the fixture `tuner`: its spec or an installed name."""

    kind = "tuner"
    checks = TUNER_CHECKS


@pytest.mark.usefixtures("result_format")
class ResultFormatContract(_PartContract):
    """The contract of a result format; give the fixture `result_format`: its spec or an installed name."""

    kind = "result format"
    checks = RESULT_FORMAT_CHECKS


@pytest.mark.usefixtures("loss")
class LossContract(_PartContract):
    """The contract of a loss; give the fixture `loss`: its spec or an installed name."""

    kind = "loss"
    checks = LOSS_CHECKS


@pytest.mark.usefixtures("metric")
class MetricContract(_PartContract):
    """The contract of a metric; give the fixture `metric`: its spec or an installed name."""

    kind = "metric"
    checks = METRIC_CHECKS


class PackageContract(_Contract):
    """The contract of an installed package; give the fixture `package`: its distribution name, as in pyproject.toml."""

    checks = PACKAGE_CHECKS

    @pytest.fixture
    def contract_case(self, package: str) -> PackageCase:
        """The package as it is installed."""
        return PackageCase.installed(package)
