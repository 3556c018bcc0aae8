"""Microscopes for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import ModalityAdapter, hookimpl
from simmat.io.frames import StackFormat
from simmat_plugin_microscopy.adapter import MODALITIES


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `microscopy`."""
    return MODALITIES


@hookimpl
def simmat_stack_formats() -> Iterable[StackFormat]:
    """Return the files of microscopes whose frames are times or slices."""
    return [
        StackFormat(
            "microscope",
            "times, or the slices of a single time (CZI, ND2, LIF, OME-Zarr)",
            (".czi", ".nd2", ".lif", ".zarr"),
            "simmat_plugin_microscopy.stack:MicroscopeStack",
        )
    ]
