"""The conformance kit: one list of checks for plugins, with two front ends.

`simmat plugins check NAME` runs it on what is installed. As tests it needs pytest and three lines:

```python
class TestSonar(ModalityContract):
    @pytest.fixture
    def modality(self) -> ModalityAdapter:
        return Sonar()
```

The contracts are imported on the first use of one, so importing this package is fast and needs no pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmat_testing.contracts import (
        FoundationContract,
        LossContract,
        MetricContract,
        ModalityContract,
        PackageContract,
        ResultFormatContract,
        TransferLayerContract,
        TunerContract,
    )

__all__ = [
    "FoundationContract",
    "LossContract",
    "MetricContract",
    "ModalityContract",
    "PackageContract",
    "ResultFormatContract",
    "TransferLayerContract",
    "TunerContract",
]


def __getattr__(name: str) -> Any:
    """Import a contract on its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module("simmat_testing.contracts"), name)
    except ModuleNotFoundError as error:
        if error.name != "pytest":
            raise
        raise ImportError(
            f"simmat_testing.{name} needs pytest: pip install pytest"
        ) from error
