"""The kinds of parts that plugins bring, and what each is in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from simmat.io.frames import StackFormat
from simmat.plugin_specs import (
    FoundationFamily,
    FoundationSpec,
    FunctionSpec,
    LossSpec,
    MetricSpec,
    ResultFormat,
    TransferLayerSpec,
    TunerSpec,
)
from simmat.sensors.adapter import ModalityAdapter

if TYPE_CHECKING:
    from simmat.callbacks import Callback

Kind = Literal[
    "modality", "foundation model", "foundation family", "transfer layer", "tuner", "loss", "metric", "model format",
    "result format", "sequence format", "stack format", "follower", "bundle source", "geo backend", "measurer",
    "command", "callbacks",
]  # fmt: skip


@dataclass(frozen=True)
class CallbackHook:
    """What makes a plugin's callbacks of a training.

    Attributes:
        name: name of the plugin's module.
        make: its hook, called with `config` and `registry`; returns the list of what each implementation returned.
    """

    name: str
    make: Callable[..., list[Iterable[Callback]]]


KINDS: Mapping[Kind, type[Any]] = {
    "modality": ModalityAdapter,
    "foundation model": FoundationSpec,
    "foundation family": FoundationFamily,
    "transfer layer": TransferLayerSpec,
    "tuner": TunerSpec,
    "loss": LossSpec,
    "metric": MetricSpec,
    "model format": FunctionSpec,
    "result format": ResultFormat,
    "sequence format": ResultFormat,
    "stack format": StackFormat,
    "follower": FunctionSpec,
    "bundle source": FunctionSpec,
    "geo backend": FunctionSpec,
    "measurer": FunctionSpec,
    "command": click.Command,
    "callbacks": CallbackHook,
}
"""Kind of part -> its type. The hook of a kind has its plural as its name: simmat_foundation_models."""


def plural(kind: Kind) -> str:
    """Return the plural of a kind: "foundation models"."""
    if kind.endswith("y"):
        return kind[:-1] + "ies"
    if kind.endswith("ss"):
        return kind + "es"
    return kind.removesuffix("s") + "s"
