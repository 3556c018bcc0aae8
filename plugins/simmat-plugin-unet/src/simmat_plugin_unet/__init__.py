"""`unet`: a U-Net with the prompt as an input plane, a baseline without a foundation model. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugin_specs import FoundationSpec
from simmat.plugins.hooks import hookimpl
from simmat_plugin_unet.spec import UNET


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Return `unet`."""
    return (UNET,)
