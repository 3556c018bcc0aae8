"""The built-in transfer layers, as data."""

from __future__ import annotations

from simmat.foundation import TransferLayerSpec

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
        options={"width": 64},
    ),
    TransferLayerSpec(
        name="linear",
        description="a 1x1 convolution C->3 that starts as the zero-shot map",
        build="simmat.nn.mat:build_linear",
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
)
