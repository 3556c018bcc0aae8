"""Multispectral cameras and satellites for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.hookspecs import hookimpl
from simmat.modality import ModalityAdapter
from simmat_plugin_multispectral.adapter import MODALITIES


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `multispectral` and its variants for files whose scale or bands the user states."""
    return MODALITIES
