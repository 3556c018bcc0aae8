"""SimMAT's own parts, registered through the same hooks as those of plugins.

They are specs and adapters; torch is imported only when one is built.
"""

from __future__ import annotations

from simmat.plugin_specs import (
    LossSpec,
    MetricSpec,
    ResultFormat,
    TransferLayerSpec,
    TunerSpec,
)
from simmat.plugins.hooks import hookimpl
from simmat.sensors.builtin import MODALITIES

TRANSFER_LAYERS: tuple[TransferLayerSpec, ...] = (
    TransferLayerSpec(
        "mat",
        "the paper's: conv3x3 C->64, ReLU, conv3x3 64->3, random at the start",
        "simmat.nn.mat:build_mat",
        options={"width": 64},
    ),
    TransferLayerSpec(
        "mat-residual",
        "the zero-shot map plus the paper's layer as a residual; step 0 is the zero-shot model",
        "simmat.nn.mat:build_mat_residual",
        options={"width": 64, "contrast": 1.0},
    ),
    TransferLayerSpec(
        "linear",
        "a 1x1 convolution C->3 that starts as the zero-shot map",
        "simmat.nn.mat:build_linear",
    ),
    TransferLayerSpec(
        "channel-attention",
        "one embedding for all channels and attention over those present; a channel may be missing",
        "simmat.nn.channel_attention:build_channel_attention",
        output="features",
        options={"embedding": "auto", "heads": 8, "drop": 0.2},
        supports_missing_channels=True,
    ),
    TransferLayerSpec(
        "first-conv",
        "common practice: the first layer widened to C channels, its RGB kernels repeated, scaled by 3/C",
        "simmat.nn.first_layer:build_first_conv",
        output="features",
    ),
    TransferLayerSpec(
        "identity",
        "passes three channels through unchanged; no parameters",
        "simmat.nn.mat:build_identity",
    ),
    TransferLayerSpec(
        "zeroshot",
        "the fixed zero-shot map; no parameters",
        "simmat.nn.mat:build_zeroshot",
    ),
)


TUNERS: tuple[TunerSpec, ...] = (
    TunerSpec(
        "frozen",
        "trains only the transfer layer, nothing of the foundation model",
        "simmat.nn.tuners:apply_frozen",
        learning_rate=1e-3,
    ),
    TunerSpec(
        "lora",
        "low-rank updates of the layers the model names (SAM: q and v of every attention)",
        "simmat.nn.tuners:apply_lora",
        options={"rank": 16, "alpha": 16.0, "where": "all"},
    ),
    TunerSpec(
        "linear",
        "trains only the first layer and the position embeddings",
        "simmat.nn.tuners:apply_linear",
    ),
    TunerSpec(
        "decoder",
        "trains the whole mask decoder, nothing of the backbone",
        "simmat.nn.tuners:apply_decoder",
    ),
    TunerSpec(
        "full",
        "trains everything except what the model keeps fixed (SAM: the prompt encoder)",
        "simmat.nn.tuners:apply_full",
        learning_rate=3e-5,
    ),
)

LOSSES: tuple[LossSpec, ...] = (
    LossSpec(
        "focal",
        "focal loss 20, dice 1, error of the predicted IoU 1, as SAM 2",
        "simmat.nn.losses:focal_loss",
    ),
    LossSpec(
        "bce",
        "cross-entropy, dice and error of the predicted IoU, as the paper",
        "simmat.nn.losses:bce_loss",
    ),
)

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec("boundary_iou", "boundary IoU", "simmat.evaluation.scores:boundary_iou"),
)

RESULT_FORMATS: tuple[ResultFormat, ...] = (
    ResultFormat(
        "mask",
        "the mask of a prompt as PNG, 0 and 255",
        "simmat.inference.formats:write_mask",
        ("_mask.png",),
        kinds=("prompts",),
        auto=("prompts",),
    ),
    ResultFormat(
        "uncertainty",
        "mean and standard deviation of a prompt's object over several views, as TIFF",
        "simmat.inference.formats:write_uncertainty",
        ("_uncertainty.tif",),
        kinds=("prompts",),
    ),
    ResultFormat(
        "labels",
        "instance ids or label values as PNG, or TIFF where a PNG cannot hold them",
        "simmat.inference.formats:write_labels",
        ("_{kind}.png", "_{kind}.tif"),
        auto=("objects", "classes"),
    ),
    ResultFormat(
        "coco",
        "the objects of all images as one COCO json",
        "simmat.inference.coco:write_coco",
        ("coco.json",),
        kinds=("objects",),
        auto=("objects",),
        check="simmat.inference.coco:check_size",
        one_file=True,
    ),
    ResultFormat(
        "csv",
        "the objects of all images as one table, with what --measure measured",
        "simmat.inference.table:write_csv",
        ("objects.csv",),
        kinds=("prompts", "objects"),
        one_file=True,
    ),
    ResultFormat(
        "overlay",
        "a picture to look at",
        "simmat.inference.formats:write_overlay",
        ("_overlay.png",),
        kinds=("prompts", "objects", "classes"),
        auto=("prompts", "objects", "classes"),
    ),
)


simmat_modalities = hookimpl(lambda: MODALITIES)
simmat_transfer_layers = hookimpl(lambda: TRANSFER_LAYERS)
simmat_tuners = hookimpl(lambda: TUNERS)
simmat_losses = hookimpl(lambda: LOSSES)
simmat_metrics = hookimpl(lambda: METRICS)
simmat_result_formats = hookimpl(lambda: RESULT_FORMATS)
