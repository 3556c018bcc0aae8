"""A network of timm in two steps: its first convolution, and the rest.

The rest is timm's own forward pass. Its convolution is handed the features it would compute, so position embeddings,
class and register tokens, windows and norms are timm's, to the bit.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from simmat.nn.first_layer import HandedConvolution, blank_image, open_first_layer
from simmat_plugin_timm.architectures import Architecture
from simmat_plugin_timm.network import level_indices, level_table


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
        self._indices = level_indices(network, architecture)
        self._final_norm = architecture.final_norm
        self._first_name = architecture.first_layer
        open_first_layer(network, architecture.first_layer)

    @property
    def first_layer(self) -> nn.Conv2d:
        """The convolution that everything begins with."""
        return self._first

    @property
    def _first(self) -> HandedConvolution:
        return cast(HandedConvolution, self.model.get_submodule(self._first_name))

    def embed(self, image: Tensor) -> Tensor:
        """Run the first convolution: (B, 3, S, S) to (B, D, S/k, S/k)."""
        features: Tensor = self._first(image)
        return features

    def maps(self, features: Tensor) -> list[Tensor]:
        """Run the rest: one map (B, width, S / stride, S / stride) for each level."""
        with self._first.handing(features):
            maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
                blank_image(features, self._first),
                indices=self._indices,
                norm=self._final_norm,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        return maps

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Trade time for memory in training: recompute blocks on the way back."""
        self.model.set_grad_checkpointing(on)  # type: ignore[operator]
