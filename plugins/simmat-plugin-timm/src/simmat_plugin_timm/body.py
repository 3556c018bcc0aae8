"""A network of timm in two steps: its first convolution, and the rest.

The rest is timm's own forward pass, whose first convolution returns the given features. So position embeddings, class
and register tokens, windows and norms are timm's, to the bit.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from simmat.nn.first_layer import OverridableConv2d, blank_image, make_overridable
from simmat_plugin_timm.architectures import Architecture
from simmat_plugin_timm.network import first_layer_name, levels_of


class TimmBody(nn.Module):
    """A network of timm as `simmat_plugin_sam.pyramid.FeatureMaps`.

    Args:
        network: the network without its head.
        architecture: its architecture.

    Attributes:
        model: the network.
        widths: channels of its levels, finest first.
        strides: strides of its levels in pixels.
        gradient_checkpointing: recompute blocks in the backward pass to save memory; only if the network supports it.
    """

    def __init__(self, network: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self._levels = levels_of(network, architecture)
        self.widths, self.strides = self._levels.widths, self._levels.strides
        self.model = network
        self._final_norm = architecture.final_norm
        self._first_name = first_layer_name(network)
        make_overridable(network, self._first_name)
        if _has_checkpointing(network):
            self.gradient_checkpointing = network.set_grad_checkpointing

    @property
    def first_layer(self) -> OverridableConv2d:
        """The network's first convolution."""
        return cast(OverridableConv2d, self.model.get_submodule(self._first_name))

    def embed(self, image: Tensor) -> Tensor:
        """Run the first convolution: (B, 3, S, S) to (B, D, S/k, S/k)."""
        features: Tensor = self.first_layer(image)
        return features

    def maps(self, features: Tensor) -> list[Tensor]:
        """Run the rest: return one map (B, width, S / stride, S / stride) per level."""
        first = self.first_layer
        with first.override(features):
            maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
                blank_image(features, first),
                indices=list(self._levels.indices),
                norm=self._final_norm,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        return maps


def _has_checkpointing(network: nn.Module) -> bool:
    """True if timm supports gradient checkpointing of a network; it raises an AssertionError if not."""
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except AssertionError:
        return False
    network.set_grad_checkpointing(False)  # type: ignore[operator]
    return True
