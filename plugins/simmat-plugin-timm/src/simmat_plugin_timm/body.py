"""A network of timm in two steps: its first convolution, and the rest.

The rest is timm's own forward pass. Its convolution is handed the features it would compute, so position embeddings,
class and register tokens, windows and norms are timm's, to the bit.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from simmat_plugin_timm.architectures import Architecture
from simmat_plugin_timm.network import level_table


class FirstLayer(nn.Module):
    """A convolution that may be handed its answer.

    Attributes:
        conv: the convolution.
        handed: what to answer instead of running it, or None.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.handed: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, D, S/k, S/k)."""
        if self.handed is not None:
            return self.handed
        features: Tensor = self.conv(image)
        return features


class TimmBody(nn.Module):
    """A network of timm as `simmat.nn.promptable.FeatureMaps`.

    Args:
        network: one that was stripped of its head.
        architecture: what it is.

    Attributes:
        model: the network.
        widths: channels of its levels, finest first.
        strides: of its levels, in pixels.
    """

    def __init__(self, network: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self.widths, self.strides = level_table(network, architecture)
        self.model = network
        self._indices = list(range(len(self.widths))) if architecture.every_level else 1
        self._final_norm = architecture.final_norm
        network.patch_embed.proj = FirstLayer(network.patch_embed.proj)  # type: ignore[union-attr,arg-type]

    @property
    def first_layer(self) -> nn.Conv2d:
        """The patch embedding's convolution."""
        return self._first.conv

    @property
    def _first(self) -> FirstLayer:
        return cast(FirstLayer, self.model.patch_embed.proj)  # type: ignore[union-attr]

    def embed(self, image: Tensor) -> Tensor:
        """Embed patches: (B, 3, S, S) to (B, D, S/k, S/k)."""
        features: Tensor = self.first_layer(image)
        return features

    def maps(self, features: Tensor) -> list[Tensor]:
        """Run the rest: one map (B, width, S / stride, S / stride) for each level."""
        batch, _, height, width = features.shape
        down, along = (int(step) for step in self.first_layer.stride)
        # The network asks an image for its shape alone; this one takes no memory.
        blank = features.new_zeros(1, 1, 1, 1).expand(batch, 3, height * down, width * along)
        first = self._first
        first.handed = features
        try:
            maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
                blank, indices=self._indices, norm=self._final_norm, output_fmt="NCHW", intermediates_only=True
            )
        finally:
            first.handed = None
        return maps

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Trade time for memory in training: recompute blocks on the way back."""
        self.model.set_grad_checkpointing(on)  # type: ignore[operator]
