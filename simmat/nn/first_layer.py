"""The first layer of a backbone, for transfer layers that copy or replace it, and for models of a library.

Whatever class a model's convolution is (some pad by their own rule), a copy with other weights keeps its geometry.

`Backbone.embed` runs the first layer alone and `Backbone.encode` all that follows, but a library's network takes pixels
only. So its convolution is opened: handed the features it would compute, it answers them, and the rest of the network
runs as the library wrote it, on a blank image.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.foundation import has_first_layer


def first_layer_of(backbone: object, user: str) -> nn.Conv2d:
    """Return a backbone's first layer.

    Args:
        backbone: of a foundation model.
        user: name of the transfer layer that asks.

    Raises:
        ConfigError: it is not one convolution without groups.
    """
    layer = backbone.first_layer if has_first_layer(backbone) else None
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


_HANDED: ContextVar[Mapping[int, Tensor]] = ContextVar("handed", default={})  # noqa: B039 (it is replaced, not changed)
"""id of a convolution -> (B, D, h, w) what it was handed: of each thread its own, for threads may share a network."""


class HandedConvolution(nn.Conv2d):
    """A convolution that may be handed its answer."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, S, S) to (B, D, h, w), or answer what was handed in."""
        handed = _HANDED.get().get(id(self))
        return super().forward(input) if handed is None else handed

    @contextmanager
    def handing(self, features: Tensor) -> Iterator[None]:
        """Answer these features (B, D, h, w) inside the block, whatever the input."""
        token = _HANDED.set({**_HANDED.get(), id(self): features})
        try:
            yield
        finally:
            _HANDED.reset(token)


def open_first_layer(model: nn.Module, name: str) -> HandedConvolution:
    """Let the convolution called `name` be handed its answer; it stays in its place, parameters under their names."""
    layer = model.get_submodule(name)
    kind = type(layer)
    # Only behaviour is added, so the object itself changes class: a convolution that pads by its own rule keeps it.
    layer.__class__ = type(f"Handed{kind.__name__}", (HandedConvolution, kind), {})
    assert isinstance(layer, HandedConvolution)
    return layer


def blank_image(features: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return the image that a first layer's features stand for, as zeros that take no memory.

    A network asks it for its size and device alone.

    Args:
        features: (B, D, h, w), what the layer would answer.
        layer: the first layer.

    Returns:
        (B, C, h · stride, w · stride).
    """
    size = [length * step for length, step in zip(features.shape[-2:], layer.stride, strict=True)]
    return torch.zeros((), device=features.device).expand(len(features), layer.in_channels, *size)
