"""The interface of a foundation model: a backbone that encodes images, a decoder that predicts masks for prompts.

Tensors: B images, K prompts over all images of a batch, S the square input size in pixels. No torch is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_PROMPTS = 16
"""Prompts that are decoded together, which bounds the memory of their masks."""


@dataclass(frozen=True)
class ImageEmbedding:
    """A backbone's embedding of a batch of images, computed once for any number of prompts.

    Attributes:
        levels: L tensors (B, D_l, S / stride_l, S / stride_l), finest first.
        strides: L strides in input pixels; 3.5 where patches of 14 pixels are split in four.
    """

    levels: tuple[Tensor, ...]
    strides: tuple[float, ...]


@dataclass(frozen=True)
class PromptBatch:
    """K prompts over the images of a batch, all of one kind (N points each, box or none).

    Attributes:
        image_index: (K,) int64; prompt k belongs to image `image_index[k]`.
        point_coords: (K, N, 2) float32 xy in pixels of the S×S input; (0, 0) is a pixel's centre. N may be 0.
        point_labels: (K, N) int64; 1 on the object, 0 not on it, -1 no point.
        boxes: (K, 4) float32 XYXY of their outer edges, from 0 to S, or None; see `Prompt.box`.
        mask_input: (K, 1, h, w) logits of an earlier prediction at the decoder's own mask size, or None.
    """

    image_index: Tensor
    point_coords: Tensor
    point_labels: Tensor
    boxes: Tensor | None = None
    mask_input: Tensor | None = None


@dataclass(frozen=True)
class MaskPrediction:
    """A decoder's prediction for K prompts.

    Attributes:
        logits: (K, M, h, w) mask logits over the whole S×S input, > 0 is object. Mask 0 is the single prediction;
            1 to M-1, if any, are the alternatives for an ambiguous prompt.
        iou: (K, M) predicted IoU of each mask.
    """

    logits: Tensor
    iou: Tensor


class Backbone(Protocol):
    """The image side of a foundation model; an nn.Module.

    Where `embed` is one convolution, it should have a `first_layer`, see `HasFirstLayer`; if the embedding can have
    finer levels than its decoder takes, it should have `finer_levels`, see `HasFinerLevels`.
    """

    def embed(self, image: Tensor) -> Tensor:
        """Run the pretrained first layer: (B, 3, S, S), normalized as the spec says -> its features.

        It is a patch embedding or conv stem, before position embedding and normalization layers.
        """

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Run the rest of the backbone on the first layer's features."""


class HasFirstLayer(Protocol):
    """A backbone whose first layer is one convolution; transfer layers that replace or copy it need this."""

    @property
    def first_layer(self) -> nn.Conv2d:
        """The module that `embed` runs, without groups: `embed(image)` equals `first_layer(image)`.

        With a transfer layer of output "features" it is not run, so it is not trained.
        """


class HasFinerLevels(Protocol):
    """A backbone that can add levels for a dense head, finer than those that its decoder takes.

    Attributes:
        finer_levels: whether it does; False, as built.
    """

    finer_levels: bool


class Memory(Protocol):
    """Tokens that a tuner adds to the keys and values of an attention; an nn.Module.

    Attributes:
        kind: "prompt": tokens, projected as all others; "prefix": keys and values.
    """

    kind: Literal["prompt", "prefix"]

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return the additional keys and values, (N, D) each; for a prompt both are the same tokens."""


class TunableAttention(Protocol):
    """What prompt and prefix tuning need of the modules that `TuningTargets.attention` names; each an nn.Module.

    Attributes:
        width: D of a token before its projections.
        memory: additional keys and values, set by a tuner; None, as built, changes nothing. A prompt is projected by
            the attention's own layers; a prefix is added before or after them, as the attention defines. Additions
            have no position and no query. See `simmat.nn.tuners.join_memory` for attention with a fused qkv.
    """

    width: int
    memory: Memory | None


class PromptDecoder(Protocol):
    """The prompt side of a foundation model; an nn.Module."""

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict masks for every prompt of the batch."""


class FoundationModel(Protocol):
    """A backbone and a prompt decoder in one nn.Module."""

    backbone: Backbone
    decoder: PromptDecoder

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of nn.Module."""

    def state_dict(self) -> dict[str, Any]:
        """As of nn.Module."""
