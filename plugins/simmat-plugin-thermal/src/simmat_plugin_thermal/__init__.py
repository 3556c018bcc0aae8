"""Thermal cameras for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import ModalityAdapter, hookimpl
from simmat.io.frames import StackFormat
from simmat_plugin_thermal.adapter import MODALITIES


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return `thermal`, and its encoding in the AIMS benchmark."""
    return MODALITIES


@hookimpl
def simmat_stack_formats() -> Iterable[StackFormat]:
    """Return FLIR's sequences."""
    return [
        StackFormat(
            "flir-sequence",
            "frames of a thermal sequence of FLIR",
            (".seq", ".csq"),
            "simmat_plugin_thermal.sequences:FlirStack",
        )
    ]
