"""The first layer of a backbone, for transfer layers that copy or replace it, and for models of a library.

`Backbone.embed` runs the first layer and `Backbone.encode` the rest, but the network of a library takes only pixels.
So its first convolution is made to return given features, and the rest of the network runs unchanged on a blank image.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.types import Channel


def first_layer_of(backbone: object, user: str) -> nn.Conv2d:
    """Return a backbone's first layer.

    Args:
        backbone: the backbone of a foundation model.
        user: name of the transfer layer that needs it.

    Raises:
        ConfigError: the layer is not one convolution without groups.
    """
    layer = getattr(backbone, "first_layer", None)
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
        if layer is None:
            found = "has no `first_layer`"
        else:
            found = "has a `first_layer` that is not a Conv2d without groups"
        raise ConfigError(
            f"transfer layer {user!r} needs a model whose first layer is one convolution, but the backbone "
            f"{type(backbone).__name__} {found}; use another --mat (mat, mat-residual, linear)"
        )
    return layer


def refitted(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a trainable convolution of the same class and geometry with other weights.

    Args:
        weight: (D, C, h, w), with the layer's h and w.
        bias: (D,) or None.
    """
    refit = copy.deepcopy(layer)
    refit.out_channels, refit.in_channels = weight.shape[:2]
    refit.weight = nn.Parameter(weight.detach().clone())
    refit.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return refit


def gray_kernel(layer: nn.Conv2d) -> Tensor:
    """Return the one-channel kernel (D, 1, h, w) that gives the layer's output for three equal planes."""
    return layer.weight.detach().sum(1, keepdim=True)


class BlankPadding(nn.Module):
    """Replaces the features of windows that contain only padding.

    Args:
        blank: (D,) features to put there; None for those that the layer gives for zeros.
    """

    blank: Tensor

    def __init__(self, layer: nn.Conv2d, blank: Tensor | None = None) -> None:
        super().__init__()
        height, width = layer.weight.shape[-2:]
        window = refitted(layer, torch.ones(1, 1, height, width), None)
        del window.weight
        window.register_buffer(
            "weight", torch.ones(1, 1, height, width), persistent=False
        )
        self.window = window
        if blank is None:
            blank = (
                layer.weight.new_zeros(layer.out_channels)
                if layer.bias is None
                else layer.bias
            )
        self.register_buffer("blank", blank.detach().clone(), persistent=False)

    def forward(self, features: Tensor, content: Tensor) -> Tensor:
        """Map features (B, D, h, w) to the same shape; content (B, S, S) bool is False on padding."""
        # (B, 1, h, w)
        has_content = self.window(content[:, None].to(self.window.weight.dtype)) > 0
        return torch.where(
            has_content, features, self.blank[:, None, None].to(features.dtype)
        )


class ReplacedFirstLayer(nn.Module):
    """A first layer that replaces the pretrained one.

    Args:
        before: applied to the planes first, (B, C, S, S) -> (B, N, S, S).
        embed: maps N planes to features (B, D, h, w).
        layer: the pretrained layer, whose features padding gets.
    """

    def __init__(self, before: nn.Module, embed: nn.Conv2d, layer: nn.Conv2d) -> None:
        super().__init__()
        self.before = before
        self.embed = embed
        self.padding = BlankPadding(layer)

    def forward(self, planes: Tensor, content: Tensor) -> Tensor:
        """Map planes (B, C, S, S) and content (B, S, S) to features (B, D, h, w)."""
        image = self.before(planes) * content[:, None]
        features: Tensor = self.padding(self.embed(image), content)
        return features


def widened_kernel(layer: nn.Conv2d, channels: int) -> Tensor:
    """Return a pretrained kernel for another number of channels: (D, channels, h, w).

    One channel gets the sum over R, G and B. More get these cyclically, scaled by 3 / channels, so that equal channels
    give the features that three equal channels gave.
    """
    if channels == 1:
        return gray_kernel(layer)
    source = torch.arange(channels, device=layer.weight.device) % layer.in_channels
    return layer.weight.detach()[:, source] * (layer.in_channels / channels)


def build_first_conv(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build a trainable first layer for C channels from the pretrained one.

    Raises:
        ConfigError: the model's first layer is not one convolution.
    """
    layer = first_layer_of(backbone, "first-conv")
    widened = refitted(layer, widened_kernel(layer, len(channels)), layer.bias)
    return ReplacedFirstLayer(nn.Identity(), widened, layer)


_OVERRIDES: ContextVar[Mapping[int, Tensor]] = ContextVar("overrides", default={})  # noqa: B039 (it is replaced, not changed)
"""id of a convolution -> features (B, D, h, w) to return; a value per thread, as threads may share a network."""


class OverridableConv2d(nn.Conv2d):
    """A convolution whose output can be given."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, S, S) to (B, D, h, w), or return the given features."""
        features = _OVERRIDES.get().get(id(self))
        if features is None:
            return super().forward(input)
        return features

    @contextmanager
    def override(self, features: Tensor) -> Iterator[None]:
        """Return the features (B, D, h, w) inside the block, whatever the input."""
        token = _OVERRIDES.set({**_OVERRIDES.get(), id(self): features})
        try:
            yield
        finally:
            _OVERRIDES.reset(token)


def make_overridable(model: nn.Module, name: str) -> OverridableConv2d:
    """Turn the convolution `name` into a `OverridableConv2d`, in place; parameters keep their names."""
    layer = model.get_submodule(name)
    kind = type(layer)
    # A subclass of the layer's own class keeps its padding rule; only `forward` changes, so nothing is copied.
    layer.__class__ = type(f"Overridable{kind.__name__}", (OverridableConv2d, kind), {})
    assert isinstance(layer, OverridableConv2d)
    return layer


def blank_image(features: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return an expanded zero as an image of the size that gives features of this size.

    Args:
        features: (B, D, h, w), the layer's output.

    Returns:
        (B, C, h · stride, w · stride).
    """
    size = [
        length * step
        for length, step in zip(features.shape[-2:], layer.stride, strict=True)
    ]
    return torch.zeros((), device=features.device).expand(
        features.shape[0], layer.in_channels, *size
    )
