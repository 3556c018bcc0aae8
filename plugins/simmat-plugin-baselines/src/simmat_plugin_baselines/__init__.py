"""Transfer layers and tuners to compare with those of SimMAT. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugin_specs import TransferLayerSpec, TunerSpec
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

TUNERS: tuple[TunerSpec, ...] = (
    TunerSpec(
        "conv-lora",
        "LoRA; layers that see the token grid get a 3x3 convolution between its factors",
        "simmat_plugin_baselines.conv_lora:apply_conv_lora",
        options={"rank": 16, "alpha": 16.0, "where": "all"},
    ),
    TunerSpec(
        "adapter",
        "a small MLP parallel to the MLP of every block, starting at zero",
        "simmat_plugin_baselines.adapters:apply_adapter",
        options={"width": 200, "scale": 0.1},
    ),
    TunerSpec(
        "prompt",
        "trained tokens, projected and added to keys and values of every attention",
        "simmat_plugin_baselines.prompt_tuning:apply_prompt",
        options={"tokens": 400, "dropout": 0.1},
    ),
    TunerSpec(
        "prefix",
        "trained keys and values, added to those of every attention",
        "simmat_plugin_baselines.prompt_tuning:apply_prefix",
        options={"tokens": 200},
    ),
)


@hookimpl
def simmat_transfer_layers() -> Iterable[TransferLayerSpec]:
    """Return the layers."""
    return TRANSFER_LAYERS


@hookimpl
def simmat_tuners() -> Iterable[TunerSpec]:
    """Return the tuners."""
    return TUNERS
