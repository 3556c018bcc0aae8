"""SimMAT's own parts, registered through the same hooks as anybody's.

The parts are specs and adapters; the modules behind them load torch only when one is built.
"""

from __future__ import annotations

from collections.abc import Iterable

from simmat.foundation import FoundationSpec
from simmat.hookspecs import hookimpl
from simmat.modality import ModalityAdapter
from simmat.transfer import TransferLayerSpec, TunerSpec


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return the sensors that any image file can stand for."""
    from simmat.builtin.sensors import MODALITIES

    return MODALITIES


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Return Segment Anything's models."""
    from simmat.builtin.sam import FOUNDATION_MODELS

    return FOUNDATION_MODELS


@hookimpl
def simmat_transfer_layers() -> Iterable[TransferLayerSpec]:
    """Return the paper's transfer layers and their references."""
    from simmat.builtin.transfer import TRANSFER_LAYERS

    return TRANSFER_LAYERS


@hookimpl
def simmat_tuners() -> Iterable[TunerSpec]:
    """Return the ways to tune a foundation model."""
    from simmat.builtin.tuners import TUNERS

    return TUNERS
