"""Synthetic aperture radar for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import ModalityAdapter, hookimpl
from simmat_plugin_sar.adapter import MODALITIES


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `sar`."""
    return MODALITIES
