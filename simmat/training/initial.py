"""Start a training from the weights of a bundle, in place of the untuned foundation model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simmat.bundle import BundleSpec, load_tensors, read_bundle, trained_tensors
from simmat.config import TrainConfig
from simmat.errors import ConfigError
from simmat.model import SimMAT
from simmat.model_spec import ModelSpec

_NETWORK = ("foundation", "mat", "mat_options", "tune", "tune_options", "image_size")
_OF_WEIGHTS = ("foundation_sha256", "sensor_channels")


def with_network_of(config: TrainConfig, start: BundleSpec) -> TrainConfig:
    """Take the network of a bundle where the config names no other one.

    Raises:
        ConfigError: the config names another transfer layer, tuner, foundation model or option, or it is exported.
    """
    if start.exported is not None:
        raise ConfigError(
            f"--init {config.init} is an exported model, which cannot be trained; give the bundle that it was made of"
        )
    own = {name: getattr(start, name) for name in _NETWORK}
    for name, value in own.items():
        given = getattr(config, name)
        if given not in (None, {}, value) and not (isinstance(given, dict) and given.items() <= value.items()):
            raise ConfigError(
                f"--init {config.init} has {name} = {value}, the training {name} = {given}; leave {name} out, or train "
                "without --init"
            )
    return config.model_copy(update=own)


def check_start(config: TrainConfig, start: BundleSpec, spec: ModelSpec) -> None:
    """Check that the weights of a bundle fit the sensor and the foundation model of a training.

    Raises:
        ConfigError: they do not.
    """
    for name in _OF_WEIGHTS:
        if getattr(start, name) != getattr(spec, name):
            raise ConfigError(
                f"--init {config.init} was trained with another {name.replace('_', ' ')}; use data of the same sensor "
                "and the same foundation weights, or train without --init"
            )


def measured_by(start: BundleSpec) -> dict[str, Any]:
    """Return the fields of a spec that its weights are used to: statistics of the channels, and the zero-shot map."""
    return {name: getattr(start, name) for name in ("channels", "statistics", "zero_shot")}


def load_start(model: SimMAT, path: Path) -> None:
    """Put the weights of a bundle into a network; a dense head of other classes starts anew."""
    own, (_, given) = trained_tensors(model), read_bundle(path)
    heads = [{name: tensor for name, tensor in part.items() if name.startswith("dense.")} for part in (own, given)]
    shapes = [{name: tensor.shape for name, tensor in head.items()} for head in heads]
    if shapes[0] != shapes[1]:
        given = {name: tensor for name, tensor in given.items() if name not in heads[1]} | heads[0]
    load_tensors(model, given, str(path))
