"""What sets timm's architectures apart, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import timm

MLP = {"mlp": "norm2"}
BARE_MLP = {"mlp": ""}
TABLE = {"pos_embed": "tokens"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How the models of one of timm's modules are taken.

    Attributes:
        module: in `timm.models`.
        title: what it is, for people.
        final_norm: its own last norm (SAM: its neck) is put on the last level, as `forward_features` does.
        sized: it is built for the input size, to which timm then brings the weights; else it takes every size in the
            same weights.
        first_level: the first of timm's levels that is taken; one that lies on no whole stride is not.
        prefix: of the names that are taken, where a module of timm holds others too.
        mlps: MLP beside an attention that an adapter may stand beside -> norm before it, "" where the norm is in it or
            behind it, so that the adapter sees the MLP's very input. Empty where an MLP is called with more than its
            tokens, or is not beside the attention.
        multiple: the input's side is a multiple of this, too, beside the coarsest stride.
        mixed: queries, keys and values of one layer lie side by side head by head, or are of different widths, so that
            no equal slice of it is one of them: LoRA changes all of it.
        tables: pattern of the names of position tables that timm leaves at their native size -> how they lie, see
            `simmat_plugin_timm.positions`.
    """

    module: str
    title: str
    final_norm: bool = True
    sized: bool = True
    first_level: int = 0
    prefix: str = ""
    multiple: int = 1
    mlps: Mapping[str, str] = field(default_factory=lambda: MLP)
    mixed: bool = False
    tables: Mapping[str, str] = field(default_factory=dict)


_OFFSETS = {r".*[.]attention_biases": "offsets"}
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("vision_transformer", "ViT"),
    Architecture("deit", "DeiT"),
    Architecture("eva", "ViT with rotary positions"),
    Architecture("beit", "BEiT"),
    Architecture("vision_transformer_relpos", "ViT with relative positions"),
    Architecture("vision_transformer_hybrid", "ViT behind a convolutional network"),
    Architecture("vitamin", "ViTamin"),
    Architecture("cait", "CaiT", tables=TABLE),
    Architecture("xcit", "XCiT", sized=False),
    Architecture("convit", "ConViT", tables=TABLE),
    Architecture("tnt", "TNT", prefix="tnt_s_legacy", mlps={"mlp_in": "norm_mlp_in", "mlp": "norm_mlp"}),
    Architecture("pit", "PiT", first_level=1, tables={"pos_embed": "planes"}),
    Architecture("volo", "VOLO", tables={"pos_embed": "rows"}),
    Architecture("vision_transformer_sam", "ViT of Segment Anything's encoder", sized=False),
    Architecture("swin_transformer", "Swin Transformer"),
    Architecture("swin_transformer_v2", "Swin Transformer V2", mlps=BARE_MLP),
    Architecture("swin_transformer_v2_cr", "Swin Transformer V2 (CR)", final_norm=False, mlps=BARE_MLP),
    Architecture("hiera", "Hiera", final_norm=False, tables=TABLE),
    Architecture("hieradet_sam2", "Hiera of SAM 2's encoder", final_norm=False, sized=False),
    Architecture("mvitv2", "MViTv2"),
    Architecture("pvt_v2", "PVTv2", final_norm=False, sized=False, mlps={}),
    Architecture("twins", "Twins"),
    Architecture("davit", "DaViT", sized=False),
    Architecture("gcvit", "GCViT", tables={r".*[.]relative_position_bias_table": "windows"}),
    Architecture("nest", "NesT", tables={r"levels[.][0-9]+[.]pos_embed": "blocks"}),
    Architecture("coat", "CoaT"),
    Architecture("maxxvit", "MaxViT and CoAtNet"),
    Architecture("visformer", "Visformer", tables={"pos_embed[1-3]": "planes"}),
    Architecture("metaformer", "CAFormer", sized=False, prefix="caformer_"),
    Architecture("nextvit", "Next-ViT", sized=False),
    Architecture("edgenext", "EdgeNeXt", sized=False, mlps={}),
    Architecture("fastvit", "FastViT", sized=False, mlps=BARE_MLP),
    Architecture("tiny_vit", "TinyViT", sized=False, mlps=BARE_MLP, mixed=True),
    Architecture("mobilevit", "MobileViT", sized=False, prefix="mobilevit_"),
    Architecture("mobilevit", "MobileViTv2", sized=False, prefix="mobilevitv2_", multiple=64),
    Architecture("levit", "LeViT", mlps=BARE_MLP, mixed=True, tables=_OFFSETS),
    Architecture("efficientformer", "EfficientFormer", sized=False, mixed=True),
    Architecture("efficientformer_v2", "EfficientFormerV2", mlps=BARE_MLP, tables=_OFFSETS),
    Architecture("efficientvit_mit", "EfficientViT (MIT)", sized=False, mlps={}, mixed=True),
    Architecture("efficientvit_msra", "EfficientViT (MSRA)", mlps={}, mixed=True),
    Architecture("shvit", "SHViT", sized=False, mlps={}, mixed=True),
    Architecture("swiftformer", "SwiftFormer", sized=False, mlps={}),
    Architecture("iformer", "iFormer", sized=False, mlps={}),
    Architecture("lowformer", "LowFormer", sized=False, mlps={}),
    Architecture("cpubone", "CPUBone", sized=False, mlps={}),
    Architecture("deepseek_vit", "DeepSeek-ViT", sized=False),
    Architecture("qwen3_vit", "Qwen3-ViT", sized=False),
)  # fmt: skip


REFUSED: dict[str, str] = {
    "crossvit": "it begins with two convolutions, one for each of its branches",
    "tnt": "its first convolution runs within each patch, not over the image; tnt_s_legacy_patch16_224 is taken",
    "naflexvit": "it begins with a linear layer over patches, not with a convolution",
    "gemma4_vit": "it begins with a linear layer over patches, not with a convolution",
    "csatv2": "it begins with a cosine transform, not with a convolution",
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
