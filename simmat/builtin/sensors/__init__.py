"""The sensors that come with SimMAT: colour, grey, and any planes as they lie in a file."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.builtin.sensors.gray import Gray
from simmat.builtin.sensors.raster import Raster
from simmat.builtin.sensors.rgb import Rgb
from simmat.hookspecs import hookimpl
from simmat.modality import ModalityAdapter

__all__ = ["MODALITIES", "Gray", "Raster", "Rgb", "simmat_modalities"]

MODALITIES: tuple[ModalityAdapter, ...] = (Rgb(), Gray(), Raster())
"""Ready instances."""


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `rgb`, `gray` and `raster`."""
    return MODALITIES
