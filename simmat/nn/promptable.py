"""A bare backbone made promptable: pyramid and decoder added to whatever gives maps of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from simmat.foundation import ImageEmbedding
from simmat.nn.pyramid import FeaturePyramid
from simmat.nn.pyramid_decoder import PyramidDecoder

FRESH = (r"backbone[.]neck[.].*", r"decoder[.].*")
"""`TuningTargets.fresh` of a `PromptableModel`: what no weight file fills."""


class FeatureMaps(Protocol):
    """A library's backbone in two steps; an nn.Module."""

    @property
    def widths(self) -> Sequence[int]:
        """Channels of each map, finest first."""

    @property
    def strides(self) -> Sequence[float]:
        """Stride of each map in input pixels; they double from map to map."""

    def embed(self, image: Tensor) -> Tensor:
        """Run the first layer: (B, 3, S, S) -> (B, D, S/k, S/k), see `simmat.foundation.Backbone`."""

    def maps(self, features: Tensor) -> Sequence[Tensor]:
        """Run the rest: maps (B, width, S / stride, S / stride) for each of `widths` and `strides`, finest first."""


class PromptableBackbone(nn.Module):
    """A library's backbone with a feature pyramid behind it.

    Attributes:
        body: the library's, pretrained.
        neck: the pyramid.
    """

    def __init__(self, body: FeatureMaps, dim: int) -> None:
        super().__init__()
        self.body = cast(nn.Module, body)
        self.neck = FeaturePyramid(body.widths, body.strides, dim)

    def embed(self, image: Tensor) -> Tensor:
        """Run the body's first layer."""
        return cast(FeatureMaps, self.body).embed(image)

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Run the rest of the body, and the pyramid: three levels."""
        return ImageEmbedding(self.neck(cast(FeatureMaps, self.body).maps(features)), self.neck.strides)


class ConvPromptableBackbone(PromptableBackbone):
    """One whose body's first layer is a single convolution, its `first_layer`."""

    @property
    def first_layer(self) -> nn.Conv2d:
        """The convolution that `embed` runs."""
        return cast(nn.Conv2d, self.body.first_layer)


class PromptableModel(nn.Module):
    """A foundation model from a library's bare backbone, as `simmat.foundation.FoundationModel` says.

    Pyramid and decoder are random from the seed: they need training, and `FRESH` names their parameters.

    Args:
        name: of its spec.
        body: the library's backbone; one with `first_layer` is open to the transfer layers that copy or replace it.
            `gradient_checkpointing(on=True)` is the model's too, where the backbone has it.
        image_size: S.
        seed: of pyramid and decoder; torch's own state is left alone.
        dim: channels of the decoder, a multiple of 8 and of `heads`.
        heads: of the decoder's attention.
        hidden: width of the decoder's MLPs.
    """

    def __init__(
        self,
        name: str,
        body: FeatureMaps,
        *,
        image_size: int,
        seed: int,
        dim: int = 256,
        heads: int = 8,
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        self.name = name
        self.image_size = image_size
        if hasattr(body, "gradient_checkpointing"):
            self.gradient_checkpointing = body.gradient_checkpointing
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
            kind = ConvPromptableBackbone if hasattr(body, "first_layer") else PromptableBackbone
            self.backbone = kind(body, dim)
            grid = round(image_size / self.backbone.neck.strides[-1])
            self.decoder = PyramidDecoder(dim, grid, image_size, heads=heads, hidden=hidden)
