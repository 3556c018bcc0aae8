"""The first layer of a backbone, for transfer layers that copy or replace it.

Whatever class a model's convolution is (some pad by their own rule), a copy with other weights keeps its geometry.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.foundation import HasFirstLayer


def first_layer_of(backbone: object, user: str) -> nn.Conv2d:
    """Return a backbone's first layer.

    Args:
        backbone: of a foundation model.
        user: name of the transfer layer that asks.

    Raises:
        ConfigError: it is not one convolution without groups.
    """
    layer = backbone.first_layer if isinstance(backbone, HasFirstLayer) else None
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
        found = "has no `first_layer`" if layer is None else "has a `first_layer` that is no Conv2d without groups"
        raise ConfigError(
            f"transfer layer {user!r} needs a model whose first layer is one convolution, but the backbone "
            f"{type(backbone).__name__} {found}; use another --mat (mat, mat-residual, linear)"
        )
    return layer


def refitted(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a trainable convolution of the same geometry with other weights.

    Args:
        layer: the convolution.
        weight: (D, C, h, w), h and w those of the layer.
        bias: (D,) or None.
    """
    other = copy.deepcopy(layer)
    other.out_channels, other.in_channels = weight.shape[:2]
    other.weight = nn.Parameter(weight.detach().clone())
    other.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return other


def gray_kernel(layer: nn.Conv2d) -> Tensor:
    """Return the kernel that sees one channel as the layer sees it in all three planes: (D, 1, h, w)."""
    return layer.weight.detach().sum(1, keepdim=True)


class BlankPadding(nn.Module):
    """Give features that see only padding the value the model knows there: its own embedding of zeros.

    Args:
        layer: the pretrained first layer.
        blank: (D,) the features of padding.
    """

    blank: Tensor

    def __init__(self, layer: nn.Conv2d, blank: Tensor) -> None:
        super().__init__()
        height, width = layer.weight.shape[-2:]
        window = refitted(layer, torch.ones(1, 1, height, width), None)
        del window.weight
        window.register_buffer("weight", torch.ones(1, 1, height, width), persistent=False)
        self.window = window
        self.register_buffer("blank", blank.detach().clone(), persistent=False)

    def forward(self, features: Tensor, content: Tensor) -> Tensor:
        """Map features (B, D, h, w) of an input with content (B, S, S) bool to features of that shape."""
        seen = self.window(content[:, None].to(self.window.weight.dtype)) > 0  # (B, 1, h, w)
        return torch.where(seen, features, self.blank[:, None, None].to(features.dtype))


def embedding_of_zeros(layer: nn.Conv2d) -> Tensor:
    """Return what a convolution answers to zeros: (D,)."""
    return layer.weight.new_zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias.detach()
