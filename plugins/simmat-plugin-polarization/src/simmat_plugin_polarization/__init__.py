"""Polarization cameras for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.hookspecs import hookimpl
from simmat.modality import ModalityAdapter
from simmat_plugin_polarization.angles import FOUR_ANGLES
from simmat_plugin_polarization.computed import COMPUTED
from simmat_plugin_polarization.mosaic import MOSAIC

__all__ = ["MODALITIES", "simmat_modalities"]

MODALITIES: tuple[ModalityAdapter, ...] = (FOUR_ANGLES, MOSAIC, *COMPUTED)
"""Ready instances."""


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `polarization`, and the same from other files."""
    return MODALITIES
