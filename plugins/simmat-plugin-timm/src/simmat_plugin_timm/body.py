"""A network of timm in two steps: its first convolution, and the rest.

The rest is timm's own forward pass. Its convolution is handed the features it would compute, so position embeddings,
class and register tokens, windows and norms are timm's, to the bit.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from simmat.nn.first_layer import HandedConvolution, blank_image, open_first_layer
from simmat_plugin_timm.architectures import Architecture
from simmat_plugin_timm.network import first_layer_name, levels_of


class TimmBody(nn.Module):
    """A network of timm as `simmat.nn.pyramid.FeatureMaps`.

    Args:
        network: one that was stripped of its head.
        architecture: what it is.

    Attributes:
        model: the network.
        widths: channels of its levels, finest first.
        strides: of its levels, in pixels.
        gradient_checkpointing: trades time for memory in training, recomputing blocks on the way back; there only where
            timm's network can.
    """

    def __init__(self, network: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self._levels = levels_of(network, architecture)
        self.widths, self.strides = self._levels.widths, self._levels.strides
        self.model = network
        self._final_norm = architecture.final_norm
        self._first_name = first_layer_name(network)
        open_first_layer(network, self._first_name)
        if _recomputes(network):
            self.gradient_checkpointing = network.set_grad_checkpointing

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
                indices=list(self._levels.indices),
                norm=self._final_norm,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        return _beside(maps, self._levels.enlarge)


def _beside(maps: list[Tensor], enlarge: tuple[int, ...]) -> list[Tensor]:
    """Lay the last maps, each enlarged so many times, beside the one before them."""
    if not enlarge:
        return maps
    kept = len(maps) - len(enlarge)
    height, width = maps[kept - 1].shape[-2:]
    larger = [coarse.repeat_interleave(times, -2).repeat_interleave(times, -1)[..., :height, :width]
              for coarse, times in zip(maps[kept:], enlarge, strict=True)]  # fmt: skip
    return [*maps[: kept - 1], torch.cat([maps[kept - 1], *larger], 1)]


def _recomputes(network: nn.Module) -> bool:
    """True where timm can recompute a network's blocks; where it cannot, it says so by an assertion."""
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except AssertionError:
        return False
    network.set_grad_checkpointing(False)  # type: ignore[operator]
    return True
