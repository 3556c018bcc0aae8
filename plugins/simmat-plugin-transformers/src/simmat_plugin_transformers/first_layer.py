"""The patch embedding of a library's vision encoder, opened at the place where SimMAT's transfer layers come in.

`Backbone.embed` runs the convolution alone and `Backbone.encode` all that follows. The library's encoders take pixels
only, so their convolution is swapped for one that can be handed its answer; the rest of the encoder runs as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class PatchEmbedding(nn.Conv2d):
    """The convolution it replaces, with its very parameters under their names.

    Attributes:
        handed: (B, D, h, w) features that are answered in place of the convolution's, whatever the input.
    """

    handed: Tensor | None

    def __init__(self, source: nn.Conv2d) -> None:
        super().__init__(
            source.in_channels,
            source.out_channels,
            source.kernel_size,  # type: ignore[arg-type]
            stride=source.stride,  # type: ignore[arg-type]
            padding=source.padding,  # type: ignore[arg-type]
            bias=source.bias is not None,
            device="meta",
        )
        self.weight, self.bias = source.weight, source.bias
        self.handed = None

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, D, h, w), or answer what was handed in."""
        return super().forward(input) if self.handed is None else self.handed

    @contextmanager
    def handing(self, features: Tensor) -> Iterator[None]:
        """Answer these features inside the block."""
        self.handed = features
        try:
            yield
        finally:
            self.handed = None


def open_first_layer(model: nn.Module, name: str) -> PatchEmbedding:
    """Swap the convolution called `name` for one that can be handed features, and return it."""
    path, _, leaf = name.rpartition(".")
    parent = model.get_submodule(path)
    opened = PatchEmbedding(getattr(parent, leaf))
    setattr(parent, leaf, opened)
    return opened


def blank_image(features: Tensor, patch: int) -> Tensor:
    """Return (B, 3, S, S) zeros that take no memory: an encoder reads its input's size, and its device, from them."""
    size = features.shape[-1] * patch
    return torch.zeros((), device=features.device).expand(len(features), 3, size, size)
