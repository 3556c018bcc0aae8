"""The contract of all sensors of a package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
from simmat_testing import ModalityContract
from simmat_testing.modality_checks import name_with_options, with_each_option

from simmat.sensors.adapter import ModalityAdapter


class SensorContract(ModalityContract):
    """Every sensor keeps every rule; with other values of its options, which share its code, in the slow tests."""

    modalities: ClassVar[Sequence[ModalityAdapter]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make the tests of each sensor."""
        super().pytest_generate_tests(metafunc)
        if "modality" in metafunc.fixturenames:
            variants = [
                made
                for adapter in self.modalities
                for made in with_each_option(adapter)
            ]
            marks = [
                pytest.mark.slow if made.stated_options() else () for made in variants
            ]
            cases = zip(variants, map(name_with_options, variants), marks, strict=True)
            metafunc.parametrize(
                "modality",
                [pytest.param(made, id=name, marks=mark) for made, name, mark in cases],
            )
