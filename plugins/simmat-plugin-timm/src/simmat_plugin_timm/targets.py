"""Where tuners find the layers of timm's networks."""

from __future__ import annotations

import re

from torch import nn

from simmat.foundation import TuningTargets
from simmat.nn.lora import takes_lora
from simmat.nn.promptable import FRESH
from simmat_plugin_timm.architectures import Architecture
from simmat_plugin_timm.attention import takes_memory

_PROJECTIONS = (
    ("qkv", ((0, 2), 3)),
    ("q_proj", ((0,), 1)),
    ("v_proj", ((0,), 1)),
    ("q", ((0,), 1)),
    ("kv", ((1,), 2)),
)
"""Layers of an attention -> the slices of queries and values, out of how many."""
_ON_GRID = ("vision_transformer_sam", "hieradet_sam2")
"""Architectures whose attention sees the tokens as a grid."""
MODEL = r"backbone[.]body[.]model[.]"


def targets_of(network: nn.Module, architecture: Architecture) -> TuningTargets:
    """Return what tuners may do to a network, by what its blocks are made of."""
    name_of_block = MODEL + architecture.blocks
    blocks = [module for name, module in network.named_modules() if re.fullmatch(architecture.blocks, name)]
    attentions = [block.attn for block in blocks if isinstance(getattr(block, "attn", None), nn.Module)]
    whole = bool(attentions) and len(attentions) == len(blocks)
    lora = {}
    for leaf, slices in _PROJECTIONS:
        if whole and all(isinstance(layer := getattr(a, leaf, None), nn.Module) and takes_lora(layer)
                         for a in attentions):  # fmt: skip
            # Where each head's query, key and value lie side by side, no slice of the whole is one of them.
            mixed = any(getattr(attention, "head_first", False) for attention in attentions)
            lora[f"{name_of_block}[.]attn[.]{leaf}"] = ((0,), 1) if mixed else slices
    grid = (f"{name_of_block}[.]attn[.]qkv",) if architecture.module in _ON_GRID else ()
    return TuningTargets(
        lora=lora,
        grid=grid,
        adapters=_adapters(blocks, architecture),
        attention=(f"{name_of_block}[.]attn",) if whole and all(takes_memory(a) for a in attentions) else (),
        embed=(MODEL + re.escape(architecture.first_layer) + r"[.](weight|bias)", *_positions(network)),
        fresh=FRESH,
    )


def _positions(network: nn.Module) -> list[str]:
    """Return the position embeddings there are: of places, and of distances (tables of Swin and BEiT)."""
    names = [name for name, _ in network.named_parameters()]
    kinds = (r"(levels[.][0-9]+[.])?pos_embed(_win(dow)?)?", r"pos_embed[.].*", r".*relative_position_bias_table")
    return [MODEL + kind for kind in kinds if any(re.fullmatch(kind, name) for name in names)]


def _adapters(blocks: list[nn.Module], architecture: Architecture) -> dict[str, str]:
    """Return the MLPs an adapter stands beside, with the norm before them; a norm behind stays where it is."""
    if (
        not blocks
        or not architecture.adapters
        or not all(isinstance(getattr(block, "mlp", None), nn.Module) for block in blocks)
    ):
        return {}
    behind = architecture.norm_behind or all(_norm_behind(block) for block in blocks)
    return {f"{MODEL}{architecture.blocks}[.]mlp": "" if behind else "norm2"}


def _norm_behind(block: nn.Module) -> bool:
    return type(block).__name__ in ("ResPostBlock", "ResPostRelPosBlock", "EvaBlockPostNorm")
