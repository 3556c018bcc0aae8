"""`lite`: a promptable foundation model, pretrained on RGB photographs, with its weights. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugin_specs import FoundationSpec
from simmat.plugins.hooks import hookimpl
from simmat_plugin_lite.spec import LITE


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Return `lite`."""
    return (LITE,)
