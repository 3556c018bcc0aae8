"""The doors for plugins: six hooks that return values.

A plugin is a module named by an entry point of group "simmat"; it decorates functions of these
names with `hookimpl`. It must not import torch at import time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

from simmat.sensors.adapter import ModalityAdapter
from simmat.specs import FoundationFamily, FoundationSpec, TransferLayerSpec, TunerSpec

if TYPE_CHECKING:
    import click

PROJECT = "simmat"
"""Name of the pluggy project and of the entry-point group."""

OWN_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "train": (),
    "eval": (),
    "predict": (),
    "data": ("check",),
    "modalities": ("list", "show"),
    "foundations": ("fetch", "list"),
    "plugins": ("check", "install", "list", "new", "uninstall"),
    "bundle": ("pull", "push", "show"),
}
"""Commands of SimMAT itself, with those below each group; no plugin can replace one."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def simmat_modalities() -> Iterable[ModalityAdapter]:  # type: ignore[empty-body]
    """Return the sensors a plugin brings, as ready instances."""


@hookspec
def simmat_foundation_models() -> Iterable[FoundationSpec]:  # type: ignore[empty-body]
    """Return the foundation models a plugin brings."""


@hookspec
def simmat_foundation_families() -> Iterable[FoundationFamily]:  # type: ignore[empty-body]
    """Return the libraries of foundation models a plugin brings, each offered as `FAMILY/MODEL`."""


@hookspec
def simmat_transfer_layers() -> Iterable[TransferLayerSpec]:  # type: ignore[empty-body]
    """Return the transfer layers a plugin brings."""


@hookspec
def simmat_tuners() -> Iterable[TunerSpec]:  # type: ignore[empty-body]
    """Return the tuners a plugin brings."""


@hookspec
def simmat_commands() -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Return the commands a plugin adds to `simmat`; what is heavy is imported when one runs.

    The name of a command may be "GROUP NAME", as "data simulate": it then stands below that group of SimMAT's.
    """
