"""Polarization cameras for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import ModalityAdapter, hookimpl
from simmat_plugin_polarization.angles import FourAngles
from simmat_plugin_polarization.channels import PolarizationAdapter
from simmat_plugin_polarization.computed import Computed
from simmat_plugin_polarization.mosaic import PolarizerMosaic

__all__ = ["MODALITIES", "simmat_modalities"]

PolarizationAdapter.readers = {
    "angles": FourAngles,
    "mosaic": PolarizerMosaic,
    "aolp-dolp": Computed,
}

MODALITIES: tuple[ModalityAdapter, ...] = (FourAngles(),)
"""Ready instances."""


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `polarization`."""
    return MODALITIES
