"""Thermal cameras for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import ModalityAdapter, hookimpl
from simmat_plugin_thermal.adapter import MODALITIES


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `thermal`, and its encoding in the AIMS benchmark."""
    return MODALITIES
