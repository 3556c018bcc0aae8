"""The network of a sensor: transfer layer, foundation model and dense head as one module."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from simmat.errors import PluginError
from simmat.foundation import (
    FoundationModel,
    ImageEmbedding,
    MaskPrediction,
    PromptBatch,
)
from simmat.nn.dense_head import DenseHead
from simmat.plugin_specs import (
    Output,
)
from simmat.types import SensorImage


class SimMAT(nn.Module):
    """Sensor planes in, mask logits out: MAT -> first layer -> backbone -> prompt decoder.

    Attributes:
        output: what the transfer layer returns, see `TransferLayerSpec.output`.
        layer: name of the transfer layer, for messages.
        dense: class map and object centres from the same embedding; None if the network answers prompts only.
    """

    def __init__(
        self,
        mat: nn.Module,
        foundation: FoundationModel,
        output: Output,
        dense: DenseHead | None = None,
        *,
        layer: str = "",
    ) -> None:
        super().__init__()
        self.layer = layer
        self.mat = mat
        self.foundation = cast(nn.Module, foundation)
        self.output = output
        self.dense = dense

    def for_image(self, image: SensorImage) -> SimMAT:
        """Return the network that encodes an image; exported models that prepare images themselves get it here."""
        return self

    def encode(self, planes: Tensor, content: Tensor | None = None) -> ImageEmbedding:
        """Encode a batch of images.

        Args:
            planes: (B, C, S, S) float, normalized; 0 at invalid and padded pixels.
            content: (B, S, S) bool, False on padding; None for images without padding.

        Raises:
            PluginError: the transfer layer returned an image of another shape.
        """
        if content is None:
            content = torch.ones_like(planes[:, 0], dtype=torch.bool)
        backbone = cast(FoundationModel, self.foundation).backbone
        if self.output == "features":
            return backbone.encode(self.mat(planes, content))
        if self.output == "image":
            image = self.mat(planes)
            added = None
        else:
            image, added = self.mat(planes, content)
        if image.shape != (len(planes), 3, *planes.shape[2:]):
            raise PluginError(
                f"transfer layer {self.layer!r} must return an image of {(len(planes), 3, *planes.shape[2:])}, got "
                f"{tuple(image.shape)}; this is a fault of its plugin"
            )
        # A convolution's bias makes padding non-zero; the foundation model was trained with zero padding.
        features = backbone.embed(image * content[:, None])
        return backbone.encode(features if added is None else features + added)

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict masks for K prompts over the images of an embedding."""
        return cast(FoundationModel, self.foundation).decoder.decode(embedding, prompts)

    def forward(
        self, planes: Tensor, content: Tensor | None, prompts: PromptBatch
    ) -> MaskPrediction:
        """Encode and decode, see `encode`; what wraps a module, such as DistributedDataParallel, sees this call."""
        return self.decode(self.encode(planes, content), prompts)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of (trainable, all) parameters; a shared one counts once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(
        p.numel() for p in parameters
    )
