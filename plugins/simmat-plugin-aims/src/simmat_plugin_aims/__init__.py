"""The AIMS benchmark of the SimMAT paper (arXiv 2409.08083): its data sets as released, and its encodings."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat import ModalityAdapter, hookimpl
from simmat_plugin_aims.command import command
from simmat_plugin_aims.polarization import AIMS, AIMS_ANGLES

MODALITIES: tuple[ModalityAdapter, ...] = (AIMS, AIMS_ANGLES)
"""Ready instances."""


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `data index`."""
    return [command]


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return the paper's encodings of polarization."""
    return MODALITIES
