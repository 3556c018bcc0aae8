"""SimMAT's own parts, registered through the same hooks as those of plugins.

They are specs and adapters; torch is imported only when one is built.
"""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugins.hooks import hookimpl
from simmat.sensors.adapter import ModalityAdapter
from simmat.specs import FoundationSpec, TransferLayerSpec, TunerSpec

TRANSFER_LAYERS: tuple[TransferLayerSpec, ...] = (
    TransferLayerSpec(
        name="mat",
        description="the paper's: conv3x3 C->64, ReLU, conv3x3 64->3, random at the start",
        build="simmat.nn.mat:build_mat",
        options={"width": 64},
    ),
    TransferLayerSpec(
        name="mat-residual",
        description="the zero-shot map plus the paper's layer as a residual; step 0 is the zero-shot model",
        build="simmat.nn.mat:build_mat_residual",
        options={"width": 64, "contrast": 1.0},
    ),
    TransferLayerSpec(
        name="linear",
        description="a 1x1 convolution C->3 that starts as the zero-shot map",
        build="simmat.nn.mat:build_linear",
    ),
    TransferLayerSpec(
        name="channel-attention",
        description="one embedding for all channels and attention over those present; a channel may be missing",
        build="simmat.nn.channel_attention:build_channel_attention",
        output="features",
        options={"embedding": "auto", "heads": 8, "drop": 0.2},
        takes_missing=True,
    ),
    TransferLayerSpec(
        name="first-conv",
        description="common practice: the first layer widened to C channels, its RGB kernels repeated, scaled by 3/C",
        build="simmat.nn.baselines:build_first_conv",
        output="features",
    ),
    TransferLayerSpec(
        name="simcmf",
        description="SimCMF's: gated channels through a 1x1 convolution, plus an embedding of each that starts at zero",
        build="simmat.nn.simcmf:build_simcmf",
        output="image+features",
    ),
    TransferLayerSpec(
        name="preconv",
        description="the paper's ablation: n convolutions of kernel k and width d down to 3 planes",
        build="simmat.nn.baselines:build_preconv",
        options={"n": 2, "k": 3, "d": 64},
    ),
    TransferLayerSpec(
        name="baseline-a",
        description="the paper's baseline A: a new first layer, random, for all channels",
        build="simmat.nn.baselines:build_baseline_a",
        output="features",
    ),
    TransferLayerSpec(
        name="baseline-b",
        description="the paper's baseline B: a random 1x1 convolution C->3, then a trained copy of the first layer",
        build="simmat.nn.baselines:build_baseline_b",
        output="features",
    ),
    TransferLayerSpec(
        name="baseline-d",
        description="the paper's baseline D: a random 1x1 convolution C->3",
        build="simmat.nn.baselines:build_baseline_d",
    ),
    TransferLayerSpec(
        name="identity",
        description="passes three channels through unchanged; no parameters",
        build="simmat.nn.mat:build_identity",
    ),
    TransferLayerSpec(
        name="zeroshot",
        description="the fixed zero-shot map; no parameters",
        build="simmat.nn.mat:build_zeroshot",
    ),
    TransferLayerSpec(
        name="first-three",
        description="zero-shot as in the paper's code: the first three channels, repeated if fewer; no parameters",
        build="simmat.nn.baselines:build_first_three",
    ),
)


TUNERS: tuple[TunerSpec, ...] = (
    TunerSpec(
        name="frozen",
        description="trains only the transfer layer, nothing of the foundation model",
        apply="simmat.nn.tuners:apply_frozen",
        learning_rate=1e-3,
    ),
    TunerSpec(
        name="lora",
        description="low-rank updates of the layers the model names (SAM: q and v of every attention)",
        apply="simmat.nn.tuners:apply_lora",
        options={"rank": 16, "alpha": 16.0, "where": "all"},
    ),
    TunerSpec(
        name="conv-lora",
        description="LoRA; layers that see the token grid get a 3x3 convolution between its factors",
        apply="simmat.nn.tuners:apply_conv_lora",
        options={"rank": 16, "alpha": 16.0, "where": "all"},
    ),
    TunerSpec(
        name="adapter",
        description="a small MLP parallel to the MLP of every block, starting at zero",
        apply="simmat.nn.adapters:apply_adapter",
        options={"width": 200, "scale": 0.1},
    ),
    TunerSpec(
        name="prompt",
        description="trained tokens, projected and added to keys and values of every attention",
        apply="simmat.nn.prompt_tuning:apply_prompt",
        options={"tokens": 400, "dropout": 0.1},
    ),
    TunerSpec(
        name="prefix",
        description="trained keys and values, added to those of every attention",
        apply="simmat.nn.prompt_tuning:apply_prefix",
        options={"tokens": 200},
    ),
    TunerSpec(
        name="linear",
        description="trains only the first layer and the position embeddings",
        apply="simmat.nn.tuners:apply_linear",
    ),
    TunerSpec(
        name="decoder",
        description="trains the whole mask decoder, nothing of the backbone",
        apply="simmat.nn.tuners:apply_decoder",
    ),
    TunerSpec(
        name="full",
        description="trains everything except what the model keeps fixed (SAM: the prompt encoder)",
        apply="simmat.nn.tuners:apply_full",
        learning_rate=3e-5,
    ),
)


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return the sensors for ordinary image files."""
    from simmat.sensors.builtin import MODALITIES

    return MODALITIES


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Return Segment Anything's models."""
    from simmat.foundations.sam import FOUNDATION_MODELS

    return FOUNDATION_MODELS


@hookimpl
def simmat_transfer_layers() -> Iterable[TransferLayerSpec]:
    """Return the paper's transfer layers and those to compare with."""
    return TRANSFER_LAYERS


@hookimpl
def simmat_tuners() -> Iterable[TunerSpec]:
    """Return the ways to tune a foundation model."""
    return TUNERS
