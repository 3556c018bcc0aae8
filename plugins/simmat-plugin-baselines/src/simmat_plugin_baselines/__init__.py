"""Transfer layers to compare with those of SimMAT: the paper's baselines and ablation, and SimCMF. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugin_specs import TransferLayerSpec
from simmat.plugins.hooks import hookimpl

TRANSFER_LAYERS: tuple[TransferLayerSpec, ...] = (
    TransferLayerSpec(
        "preconv",
        "the paper's ablation: n convolutions of kernel k and width d down to 3 planes",
        "simmat_plugin_baselines.layers:build_preconv",
        options={"n": 2, "k": 3, "d": 64},
    ),
    TransferLayerSpec(
        "baseline-a",
        "the paper's baseline A: a new first layer, random, for all channels",
        "simmat_plugin_baselines.layers:build_baseline_a",
        output="features",
    ),
    TransferLayerSpec(
        "baseline-b",
        "the paper's baseline B: a random 1x1 convolution C->3, then a trained copy of the first layer",
        "simmat_plugin_baselines.layers:build_baseline_b",
        output="features",
    ),
    TransferLayerSpec(
        "baseline-d",
        "the paper's baseline D: a random 1x1 convolution C->3",
        "simmat_plugin_baselines.layers:build_baseline_d",
    ),
    TransferLayerSpec(
        "simcmf",
        "SimCMF's: gated channels through a 1x1 convolution, plus an embedding of each that starts at zero",
        "simmat_plugin_baselines.layers:build_simcmf",
        output="image+features",
    ),
    TransferLayerSpec(
        "first-three",
        "zero-shot as in the paper's code: the first three channels, repeated if fewer; no parameters",
        "simmat_plugin_baselines.layers:build_first_three",
    ),
)


@hookimpl
def simmat_transfer_layers() -> Iterable[TransferLayerSpec]:
    """Return the layers."""
    return TRANSFER_LAYERS
