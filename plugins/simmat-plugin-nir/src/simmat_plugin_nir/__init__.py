"""Near-infrared cameras for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import ModalityAdapter, hookimpl
from simmat_plugin_nir.red_nir import Nir, RedNir

MODALITIES: tuple[ModalityAdapter, ...] = (Nir(), RedNir())
"""Ready instances."""


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `nir` and `red-nir`."""
    return MODALITIES
