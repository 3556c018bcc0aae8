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
        options: further arguments of the library's encoder.
    """

    def __init__(self, vision: nn.Module, first_layer: str, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.vision = vision
        self.options = options or {}
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
            return self.vision(blank_image(features, self.first_layer), **self.options)

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute the layers in the backward pass instead of keeping activations: less memory, more time."""
        self._checkpoints = on
        for layer in self._layers():
            layer.gradient_checkpointing = on
            cast(Any, layer)._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def _layers(self) -> list[GradientCheckpointingLayer]:
        return [module for module in self.vision.modules() if isinstance(module, GradientCheckpointingLayer)]


class SamBackbone(VisionEncoder):
    """SAM's and SAM-HQ's ViT with its neck."""

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Run the rest: (B, D, g, g) -> one level (B, 256, g, g), g = S/16.

        For SAM-HQ there is a second level (B, D, g, g), the output of the first global block.
        """
        output = self.run(features)
        early = getattr(output, "intermediate_embeddings", None) or []
        levels = (output.last_hidden_state, *(block.permute(0, 3, 1, 2) for block in early[:1]))
        return ImageEmbedding(levels, (self.patch,) * len(levels))


class PyramidBackbone(VisionEncoder):
    """The encoders of SAM 2 and SAM 3, with their feature pyramids.

    Args:
        vision: the library's encoder.
        first_layer: the convolution inside it.
        no_memory_embedding: (1, 1, D), added to the coarsest level without an earlier frame.
        strides: strides in pixels of the levels that the decoder reads, finest first.
    """

    def __init__(
        self, vision: nn.Module, first_layer: str, no_memory_embedding: nn.Parameter, strides: Sequence[float]
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


class VitBody(VisionEncoder):
    """A bare ViT whose patch tokens are a map: DINO, DINOv2 with and without registers, DINOv3.

    Args:
        vision: the library's encoder.
        first_layer: the convolution inside it.
        width: D, width of a token.
        prefix: number of tokens before the patch tokens (class token and registers).
        options: see `VisionEncoder`.
    """

    def __init__(
        self, vision: nn.Module, first_layer: str, *, width: int, prefix: int, options: dict[str, Any]
    ) -> None:
        super().__init__(vision, first_layer, options)
        self.prefix = prefix
        self.widths, self.strides = (width,), (self.patch,)

    def maps(self, features: Tensor) -> tuple[Tensor]:
        """Run the rest: (B, D, g, g) -> one map (B, D, g, g), after the last norm."""
        tokens = self.run(features).last_hidden_state[:, self.prefix :]  # (B, g·g, D)
        return (tokens.transpose(1, 2).unflatten(2, tuple(features.shape[-2:])),)
