"""What sets timm's architectures apart, as data."""

from __future__ import annotations

from dataclasses import dataclass

import timm


@dataclass(frozen=True, slots=True)
class Architecture:
    """How the models of one of timm's modules are taken.

    Attributes:
        module: in `timm.models`.
        title: what it is, for people.
        every_level: a hierarchy, whose stages are all levels; else the last block's map is the one level.
        final_norm: its own last norm (SAM: its neck) is put on the last level, as `forward_features` does.
        sized: it is built for the input size, to which timm then brings the weights; else it stays as it is, and
            resizes its position embeddings in every forward pass.
    """

    module: str
    title: str
    every_level: bool = False
    final_norm: bool = True
    sized: bool = True


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("vision_transformer", "ViT"),
    Architecture("deit", "DeiT"),
    Architecture("eva", "ViT with rotary positions"),
    Architecture("beit", "BEiT"),
    Architecture("vision_transformer_sam", "ViT of Segment Anything's encoder", sized=False),
    Architecture("swin_transformer", "Swin Transformer", every_level=True),
    Architecture("swin_transformer_v2", "Swin Transformer V2", every_level=True),
    Architecture("hiera", "Hiera", every_level=True, final_norm=False),
)


def architecture_of(model: str) -> Architecture | None:
    """Return the architecture of a model of timm, by its name without prefix; None for one not taken here."""
    bare = model.partition(".")[0]
    return next((a for a in ARCHITECTURES if timm.models.is_model_in_modules(bare, (a.module,))), None)
