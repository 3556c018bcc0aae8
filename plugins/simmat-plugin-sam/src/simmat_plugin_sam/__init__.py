"""Segment Anything as foundation models, and its prompt decoder for any backbone. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugin_specs import FoundationSpec
from simmat.plugins.hooks import hookimpl
from simmat_plugin_sam.specs import FOUNDATION_MODELS


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Return Segment Anything's models."""
    return FOUNDATION_MODELS
