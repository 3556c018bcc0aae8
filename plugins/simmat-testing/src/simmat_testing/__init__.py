"""The conformance kit: one list of checks for plugins, with two front ends.

`simmat plugins check NAME` runs it on what is installed. As tests it needs pytest and three lines:

```python
class TestSonar(ModalityContract):
    @pytest.fixture
    def modality(self) -> ModalityAdapter:
        return Sonar()
```

A name is imported on its first use, so importing this package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmat_testing.checks import CheckFailed as CheckFailed
    from simmat_testing.checks import CheckResult as CheckResult
    from simmat_testing.checks import CheckSkipped as CheckSkipped
    from simmat_testing.checks import run_check as run_check
    from simmat_testing.checks import run_checks as run_checks
    from simmat_testing.contracts import FoundationContract as FoundationContract
    from simmat_testing.contracts import LossContract as LossContract
    from simmat_testing.contracts import MetricContract as MetricContract
    from simmat_testing.contracts import ModalityContract as ModalityContract
    from simmat_testing.contracts import PackageContract as PackageContract
    from simmat_testing.contracts import ResultFormatContract as ResultFormatContract
    from simmat_testing.contracts import TransferLayerContract as TransferLayerContract
    from simmat_testing.contracts import TunerContract as TunerContract
    from simmat_testing.find_parts import FOUNDATION_CHECKS as FOUNDATION_CHECKS
    from simmat_testing.find_parts import MODALITY_CHECKS as MODALITY_CHECKS
    from simmat_testing.find_parts import PACKAGE_CHECKS as PACKAGE_CHECKS
    from simmat_testing.foundation_checks import FoundationCase as FoundationCase
    from simmat_testing.modality_case import ModalityCase as ModalityCase
    from simmat_testing.modality_checks import name_with_options as name_with_options
    from simmat_testing.modality_checks import with_each_option as with_each_option
    from simmat_testing.networks import build_network as build_network
    from simmat_testing.package_checks import PackageCase as PackageCase

_MODULES = {
    "checks": ("CheckFailed", "CheckSkipped", "CheckResult", "run_check", "run_checks"),
    "contracts": (
        "FoundationContract",
        "LossContract",
        "MetricContract",
        "ModalityContract",
        "PackageContract",
        "ResultFormatContract",
        "TransferLayerContract",
        "TunerContract",
    ),
    "find_parts": ("FOUNDATION_CHECKS", "MODALITY_CHECKS", "PACKAGE_CHECKS"),
    "foundation_checks": ("FoundationCase",),
    "modality_case": ("ModalityCase",),
    "modality_checks": ("name_with_options", "with_each_option"),
    "networks": ("build_network",),
    "package_checks": ("PackageCase",),
}

__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name != "pytest":
            raise
        raise ImportError(
            f"simmat_testing.{name} needs pytest: pip install pytest"
        ) from error
