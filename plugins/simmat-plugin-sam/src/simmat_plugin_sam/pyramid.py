"""A promptable model from any backbone that gives feature maps: a feature pyramid and a prompt decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat_plugin_sam.layers import MaskDecoder, PromptEncoder, TwoWayTransformer
from simmat_plugin_sam.prompts import dense_positions, embed_prompts

LEVELS = 3


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels at each position of a (B, D, H, W) map."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (B, D, H, W)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeaturePyramid(nn.Module):
    """Three levels of widths dim / 8, dim / 4 and dim, from maps whose strides double.

    Maps are joined top-down, and the three finest strides are kept; with fewer than three maps, transposed convolutions
    add finer levels.

    Args:
        widths: channels of each map, finest first.
        strides: strides of the maps in input pixels.
        dim: channels of the coarsest level, a multiple of 8.

    Attributes:
        strides: strides of the levels, finest first. A patch of 14 gives 3.5, 7 and 14.
        widths: channels of the levels, finest first.

    Raises:
        ValueError: the strides do not double from map to map.
    """

    def __init__(
        self, widths: Sequence[int], strides: Sequence[float], dim: int
    ) -> None:
        super().__init__()
        if len(widths) != len(strides) or any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(
                f"a pyramid needs one stride per width, each twice the one before, got strides {list(strides)}"
            )
        finer = max(LEVELS - len(strides), 0)
        self.strides = tuple(
            strides[0] / 2**step for step in range(finer, 0, -1)
        ) + tuple(strides)
        self.strides = tuple(
            int(s) if s == int(s) else s for s in self.strides[:LEVELS]
        )
        self.widths = (dim // 8, dim // 4, dim)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, dim, 1), ChannelNorm(dim))
            for width in widths
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), ChannelNorm(dim))
            for _ in widths[:LEVELS]
        )
        self.split = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(dim, dim, 2, stride=2), ChannelNorm(dim), nn.GELU()
            )
            for _ in range(finer)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(dim, width, 1) for width in self.widths[:-1]
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map (B, D_m, S / stride_m, S / stride_m), finest first, to levels (B, width, S / stride, S / stride)."""
        joined: list[Tensor] = []  # coarsest first
        for lateral, level in zip(
            reversed(self.lateral), reversed(list(maps)), strict=True
        ):
            same_level = lateral(level)
            joined.append(
                same_level + F.interpolate(joined[-1], scale_factor=2.0)
                if joined
                else same_level
            )
        levels = [
            smooth(level)
            for smooth, level in zip(self.smooth, reversed(joined), strict=False)
        ]
        for split in self.split:
            levels.insert(0, split(levels[0]))
        return (
            *(
                narrow(level)
                for narrow, level in zip(self.narrow, levels, strict=False)
            ),
            levels[-1],
        )


class PyramidMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """Segment Anything's mask decoder, for K prompts over several images and with two finer levels in its upscaling."""

    def predict(
        self,
        levels: tuple[Tensor, ...],
        positions: Tensor,
        sparse: Tensor,
        dense: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict masks for K prompts.

        Args:
            levels: (K, D / 8, 4g, 4g), (K, D / 4, 2g, 2g) and (K, D, g, g), with the image of prompt k at row k.
            positions: (1, D, g, g).
            sparse: (K, N, D) embedded points and boxes.
            dense: (K, D, g, g) embedded masks.

        Returns:
            (K, 4, 4g, 4g) mask logits and (K, 4) predicted IoU.
        """
        finest, finer, level = levels
        count, dim, height, width = level.shape
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(count, -1, -1), sparse], 1)
        out, image = self.transformer(
            level + dense, positions.expand(count, -1, -1, -1), tokens
        )
        image = image.transpose(1, 2).reshape(count, dim, height, width)
        up1, norm, act, up2, last_act = self.output_upscaling
        image = act(norm(up1(image) + finer))
        image = last_act(up2(image) + finest)  # (K, D / 8, 4g, 4g)
        weights = torch.stack(
            [
                mlp(out[:, 1 + i])
                for i, mlp in enumerate(self.output_hypernetworks_mlps)
            ],
            1,
        )
        logits = torch.einsum("kmd,kdhw->kmhw", weights, image)
        return logits, self.iou_prediction_head(out[:, 0])


class PyramidDecoder(nn.Module):
    """Prompt decoder over the three levels of a `FeaturePyramid`.

    Args:
        dim: channels of the coarsest level, a multiple of 8.
        grid: side g of the coarsest level.
        image_size: S.
        heads: attention heads.
        hidden: width of the transformer's MLPs.
    """

    def __init__(
        self,
        dim: int,
        grid: int,
        image_size: int,
        *,
        heads: int = 8,
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder(
            dim, (grid, grid), (image_size, image_size), mask_in_chans=16
        )
        self.mask_decoder = PyramidMaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=dim, mlp_dim=hidden, num_heads=heads
            ),
            iou_head_hidden_dim=dim,
        )

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict masks for K prompts: logits (K, 4, 4g, 4g) and iou (K, 4)."""
        sparse, dense = embed_prompts(self.prompt_encoder, prompts)
        # Unused parameters get a zero gradient instead of None: DistributedDataParallel waits for every gradient.
        unused = (
            torch.stack(
                [parameter.sum() for parameter in self.prompt_encoder.parameters()]
            ).sum()
            * 0.0
        )
        levels = tuple(
            level.index_select(0, prompts.image_index) for level in embedding.levels
        )
        positions = dense_positions(self.prompt_encoder)
        logits, iou = self.mask_decoder.predict(
            levels, positions, sparse, dense + unused
        )
        return MaskPrediction(logits.float(), iou.float())


FRESH = (r"backbone[.]neck[.].*", r"decoder[.].*")
"""`TuningTargets.newly_initialized` of a `PromptableModel`: parameters that no weight file has."""


class FeatureMaps(Protocol):
    """An nn.Module that runs the backbone of a library in two steps."""

    @property
    def widths(self) -> Sequence[int]:
        """Channels of each map, finest first."""

    @property
    def strides(self) -> Sequence[float]:
        """Stride of each map in input pixels; they double from map to map."""

    def embed(self, image: Tensor) -> Tensor:
        """Run the first layer: (B, 3, S, S) -> (B, D, S/k, S/k), see `simmat.foundation.Backbone`."""

    def maps(self, features: Tensor) -> Sequence[Tensor]:
        """Run the rest: return maps (B, width, S / stride, S / stride), finest first."""


class PromptableBackbone(nn.Module):
    """A library's backbone followed by a feature pyramid.

    Attributes:
        body: the library's backbone.
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
        """Run the rest of the body and the pyramid: three levels."""
        return ImageEmbedding(
            self.neck(cast(FeatureMaps, self.body).maps(features)), self.neck.strides
        )


class ConvPromptableBackbone(PromptableBackbone):
    """A `PromptableBackbone` whose first layer is a single convolution, the body's `first_layer`."""

    @property
    def first_layer(self) -> nn.Conv2d:
        """The convolution that `embed` runs."""
        return cast(nn.Conv2d, self.body.first_layer)


class PromptableModel(nn.Module):
    """A `simmat.foundation.FoundationModel` from a library's backbone.

    Pyramid and decoder are random and need training; `FRESH` names their parameters.

    Args:
        body: the library's backbone; if it has `first_layer`, transfer layers can copy or replace that. Its
            `gradient_checkpointing(on=True)`, if any, becomes the model's.
        image_size: S.
        seed: seed of pyramid and decoder; torch's global random state is not changed.
        dim: channels of the decoder, a multiple of 8 and of `heads`.
        heads: heads of the decoder's attention.
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
            # torch.manual_seed would also seed every GPU
            torch.default_generator.manual_seed(seed)
            kind = (
                ConvPromptableBackbone
                if hasattr(body, "first_layer")
                else PromptableBackbone
            )
            self.backbone = kind(body, dim)
            grid = round(image_size / self.backbone.neck.strides[-1])
            self.decoder = PyramidDecoder(
                dim, grid, image_size, heads=heads, hidden=hidden
            )
