"""The network of `segment-anything`, with fused attention that tuners can extend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simmat.assemble import meta_device
from simmat.foundation import ImageEmbedding, MaskPrediction, Memory, PromptBatch
from simmat.plugin_specs import FoundationSpec
from simmat_plugin_sam.checkpoint import (
    check_variant,
    fit_state,
    random_state,
    read_checkpoint,
)
from simmat_plugin_sam.fused import affine, can_fuse
from simmat_plugin_sam.grid_attention import grid_attention
from simmat_plugin_sam.layers import (
    Block,
    EncoderAttention,
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    TwoWayTransformer,
    window_partition,
    window_unpartition,
)
from simmat_plugin_sam.prompts import dense_positions, embed_prompts
from simmat_plugin_sam.two_way import attend_two_ways, set_token_attention

PATCH = 16
"""Side of SAM's patches in pixels."""


class FusedAttention(nn.Module):
    """The attention of `segment_anything.modeling.image_encoder`, computed by `simmat_plugin_sam.grid_attention`.

    It has the parameters of the module it replaces, under their names. Tokens of a prompt go through `qkv`; a prefix is
    added to keys and values directly. Outputs differ from the original's only in the last bits (6e-7 for ViT-B at
    1024).
    """

    rel_pos_h: Tensor
    rel_pos_w: Tensor

    def __init__(self, source: EncoderAttention) -> None:
        super().__init__()
        self.num_heads: int = source.num_heads
        self.qkv, self.proj = source.qkv, source.proj
        self.rel_pos_h, self.rel_pos_w = source.rel_pos_h, source.rel_pos_w
        self.width: int = self.qkv.in_features
        self.memory: Memory | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (B, H, W, D) tokens to (B, H, W, D)."""
        tables = (self.rel_pos_h, self.rel_pos_w)
        return grid_attention(
            x,
            self.qkv,
            self.proj,
            heads=self.num_heads,
            tables=tables,
            memory=self.memory,
        )


class EncoderBlock(Block):  # type: ignore[misc]
    """A block of SAM's encoder that cuts windows in the dtype of autocast, and adds only tensors of one dtype.

    It has the layers of the module it replaces, under their names. Adding tensors of two dtypes is slow on a CPU.
    """

    def __init__(self, source: Block) -> None:
        nn.Module.__init__(self)
        for name, layer in source.named_children():
            setattr(self, name, layer)
        self.attn = FusedAttention(source.attn)
        self.window_size: int = source.window_size

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then run the MLP: (B, H, W, D) to (B, H, W, D)."""
        x = x + self._attended(self.norm1(x)).to(x.dtype)
        change: Tensor = self.mlp(self.norm2(x))
        return x + change.to(x.dtype)

    def _attended(self, x: Tensor) -> Tensor:
        if self.window_size == 0:
            attended: Tensor = self.attn(x)
            return attended
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(
            device
        ):
            x = x.to(torch.get_autocast_dtype(device))
        windows, padded_hw = window_partition(x, self.window_size)
        joined: Tensor = window_unpartition(
            self.attn(windows), self.window_size, padded_hw, x.shape[1:3]
        )
        return joined


class SamBackbone(nn.Module):
    """SAM's image encoder in two steps.

    Attributes:
        image_encoder: the package's ViT.
        checkpoint_blocks: recompute the blocks in the backward pass instead of keeping activations; saves memory.
    """

    def __init__(self, image_encoder: ImageEncoderViT) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.checkpoint_blocks = False

    @property
    def first_layer(self) -> nn.Conv2d:
        """The patch embedding."""
        conv: nn.Conv2d = self.image_encoder.patch_embed.proj
        return conv

    def embed(self, image: Tensor) -> Tensor:
        """Embed patches: (B, 3, S, S) -> (B, D, S/16, S/16)."""
        patches: Tensor = self.image_encoder.patch_embed(image)  # (B, S/16, S/16, D)
        return patches.permute(0, 3, 1, 2)

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Add positions and run blocks and neck: (B, D, S/16, S/16) -> one level (B, 256, S/16, S/16)."""
        # Contiguous: every sum below would keep the order of the convolution, and every norm copy it.
        # (B, S/16, S/16, D)
        x = features.permute(0, 2, 3, 1).contiguous() + self.image_encoder.pos_embed
        for block in self.image_encoder.blocks:
            if self.checkpoint_blocks and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        level = self.image_encoder.neck(x.permute(0, 3, 1, 2))
        return ImageEmbedding((level,), (PATCH,))


class SamDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder, for prompts of several images of S×S pixels."""

    def __init__(self, spec: FoundationSpec, image_size: int) -> None:
        super().__init__()
        options, grid = spec.options, image_size // PATCH
        dim = options["prompt_dim"]
        # it draws random numbers, for which the meta device imports torch._dynamo: a second
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            self.prompt_encoder = PromptEncoder(
                dim, (grid, grid), (image_size, image_size), mask_in_chans=16
            )
        transformer = TwoWayTransformer(
            depth=2,
            embedding_dim=dim,
            mlp_dim=options["decoder_mlp"],
            num_heads=options["decoder_heads"],
        )
        set_token_attention(transformer)
        self.mask_decoder = MaskDecoder(
            transformer_dim=dim, transformer=transformer, iou_head_hidden_dim=dim
        )

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict masks for K prompts: logits (K, 4, S/4, S/4) and iou (K, 4).

        Computes what `MaskDecoder.predict_masks` does, which takes the prompts of one image only.
        """
        level = embedding.levels[-1]
        decoder = self.mask_decoder
        sparse, dense = embed_prompts(self.prompt_encoder, prompts)
        if len(level) == 1 and prompts.mask_input is None:
            image = level + dense[:1]  # the same for all prompts
        else:
            # (K, 256, S/16, S/16)
            image = level.index_select(0, prompts.image_index) + dense
        positions = dense_positions(self.prompt_encoder)
        output_tokens = torch.cat(
            [decoder.iou_token.weight, decoder.mask_tokens.weight]
        )
        tokens = torch.cat([output_tokens.expand(sparse.shape[0], -1, -1), sparse], 1)
        # (K or 1, N, 256), (1, N, 256)
        rows, places = (part.flatten(2).transpose(1, 2) for part in (image, positions))
        out, attended = attend_two_ways(
            decoder.transformer, rows, places, tokens, len(output_tokens)
        )
        weights = torch.stack(
            [
                mlp(out[:, 1 + i])
                for i, mlp in enumerate(decoder.output_hypernetworks_mlps)
            ],
            1,
        )
        logits = upscaled_masks(
            decoder.output_upscaling, attended, weights, image.shape[2:]
        )
        return MaskPrediction(logits, decoder.iou_prediction_head(out[:, 0]).float())


def upscaled_masks(
    upscaling: nn.Sequential, tokens: Tensor, weights: Tensor, grid_hw: Sequence[int]
) -> Tensor:
    """Return the mask logits of K prompts: SAM's upscaling, then the product with the weights of each mask.

    The transposed convolutions are linear layers here, whose pixels are put in order at the end, of the masks alone.

    Args:
        upscaling: `MaskDecoder.output_upscaling`.
        tokens: (K, g·g, D) of the image.
        weights: (K, M, D/8) of the masks.
        grid_hw: height and width of the tokens' grid.

    Returns:
        (K, M, 4g, 4g).
    """
    first, norm, _, second, _ = cast(Sequence[Any], upscaling)
    (height, width), masks = grid_hw, weights.shape[1]
    # 4: pixels of a token
    x = affine(tokens, *_as_linear(first)).reshape(
        -1, height * width, 4, first.out_channels
    )
    x = F.gelu(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps))
    x = affine(x, *_as_linear(second), gelu=True).reshape(
        -1, height * width * 16, second.out_channels
    )
    logits = torch.bmm(weights.to(x.dtype), x.transpose(1, 2)).float()  # (K, M, 16·g·g)
    # two neighbours of a row move as one number of 64 bits, in a seventh of the time
    if can_fuse(x):
        parts = logits.view(torch.float64).reshape(-1, masks, height, width, 2, 2, 2)
        logits = parts.permute(0, 1, 2, 4, 6, 3, 5).contiguous().view(torch.float32)
    else:
        logits = logits.reshape(-1, masks, height, width, 2, 2, 2, 2).permute(
            0, 1, 2, 4, 6, 3, 5, 7
        )
    return logits.reshape(-1, masks, 4 * height, 4 * width)


def _as_linear(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight (4·out, in) and bias (4·out,) of a transposed convolution of 2x2 pixels as a linear layer."""
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)
    return weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4)


class SamModel(nn.Module):
    """SAM as a `simmat.foundation.FoundationModel`.

    Attributes:
        name: name of its spec.
        image_size: S.
    """

    def __init__(self, spec: FoundationSpec, image_size: int) -> None:
        super().__init__()
        self.name = spec.name
        self.image_size = image_size
        self.backbone = SamBackbone(_image_encoder(spec, image_size))
        self.decoder = SamDecoder(spec, image_size)
        blocks = self.backbone.image_encoder.blocks
        for index, block in enumerate(blocks):
            blocks[index] = EncoderBlock(block)

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute encoder blocks in the backward pass, which saves memory and costs time."""
        self.backbone.checkpoint_blocks = on


def build_sam(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> SamModel:
    """Build a SAM for S×S input; see `simmat.assemble.build_foundation`.

    If S differs from `spec.image_size`, position embeddings are interpolated, random ones too.

    Raises:
        WeightsError: the file is damaged, or of another model.
    """
    with meta_device():
        model = SamModel(spec, image_size)
    parts = sam_parts(model)
    if weights is None:
        with meta_device():
            native = sam_parts(SamModel(spec, spec.image_size))
        state, where = random_state(native, seed), f"{spec.name} of seed {seed}"
    else:
        state, where = read_checkpoint(weights), str(weights)
        check_variant(state, spec, weights)
    parts.load_state_dict(fit_state(state, parts, where), assign=True)
    return model.eval()


def sam_parts(model: nn.Module) -> nn.ModuleDict:
    """Return the three parts of a `SamModel` or `MobileSamModel` under the names in segment-anything's checkpoints."""
    names = ("backbone.image_encoder", "decoder.prompt_encoder", "decoder.mask_decoder")
    return nn.ModuleDict(
        {name.split(".")[1]: model.get_submodule(name) for name in names}
    )


def _image_encoder(spec: FoundationSpec, image_size: int) -> ImageEncoderViT:
    options = spec.options
    return ImageEncoderViT(
        img_size=image_size,
        patch_size=PATCH,
        embed_dim=options["dim"],
        depth=options["depth"],
        num_heads=options["heads"],
        mlp_ratio=options["mlp_ratio"],
        out_chans=options["prompt_dim"],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=options["window"],
        global_attn_indexes=options["global_blocks"],
    )
