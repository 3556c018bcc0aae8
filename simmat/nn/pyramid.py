"""A promptable model made of any pyramid of features: levels joined, a prompt decoder, both in one module."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, cast

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.nn.sam_prompts import dense_positions, embed_prompts

LEVELS = 3


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each place of a (B, D, H, W) map."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, D, H, W)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeaturePyramid(nn.Module):
    """One map, or several at strides that double, to three levels of widths dim / 8, dim / 4 and dim.

    Args:
        widths: channels of each map it is given, finest first.
        strides: their strides in input pixels; three or more maps are joined top-down, the three finest strides stay;
            one or two are split further by transposed convolutions.
        dim: channels of the coarsest level, a multiple of 8.

    Attributes:
        strides: of the levels, finest first. A patch of 14 gives 3.5, 7 and 14.
        widths: of the levels.

    Raises:
        ValueError: the strides do not double from map to map.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[float], dim: int) -> None:
        super().__init__()
        if len(widths) != len(strides) or any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(f"a pyramid joins maps whose strides double, got strides {list(strides)}")
        finer = max(LEVELS - len(strides), 0)
        self.strides = tuple(strides[0] / 2**step for step in range(finer, 0, -1)) + tuple(strides)
        self.strides = tuple(int(s) if s == int(s) else s for s in self.strides[:LEVELS])
        self.widths = (dim // 8, dim // 4, dim)
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(width, dim, 1), ChannelNorm(dim)) for width in widths)
        self.smooth = nn.ModuleList(_smooth(dim) for _ in widths[:LEVELS])
        self.split = nn.ModuleList(_split(dim) for _ in range(finer))
        self.narrow = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in self.widths[:-1])

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make levels.

        Args:
            maps: (B, D_m, S / stride_m, S / stride_m), finest first.

        Returns:
            (B, width, S / stride, S / stride) for each of `strides` and `widths`, finest first.
        """
        joined: list[Tensor] = []  # coarsest first
        for lateral, level in zip(reversed(self.lateral), reversed(list(maps)), strict=True):
            own = lateral(level)
            joined.append(own + F.interpolate(joined[-1], scale_factor=2.0) if joined else own)
        levels = [smooth(level) for smooth, level in zip(self.smooth, reversed(joined), strict=False)]
        for split in self.split:
            levels.insert(0, split(levels[0]))
        return (*(narrow(level) for narrow, level in zip(self.narrow, levels, strict=False)), levels[-1])


def _smooth(dim: int) -> nn.Sequential:
    """Mix neighbours after the sum, as both papers do; without the nonlinearity, as they do."""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), ChannelNorm(dim))


def _split(dim: int) -> nn.Sequential:
    """Make a map twice as fine."""
    return nn.Sequential(nn.ConvTranspose2d(dim, dim, 2, stride=2), ChannelNorm(dim), nn.GELU())


class PyramidMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """The package's mask decoder for K prompts over several images, its upscaling joined by two finer levels."""

    def predict(
        self, levels: tuple[Tensor, ...], positions: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Answer K prompts.

        Args:
            levels: (K, D / 8, 4g, 4g), (K, D / 4, 2g, 2g) and (K, D, g, g), prompt k's image at row k.
            positions: (1, D, g, g).
            sparse: (K, N, D) embedded points and boxes.
            dense: (K, D, g, g) embedded masks.

        Returns:
            (K, 4, 4g, 4g) mask logits and (K, 4) predicted IoU.
        """
        finest, finer, level = levels
        count, dim, height, width = level.shape
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(count, -1, -1), sparse], 1)
        out, image = self.transformer(level + dense, positions.expand(count, -1, -1, -1), tokens)
        image = image.transpose(1, 2).reshape(count, dim, height, width)
        double, norm, act, again, last_act = self.output_upscaling
        image = act(norm(double(image) + finer))
        image = last_act(again(image) + finest)  # (K, D / 8, 4g, 4g)
        weights = torch.stack([mlp(out[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        logits = torch.einsum("kmd,kdhw->kmhw", weights, image)
        return logits, self.iou_prediction_head(out[:, 0])


class PyramidDecoder(nn.Module):
    """Masks and their expected IoU from the three levels of a `simmat.nn.pyramid.FeaturePyramid`.

    Args:
        dim: channels of the coarsest level, a multiple of 8.
        grid: its side g.
        image_size: S.
        heads: of the attention.
        hidden: width of the transformer's MLPs.
    """

    def __init__(self, dim: int, grid: int, image_size: int, *, heads: int = 8, hidden: int = 2048) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder(dim, (grid, grid), (image_size, image_size), mask_in_chans=16)
        self.mask_decoder = PyramidMaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=hidden, num_heads=heads),
            iou_head_hidden_dim=dim,
        )

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Answer K prompts: logits (K, 4, 4g, 4g) and iou (K, 4)."""
        sparse, dense = self._embed_prompts(prompts)
        levels = tuple(level.index_select(0, prompts.image_index) for level in embedding.levels)
        positions = dense_positions(self.prompt_encoder, sparse)
        logits, iou = self.mask_decoder.predict(levels, positions, sparse, dense)
        return MaskPrediction(logits.float(), iou.float())

    def _embed_prompts(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Return sparse (K, N, D) and dense (K, D, g, g) embeddings."""
        sparse, dense = embed_prompts(self.prompt_encoder, prompts)
        # What this batch did not ask with gets a gradient of zero, not none: DistributedDataParallel waits for each.
        unused = torch.stack([parameter.sum() for parameter in self.prompt_encoder.parameters()]).sum() * 0.0
        return sparse, dense + unused


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
