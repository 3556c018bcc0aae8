"""The supported architectures of timm and how they differ, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import timm

from simmat.errors import SpecError

MLP = {"mlp": "norm2"}
BARE_MLP = {"mlp": ""}
TABLE = {"pos_embed": "tokens"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to use the models of one module of timm.

    Attributes:
        module: name in `timm.models`.
        title: name for display.
        final_norm: apply the network's last norm (SAM: its neck) to the last level, as `forward_features` does.
        sized: build the network for the input size, to which timm resizes the weights; else the same weights take every
            size.
        first_level: index of the first level used; earlier ones have no integer stride.
        prefix: prefix of the supported names, if the module has other models too.
        mlps: MLP in a block with attention, for adapters -> norm before it; "" if the norm is inside or after the MLP,
            so that the adapter gets the MLP's input. Empty if an MLP gets more than tokens, or is in another block.
        multiple: the input's side must be a multiple of this, and of the coarsest stride.
        mixed: a layer's queries, keys and values are interleaved by head or differ in width, so no equal slice is one
            of them, and LoRA tunes the whole layer.
        tables: pattern of the names of position tables that timm does not resize -> their layout, see
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
    Architecture("vision_transformer_hybrid", "ViT after a convolutional network"),
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
    "crossvit": "it starts with two convolutions, one per branch",
    "tnt": "its first convolution runs within each patch, not over the image; use tnt_s_legacy_patch16_224",
    "naflexvit": "it starts with a linear layer over patches, not with a convolution",
    "gemma4_vit": "it starts with a linear layer over patches, not with a convolution",
    "csatv2": "it starts with a cosine transform, not with a convolution",
}
"""Unsupported module of timm -> why."""


def architecture_of(model: str) -> Architecture | None:
    """Return the architecture of a timm model, by its name without "timm/"; None if it is not supported."""
    bare = model.partition(".")[0]
    return next(
        (a for a in ARCHITECTURES
         if bare.startswith(a.prefix) and timm.models.is_model_in_modules(bare, (a.module,))),
        None,
    )  # fmt: skip


def known_architecture(model: str) -> Architecture:
    """Return the architecture of a timm model.

    Raises:
        SpecError: it is not supported.
    """
    architecture = architecture_of(model)
    if architecture is None:
        raise SpecError(f"timm/{model} is not supported: {why_unsupported(model)}; see 'simmat foundations list timm/'")
    return architecture


def why_unsupported(model: str) -> str:
    """Return why a timm model without an architecture here is not supported."""
    bare = model.partition(".")[0]
    reasons = (why for module, why in REFUSED.items() if timm.models.is_model_in_modules(bare, (module,)))
    return next(reasons, "it is not one of the tested transformers")
