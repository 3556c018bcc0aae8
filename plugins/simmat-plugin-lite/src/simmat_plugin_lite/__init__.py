"""`lite`: a promptable foundation model in the box, pretrained on natural RGB photographs. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.foundation import FoundationSpec
from simmat.hookspecs import hookimpl
from simmat_plugin_lite.spec import LITE


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Bring `lite`."""
    return (LITE,)
