"""The supported architectures of timm and how they differ, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import timm

from simmat.errors import SpecError

MLP = {"mlp": "norm2"}
BARE_MLP = {"mlp": ""}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to use the models of one module of timm.

    Attributes:
        module: name in `timm.models`.
        title: name for display.
        final_norm: apply the network's last norm (SAM: its neck) to the last level, as `forward_features` does.
        sized: build the network for the input size, to which timm resizes the weights; else the same weights take every
            size.
        prefix: prefix of the supported names, if the module has other models too.
        mlps: MLP in a block with attention, for adapters -> norm before it; "" if the norm is inside or after the MLP,
            so that the adapter gets the MLP's input. Empty if an MLP gets more than tokens, or is in another block.
    """

    module: str
    title: str
    final_norm: bool = True
    sized: bool = True
    prefix: str = ""
    mlps: Mapping[str, str] = field(default_factory=lambda: MLP)


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("vision_transformer", "ViT"),
    Architecture("deit", "DeiT"),
    Architecture("eva", "ViT with rotary positions"),
    Architecture("beit", "BEiT"),
    Architecture("vision_transformer_relpos", "ViT with relative positions"),
    Architecture("vitamin", "ViTamin"),
    Architecture("xcit", "XCiT", sized=False),
    Architecture(
        "vision_transformer_sam", "ViT of Segment Anything's encoder", sized=False
    ),
    Architecture("swin_transformer", "Swin Transformer"),
    Architecture("swin_transformer_v2", "Swin Transformer V2", mlps=BARE_MLP),
    Architecture("hiera", "Hiera", final_norm=False),
    Architecture(
        "hieradet_sam2", "Hiera of SAM 2's encoder", final_norm=False, sized=False
    ),
    Architecture("mvitv2", "MViTv2"),
    Architecture("pvt_v2", "PVTv2", final_norm=False, sized=False, mlps={}),
    Architecture("twins", "Twins"),
    Architecture("davit", "DaViT", sized=False),
    Architecture("coat", "CoaT"),
    Architecture("maxxvit", "MaxViT and CoAtNet"),
    Architecture("metaformer", "CAFormer", sized=False, prefix="caformer_"),
    Architecture("nextvit", "Next-ViT", sized=False),
    Architecture("edgenext", "EdgeNeXt", sized=False, mlps={}),
    Architecture("fastvit", "FastViT", sized=False, mlps=BARE_MLP),
)


def architecture_of(model: str) -> Architecture | None:
    """Return the architecture of a timm model, by its name without "timm/"; None if it is not supported."""
    bare = model.partition(".")[0]
    fitting = (
        a for a in ARCHITECTURES if timm.models.is_model_in_modules(bare, (a.module,))
    )
    return next((a for a in fitting if bare.startswith(a.prefix)), None)


def known_architecture(model: str) -> Architecture:
    """Return the architecture of a timm model.

    Raises:
        SpecError: it is not supported.
    """
    architecture = architecture_of(model)
    if architecture is None:
        raise SpecError(
            f"timm/{model} is not supported: it is not one of the tested transformers; see "
            "'simmat foundations list timm/'"
        )
    return architecture
