"""Synthetic aperture radar for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugins.hooks import hookimpl
from simmat.sensors.adapter import ModalityAdapter
from simmat_plugin_sar.adapter import MODALITIES


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `sar`."""
    return MODALITIES
