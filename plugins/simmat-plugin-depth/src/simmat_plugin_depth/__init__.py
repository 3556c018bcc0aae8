"""Depth cameras for SimMAT, and HHA, the geometry computed from depth."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import ModalityAdapter, hookimpl
from simmat_plugin_depth.depth import DEPTH_MODALITIES
from simmat_plugin_depth.hha import HHA_MODALITIES

__all__ = ["DEPTH_MODALITIES", "HHA_MODALITIES", "simmat_modalities"]


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `depth`, its encoding in the AIMS benchmark, and `hha`."""
    return (*DEPTH_MODALITIES, *HHA_MODALITIES)
