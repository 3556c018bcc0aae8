"""`tiny`: a promptable vision transformer of 0.2 M parameters with random weights, for tests.

It has every kind of layer that transfer layers and tuners look for.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simmat.errors import DataError
from simmat.foundation import ImageEmbedding, MaskPrediction, Memory, PromptBatch
from simmat.nn.tensor_files import load_weights
from simmat.nn.tuners import join_memory
from simmat.plugin_specs import FoundationSpec

PATCH = 16
"""Side of a patch in pixels."""
MASKS = 4


def positions(coords: Tensor, width: int) -> Tensor:
    """Return sines and cosines (…, D) of coordinates (…, 2) xy in 0..1, in full precision."""
    frequencies = torch.pi * 2.0 ** torch.linspace(
        0, 6, width // 4, device=coords.device
    )
    angles = (coords.float()[..., None] * frequencies).flatten(-2)  # (…, D / 2)
    return torch.cat([angles.sin(), angles.cos()], -1)


def grid_positions(side: int, width: int, like: Tensor) -> Tensor:
    """Return the positions (side, side, D) of the patches' centres."""
    centres = (torch.arange(side, device=like.device) + 0.5) / side
    return positions(
        torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1), width
    )


class SelfAttention(nn.Module):
    """Attention over the (B, H, W, D) tokens of an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.memory: Memory | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, D) to (B, H, W, D)."""
        q, k, v = (
            self.qkv(x)
            .flatten(1, 2)
            .unflatten(-1, (3, self.heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        if self.memory is not None:
            k, v = join_memory(k, v, self.memory, self.qkv)
        attended: Tensor = self.proj(
            F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        )
        return attended


class CrossAttention(nn.Module):
    """Attention of tokens to other tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(width, width, bias=False) for _ in range(3)
        )
        self.out_proj = nn.Linear(width, width)
        self.memory: Memory | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map queries (K, Q, D), keys and values (K, N, D) to (K, Q, D)."""
        if self.memory is not None:
            keys, values = (
                tokens.expand(k.shape[0], -1, -1) for tokens in self.memory()
            )
            k, v = (
                torch.cat([k, keys.to(k.dtype)], 1),
                torch.cat([v, values.to(v.dtype)], 1),
            )
        projected = (
            layer(x)
            for layer, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        heads = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        attended: Tensor = self.out_proj(
            F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        )
        return attended


def mlp(width: int) -> nn.Sequential:
    """Make the MLP of a block."""
    return nn.Sequential(
        nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
    )


class Block(nn.Module):
    """A block of the backbone."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = SelfAttention(width, heads), mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, D) to (B, H, W, D)."""
        x = x + self.attn(self.norm1(x))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class TwoWayBlock(nn.Module):
    """A block of the decoder: tokens attend to the image, then the image to the tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.to_image, self.to_tokens = (
            CrossAttention(width, heads),
            CrossAttention(width, heads),
        )
        self.mlp, self.norm = mlp(width), nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, image: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map tokens (K, T, D) and image (K, N, D) with its positions (N, D) to new ones."""
        tokens = tokens + self.to_image(tokens, image + places, image)
        tokens = self.norm(tokens + self.mlp(tokens))
        return tokens, image + self.to_tokens(image + places, tokens, tokens)


class TinyBackbone(nn.Module):
    """The interface `simmat.foundation.Backbone`."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.first_layer = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.neck = nn.Conv2d(width, width, 1)
        self.recompute_blocks = False

    def embed(self, image: Tensor) -> Tensor:
        """Embed patches: (B, 3, S, S) to (B, D, S/16, S/16)."""
        features: Tensor = self.first_layer(image)
        return features

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Return one level (B, D, S/16, S/16)."""
        places = grid_positions(features.shape[-1], features.shape[1], features)
        tokens = features.permute(0, 2, 3, 1) + places
        for block in self.blocks:
            recompute = self.recompute_blocks and torch.is_grad_enabled()
            tokens = (
                checkpoint(block, tokens, use_reentrant=False)
                if recompute
                else block(tokens)
            )
        return ImageEmbedding((self.neck(tokens.permute(0, 3, 1, 2)),), (PATCH,))


class PromptEncoder(nn.Module):
    """Points, boxes and masks as tokens and as a map; never trained."""

    def __init__(self, width: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        # none, background, object, and the two corners of a box
        self.kinds = nn.Embedding(5, width)
        self.mask = nn.Conv2d(1, width, 4, stride=4)

    def forward(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Return tokens (K, T, D) and a map (K, D, S/16, S/16), or (1, D, 1, 1) zeros without masks."""
        if (
            not prompts.point_coords.shape[1]
            and prompts.boxes is None
            and prompts.mask_input is None
        ):
            raise DataError("a prompt needs at least one point, a box or a mask")
        side = self.image_size // 4
        if prompts.mask_input is not None and tuple(prompts.mask_input.shape[1:]) != (
            1,
            side,
            side,
        ):
            got = tuple(prompts.mask_input.shape)
            raise DataError(
                f"mask_input must be (K, 1, {side}, {side}) logits, got {got}"
            )
        coords, labels = prompts.point_coords + 0.5, prompts.point_labels
        if prompts.boxes is not None:
            coords = torch.cat([coords, prompts.boxes.reshape(-1, 2, 2)], 1)
            labels = F.pad(F.pad(labels, (0, 1), value=2), (0, 1), value=3)
        places = positions(coords / self.image_size, self.kinds.embedding_dim)
        tokens = torch.where((labels >= 0)[..., None], places, 0.0) + self.kinds(
            labels + 1
        )
        if prompts.mask_input is None:
            return tokens, tokens.new_zeros(1, tokens.shape[-1], 1, 1)
        return tokens, self.mask(prompts.mask_input.float())


class TinyDecoder(nn.Module):
    """The interface `simmat.foundation.PromptDecoder`."""

    def __init__(self, width: int, heads: int, image_size: int) -> None:
        super().__init__()
        self.prompt = PromptEncoder(width, image_size)
        # of the predicted IoU and the masks
        self.outputs = nn.Parameter(torch.randn(1 + MASKS, width))
        self.blocks = nn.ModuleList(TwoWayBlock(width, heads) for _ in range(2))
        self.upscale = nn.ConvTranspose2d(width, width // 4, 4, stride=4)
        self.weigh, self.iou = nn.Linear(width, width // 4), nn.Linear(width, MASKS)

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict masks for K prompts: logits (K, 4, S/4, S/4) and iou (K, 4)."""
        tokens, dense = self.prompt(prompts)
        # (K, D, g, g)
        level = embedding.levels[0].index_select(0, prompts.image_index) + dense
        places = grid_positions(level.shape[-1], level.shape[1], level).flatten(0, 1)
        image, tokens = (
            level.flatten(2).transpose(1, 2),
            torch.cat([self.outputs.expand(tokens.shape[0], -1, -1), tokens], 1),
        )
        for block in self.blocks:
            tokens, image = block(tokens, image, places)
        # (K, D / 4, S/4, S/4)
        fine = self.upscale(image.transpose(1, 2).reshape(level.shape))
        logits = torch.einsum(
            "kmd,kdhw->kmhw", self.weigh(tokens[:, 1 : 1 + MASKS]), fine
        )
        return MaskPrediction(logits.float(), self.iou(tokens[:, 0]).float())


class TinyModel(nn.Module):
    """The interface `simmat.foundation.FoundationModel`."""

    def __init__(
        self, name: str, image_size: int, *, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.name, self.image_size = name, image_size
        self.backbone = TinyBackbone(width, depth, heads)
        self.decoder = TinyDecoder(width, heads, image_size)

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute blocks in the backward pass."""
        self.backbone.recompute_blocks = on


def build_tiny(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> TinyModel:
    """Build the model for S×S input, with random weights of the seed or those of a safetensors file."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU
        torch.default_generator.manual_seed(seed)
        model = TinyModel(spec.name, image_size, **spec.options).eval()
    if weights is not None:
        load_weights(model, weights, spec.name)
    return model
