"""Multispectral cameras and satellites for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import ModalityAdapter, hookimpl
from simmat_plugin_multispectral.adapter import MODALITIES


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `multispectral`, `sentinel2` and `landsat8`."""
    return MODALITIES
