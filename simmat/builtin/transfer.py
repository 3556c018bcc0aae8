"""The built-in transfer layers, as data."""

from __future__ import annotations

from simmat.transfer import TransferLayerSpec

TRANSFER_LAYERS: tuple[TransferLayerSpec, ...] = (
    TransferLayerSpec(
        name="mat",
        description="the paper's: conv3x3 C->64, ReLU, conv3x3 64->3, from random weights",
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
        description="one embedding for all channels and attention over those that are there; a band may be missing",
        build="simmat.nn.channel_attention:build_channel_attention",
        output="features",
        options={"embedding": "auto", "heads": 8, "drop": 0.2},
        takes_missing=True,
    ),
    TransferLayerSpec(
        name="first-conv",
        description="the usual way: the first layer widened to C channels, its RGB kernels in turn, scaled by 3/C",
        build="simmat.nn.first_conv:build_first_conv",
        output="features",
    ),
    TransferLayerSpec(
        name="simcmf",
        description="SimCMF's: gated channels through a 1x1 convolution, plus an embedding of each, from zero",
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
        description="three planes as they are, no parameters",
        build="simmat.nn.mat:build_identity",
    ),
    TransferLayerSpec(
        name="zeroshot",
        description="the fixed zero-shot map, no parameters",
        build="simmat.nn.mat:build_zeroshot",
    ),
    TransferLayerSpec(
        name="first-three",
        description="zero-shot as the paper's code has it: the first three channels, repeated if fewer; no parameters",
        build="simmat.nn.baselines:build_first_three",
    ),
)
