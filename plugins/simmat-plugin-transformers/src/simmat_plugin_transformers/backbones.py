"""The library's vision encoders in two steps: the first convolution, and the rest, run by the library."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from simmat.foundation import ImageEmbedding
from simmat.nn.first_layer import OverridableConv2d, blank_image, make_overridable


class VisionEncoder(nn.Module):
    """A vision encoder of the library, split after its patch embedding.

    Attributes:
        vision: the library's encoder.
        patch: side of a patch in pixels.
    """

    def __init__(self, vision: nn.Module, first_layer: str) -> None:
        super().__init__()
        self.vision = vision
        self._first = first_layer
        self._checkpoints = False
        self.patch = int(make_overridable(vision, first_layer).stride[0])

    @property
    def first_layer(self) -> OverridableConv2d:
        """The patch embedding."""
        return cast(OverridableConv2d, self.vision.get_submodule(self._first))

    def embed(self, image: Tensor) -> Tensor:
        """Embed patches: (B, 3, S, S) -> (B, D, S/patch, S/patch)."""
        embedded: Tensor = self.first_layer(image)
        return embedded

    def run(self, features: Tensor) -> Any:
        """Return the output of the library's encoder for features (B, D, S/patch, S/patch) of its patch embedding."""
        if self._checkpoints and torch.is_grad_enabled():
            for layer in self._layers():
                # The library recomputes only layers in training mode, and frozen ones are not. The flag of the layer
                # itself has no other effect; the modules inside it keep theirs.
                layer.training = True
        with self.first_layer.override(features):
            return self.vision(blank_image(features, self.first_layer))

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute the layers in the backward pass instead of keeping activations: less memory, more time."""
        self._checkpoints = on
        for layer in self._layers():
            layer.gradient_checkpointing = on
            cast(Any, layer)._gradient_checkpointing_func = partial(
                checkpoint, use_reentrant=False
            )

    def _layers(self) -> list[GradientCheckpointingLayer]:
        return [
            module
            for module in self.vision.modules()
            if isinstance(module, GradientCheckpointingLayer)
        ]


class HfSamBackbone(VisionEncoder):
    """SAM's ViT with its neck."""

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Run the rest: (B, D, g, g) -> one level (B, 256, g, g), g = S/16."""
        return ImageEmbedding((self.run(features).last_hidden_state,), (self.patch,))


class PyramidBackbone(VisionEncoder):
    """The encoders of SAM 2 and SAM 3, with their feature pyramids.

    Args:
        vision: the library's encoder.
        first_layer: the convolution inside it.
        no_memory_embedding: (1, 1, D), added to the coarsest level without an earlier frame.
        strides: strides in pixels of the levels that the decoder reads, finest first.
    """

    def __init__(
        self,
        vision: nn.Module,
        first_layer: str,
        no_memory_embedding: nn.Parameter,
        strides: Sequence[float],
    ) -> None:
        super().__init__(vision, first_layer)
        self.no_memory_embedding = no_memory_embedding
        self.strides = tuple(strides)
        neck = cast(Any, vision).neck
        if hasattr(neck, "fpn_layers"):
            # The published SAM 3 has a fourth, coarser level that no decoder reads: it would get no gradient, and the
            # embedding for the third level would be added to it.
            neck.fpn_layers = neck.fpn_layers[: len(self.strides)]

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Run the rest: (B, D, g, g) -> levels (B, 256, S/stride, S/stride), finest first."""
        maps = list(self.run(features).fpn_hidden_states)
        maps[-1] = maps[-1] + self.no_memory_embedding.reshape(1, -1, 1, 1)
        return ImageEmbedding(tuple(maps), self.strides)
