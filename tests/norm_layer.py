"""A transfer layer that trains a BatchNorm, as a plugin; run as a script, it trains a network with it.

python norm_layer.py DATA OUT
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from runs import config

from simmat.plugin_specs import TransferLayerSpec
from simmat.plugins.hooks import hookimpl
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry


def build(
    *, channels: Any, zero_shot: Any, backbone: Any, generator: torch.Generator
) -> torch.nn.Module:
    """Normalize by the batch and mix to three planes."""
    mix = torch.nn.Conv2d(len(channels), 3, 1)
    torch.nn.init.normal_(mix.weight, std=60.0, generator=generator)
    return torch.nn.Sequential(torch.nn.BatchNorm2d(len(channels), momentum=0.5), mix)


@hookimpl
def simmat_transfer_layers() -> Iterable[TransferLayerSpec]:
    """Give the layer."""
    return [
        TransferLayerSpec(
            name="norm", description="BatchNorm, then 1x1", build="norm_layer:build"
        )
    ]


def registry() -> Registry:
    """The built-in parts, the model `tiny`, and the layer."""
    entries = [importlib.metadata.EntryPoint("norm", "norm_layer", "simmat")]
    entries += importlib.metadata.entry_points(group="simmat", name="testing")
    return load_plugins(entries, {})


if __name__ == "__main__":
    from simmat import training

    settings = {
        "mat": "norm",
        "lr": 1e-2,
        "steps": 2,
        "batch_size": 4,
        "pictures": False,
    }
    training.train(config(Path(sys.argv[1]), Path(sys.argv[2]), **settings), registry())
