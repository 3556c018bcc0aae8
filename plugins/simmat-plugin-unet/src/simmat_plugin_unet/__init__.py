"""`unet`: what a practitioner would take without a foundation model that understands prompts. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugins.hooks import hookimpl
from simmat.specs import FoundationSpec
from simmat_plugin_unet.spec import UNET


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Bring `unet`."""
    return (UNET,)
