"""The usual way to give a pretrained network other channels: its first convolution, widened by timm's rule.

timm (`adapt_input_conv`) and segmentation-models-pytorch (`patch_first_conv`) both do so for `in_chans` other than 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from simmat.nn.baselines import ReplacedFirstLayer
from simmat.nn.first_layer import BlankPadding, embedding_of_zeros, first_layer_of, gray_kernel, refitted
from simmat.types import Channel


def widened_kernel(layer: nn.Conv2d, channels: int) -> Tensor:
    """Return a pretrained kernel for another number of channels: (D, channels, h, w).

    One channel gets the sum over R, G and B; more get these in turn, scaled by 3 / channels, so that channels which
    agree are answered as before.
    """
    if channels == 1:
        return gray_kernel(layer)
    turns = torch.arange(channels, device=layer.weight.device) % layer.in_channels
    return layer.weight.detach()[:, turns] * (layer.in_channels / channels)


def build_first_conv(
    *, channels: Sequence[Channel], zero_shot: Tensor, backbone: object, generator: torch.Generator
) -> nn.Module:
    """Build the first layer for C channels from the pretrained one, all of it trained.

    Raises:
        ConfigError: the model's first layer is not one convolution.
    """
    layer = first_layer_of(backbone, "first-conv")
    widened = refitted(layer, widened_kernel(layer, len(channels)), layer.bias)
    return ReplacedFirstLayer(nn.Identity(), widened, BlankPadding(layer, embedding_of_zeros(layer)))
