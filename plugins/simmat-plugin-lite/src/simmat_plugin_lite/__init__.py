"""`lite`: a promptable foundation model in the box, pretrained on natural RGB photographs. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugins.hooks import hookimpl
from simmat.specs import FoundationSpec
from simmat_plugin_lite.spec import LITE


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Bring `lite`."""
    return (LITE,)
