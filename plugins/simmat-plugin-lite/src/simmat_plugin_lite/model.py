"""Build `lite` with packaged or random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from simmat.nn.tensor_files import load_weights
from simmat.plugin_specs import FoundationSpec
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


def build_lite(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> LiteModel:
    """Build `lite`; see `simmat.assemble.build_foundation`.

    With weights, BatchNorm keeps its pretrained statistics in training; without, it learns them. The network does
    not depend on the input size.

    Raises:
        WeightsError: the file is damaged or belongs to another model.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU
        torch.default_generator.manual_seed(seed)
        model = LiteModel(freeze_statistics=weights is not None)
    if weights is not None:
        load_weights(model, weights, spec.name)
    return model.eval()
