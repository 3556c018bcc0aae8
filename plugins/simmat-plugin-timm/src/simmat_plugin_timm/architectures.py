"""What sets timm's architectures apart, as data."""

from __future__ import annotations

from dataclasses import dataclass

import timm

PATCH = "patch_embed.proj"
STAGES = r"stages[.][0-9]+[.]blocks[.][0-9]+"


@dataclass(frozen=True, slots=True)
class Architecture:
    """How the models of one of timm's modules are taken.

    Attributes:
        module: in `timm.models`.
        title: what it is, for people.
        every_level: a hierarchy, whose stages are all levels; else the last block's map is the one level.
        final_norm: its own last norm (SAM: its neck) is put on the last level, as `forward_features` does.
        sized: it is built for the input size, to which timm then brings the weights; else it takes every size in the
            same weights.
        first_layer: name of the convolution that everything begins with.
        blocks: pattern of the names of the transformer blocks.
        first_level: the first of timm's levels that is taken; a stem's at half the input is not.
        prefix: of the names that are taken, where a module of timm holds others too.
        adapters: whether an adapter may stand beside a block's MLP; it may not where the MLP is called with more than
            its tokens.
        norm_behind: the norm follows the MLP, so the adapter sees the MLP's very input.
    """

    module: str
    title: str
    every_level: bool = False
    final_norm: bool = True
    sized: bool = True
    first_layer: str = PATCH
    blocks: str = r"blocks[.][0-9]+"
    first_level: int = 0
    prefix: str = ""
    adapters: bool = True
    norm_behind: bool = False


_LAYERS = r"layers[.][0-9]+[.]blocks[.][0-9]+"
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("vision_transformer", "ViT"),
    Architecture("deit", "DeiT"),
    Architecture("eva", "ViT with rotary positions"),
    Architecture("beit", "BEiT"),
    Architecture("vision_transformer_relpos", "ViT with relative positions"),
    Architecture("cait", "CaiT"),
    Architecture("xcit", "XCiT", sized=False, first_layer="patch_embed.proj.0.0"),
    Architecture("vision_transformer_sam", "ViT of Segment Anything's encoder", sized=False),
    Architecture("swin_transformer", "Swin Transformer", every_level=True, blocks=_LAYERS),
    Architecture("swin_transformer_v2", "Swin Transformer V2", every_level=True, blocks=_LAYERS, norm_behind=True),
    Architecture("swin_transformer_v2_cr", "Swin Transformer V2 (CR)", every_level=True, blocks=STAGES,
                 final_norm=False, norm_behind=True),
    Architecture("hiera", "Hiera", every_level=True, final_norm=False),
    Architecture("hieradet_sam2", "Hiera of SAM 2's encoder", every_level=True, final_norm=False, sized=False),
    Architecture("mvitv2", "MViTv2", every_level=True, blocks=STAGES),
    Architecture("pvt_v2", "PVTv2", every_level=True, final_norm=False, sized=False, blocks=STAGES, adapters=False),
    Architecture("davit", "DaViT", every_level=True, sized=False, first_layer="stem.conv",
                 blocks=STAGES + r"[.][0-9]+"),
    Architecture("maxxvit", "MaxViT", every_level=True, first_layer="stem.conv1", first_level=1, prefix="maxvit_",
                 blocks=STAGES + r"[.]attn_(block|grid)"),
)  # fmt: skip


REFUSED: dict[str, str] = {
    "nest": "timm does not bring its position embeddings to another input size",
    "twins": "timm cannot recompute its blocks on the way back, so --gradient-checkpointing would fail",
    "pit": "its patches overlap without padding, so that its maps do not lie on whole strides",
    "volo": "its first stage has no queries and keys, so that no tuner finds its layers",
    "gcvit": "every other block takes its queries from a network beside it, so its projections are of two kinds",
    "crossvit": "it begins with two convolutions, one for each of its branches",
    "vision_transformer_hybrid": "a convolutional network stands in front of its patch embedding",
    "vitamin": "a convolutional network stands in front of its patch embedding",
    "naflexvit": "it does not begin with one convolution",
}
"""Modules of timm whose transformers are not taken -> why."""


def architecture_of(model: str) -> Architecture | None:
    """Return the architecture of a model of timm, by its name without prefix; None for one not taken here."""
    bare = model.partition(".")[0]
    return next(
        (a for a in ARCHITECTURES
         if bare.startswith(a.prefix) and timm.models.is_model_in_modules(bare, (a.module,))),
        None,
    )  # fmt: skip


def reason_against(model: str) -> str:
    """Say why a model of timm without an architecture here is not taken."""
    bare = model.partition(".")[0]
    reasons = (why for module, why in REFUSED.items() if timm.models.is_model_in_modules(bare, (module,)))
    return next(reasons, "it is none of the transformers that are tested here")
