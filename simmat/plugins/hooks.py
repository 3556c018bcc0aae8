"""The hooks of plugins; each returns values.

A plugin is a module named by an entry point of group "simmat". It decorates functions of these names with `hookimpl`.
It must not import torch at import time. A new hook needs its kind and type in `simmat.plugins.kinds`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

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
    import click

    from simmat.callbacks import Callback
    from simmat.config import TrainConfig

PROJECT = "simmat"
"""Name of the package, the pluggy project and the entry-point group."""

OWN_COMMANDS: Mapping[str, tuple[str, tuple[str, ...] | None]] = {
    "train": ("Train a transfer layer and tune a foundation model.", None),
    "eval": ("Score a bundle and the zero-shot model on a data set.", None),
    "predict": ("Segment sensor images: one object by a prompt, or all objects.", None),
    "data": ("View, check or create a data set.", ()),
    "modalities": ("List and show sensors.", ("list", "show")),
    "foundations": (
        "List foundation models and download their weights.",
        ("fetch", "list"),
    ),
    "plugins": ("List plugins.", ("list",)),
}
"""SimMAT's own commands, which no plugin can replace: line of the help, and for a group its commands.

NAME is `command` of the module `simmat.cli.NAME`, imported when it runs; a group has the line as its own help. One of
() has commands of plugins alone.
"""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def simmat_modalities() -> Iterable[ModalityAdapter]:  # type: ignore[empty-body]
    """Return the sensors a plugin provides, as instances."""


@hookspec
def simmat_foundation_models() -> Iterable[FoundationSpec]:  # type: ignore[empty-body]
    """Return the foundation models a plugin provides."""


@hookspec
def simmat_foundation_families() -> Iterable[FoundationFamily]:  # type: ignore[empty-body]
    """Return the libraries of foundation models a plugin provides, whose models are named FAMILY/MODEL."""


@hookspec
def simmat_transfer_layers() -> Iterable[TransferLayerSpec]:  # type: ignore[empty-body]
    """Return the transfer layers a plugin provides."""


@hookspec
def simmat_tuners() -> Iterable[TunerSpec]:  # type: ignore[empty-body]
    """Return the tuners a plugin provides."""


@hookspec
def simmat_losses() -> Iterable[LossSpec]:  # type: ignore[empty-body]
    """Return the losses of trainings that a plugin provides."""


@hookspec
def simmat_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]
    """Return the figures that a plugin adds to scores."""


@hookspec
def simmat_model_formats() -> Iterable[FunctionSpec]:  # type: ignore[empty-body]
    """Return the formats of exported models that a plugin can run, named as in `BundleSpec.exported`.

    `function(folder)` returns a `SimMAT`. Its `for_image` gives it each image in the sensor's units, if the exported
    model prepares images itself.
    """


@hookspec
def simmat_result_formats() -> Iterable[ResultFormat]:  # type: ignore[empty-body]
    """Return the file formats of results that a plugin can write."""


@hookspec
def simmat_sequence_formats() -> Iterable[ResultFormat]:  # type: ignore[empty-body]
    """Return the file formats of followed objects that a plugin can write, of the kind "sequences"."""


@hookspec
def simmat_stack_formats() -> Iterable[StackFormat]:  # type: ignore[empty-body]
    """Return the file formats of videos and volumes that a plugin reads frame by frame."""


@hookspec
def simmat_followers() -> Iterable[FunctionSpec]:  # type: ignore[empty-body]
    """Return what follows objects through frames. The first by name is used.

    `function(predictor, frames, masks, tile=…, progress=…)` gets the arguments of `Predictor.follow`, and yields a
    `simmat.predictor.FollowedFrame` for each frame.
    """


@hookspec
def simmat_bundle_sources() -> Iterable[FunctionSpec]:  # type: ignore[empty-body]
    """Return the places other than this machine from which a plugin fetches bundles.

    One named "hf" is for places that begin with "hf:". `function(place)` gets the place as the user wrote it, and
    returns the path of the bundle's file on this machine, followed by the name of a sensor if the place names one.
    """


@hookspec
def simmat_measurers() -> Iterable[FunctionSpec]:  # type: ignore[empty-body]
    """Return what measures objects in images. The first by name is used.

    `function` names a module, which has the functions of `simmat.measurement.Measurer`.
    """


@hookspec
def simmat_geo_backends() -> Iterable[FunctionSpec]:  # type: ignore[empty-body]
    """Return readers of maps: georeferences, map features, mosaics, rasters by URL. The first by name is used.

    `function` names a module, which has the functions of `simmat.geo.GeoBackend`.
    """


@hookspec
def simmat_commands() -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Return the commands a plugin adds to `simmat`; import heavy modules only when one runs.

    A command named "GROUP NAME", such as "data simulate", is added to that group of SimMAT's.
    """


@hookspec
def simmat_callbacks(config: TrainConfig, registry: object) -> Iterable[Callback]:  # type: ignore[empty-body]
    """Return callbacks of a training, which its main process calls.

    One that fails is left out with a warning. An implementation may leave out an argument that it does not need.

    Args:
        config: the settings of the run.
        registry: what is installed, a `simmat.plugins.registry.Registry`.
    """
