"""Build `lite` with packaged or random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from simmat.errors import WeightsError
from simmat.nn.tensor_files import read_safetensors
from simmat.specs import FoundationSpec
from simmat_plugin_lite.backbone import LiteBackbone
from simmat_plugin_lite.decoder import LiteDecoder


class LiteModel(nn.Module):
    """Backbone and prompt decoder of `lite`; see `LiteBackbone` for `freeze_statistics`.

    Attributes:
        name: name of its spec.
    """

    name = "lite"

    def __init__(self, freeze_statistics: bool = True) -> None:
        super().__init__()
        self.backbone = LiteBackbone(freeze_statistics)
        self.decoder = LiteDecoder()


def build_lite(spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int) -> LiteModel:
    """Build `lite`; see `simmat.specs.build_foundation`.

    With weights, BatchNorm keeps its pretrained statistics in training; without, it learns them. The network does
    not depend on the input size.

    Raises:
        WeightsError: the file is damaged or belongs to another model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed every GPU
        model = LiteModel(freeze_statistics=weights is not None)
    if weights is not None:
        model.load_state_dict(read_weights(weights, model))
    return model.eval()


def read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Read a weight file of this model, in the model's dtypes.

    Raises:
        WeightsError: the file is damaged, or its tensors do not fit the model.
    """
    found = read_safetensors(path)
    wanted = model.state_dict()
    wrong = [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    wrong += [f"{name} is unknown" for name in found if name not in wanted]
    wrong += [f"{name} is missing" for name in wanted if name not in found]
    if wrong:
        raise WeightsError(f"{path} is not a weight file of lite: " + "; ".join(wrong[:5]) + f" ({len(wrong)} in all)")
    return {name: tensor.to(wanted[name].dtype) for name, tensor in found.items()}
