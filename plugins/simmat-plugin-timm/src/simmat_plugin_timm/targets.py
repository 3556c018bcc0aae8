"""Where tuners find the layers of timm's networks."""

from __future__ import annotations

import re

from torch import nn

from simmat.foundation import TuningTargets
from simmat.nn.lora import takes_lora
from simmat.nn.promptable import FRESH
from simmat_plugin_timm.architectures import Architecture
from simmat_plugin_timm.attention import takes_memory

MODEL = r"backbone[.]body[.]model[.]"
BLOCK = MODEL + r"(blocks|layers[.][0-9]+[.]blocks)[.][0-9]+"


def targets_of(network: nn.Module, architecture: Architecture) -> TuningTargets:
    """Return what tuners may do to a network, by what its blocks are made of."""
    blocks = [module for name, module in network.named_modules() if _is_block(name)]
    attentions = [block.attn for block in blocks if isinstance(getattr(block, "attn", None), nn.Module)]
    whole = bool(attentions) and len(attentions) == len(blocks)
    lora = {}
    for leaf, slices in (("qkv", ((0, 2), 3)), ("q_proj", ((0,), 1)), ("v_proj", ((0,), 1))):
        if whole and all(isinstance(layer := getattr(a, leaf, None), nn.Module) and takes_lora(layer)
                         for a in attentions):  # fmt: skip
            lora[f"{BLOCK}[.]attn[.]{leaf}"] = slices
    grid = (f"{BLOCK}[.]attn[.]qkv",) if architecture.module == "vision_transformer_sam" else ()
    return TuningTargets(
        lora=lora,
        grid=grid,
        adapters=_adapters(blocks),
        attention=(f"{BLOCK}[.]attn",) if whole and all(takes_memory(a) for a in attentions) else (),
        embed=(MODEL + r"patch_embed[.]proj[.]conv[.](weight|bias)", *_positions(network)),
        fresh=FRESH,
    )


def _positions(network: nn.Module) -> list[str]:
    """Return the position embeddings there are: of places, and of distances (tables of Swin and BEiT)."""
    names = [name for name, _ in network.named_parameters()]
    kinds = (r"pos_embed(_win)?", r".*relative_position_bias_table")
    return [MODEL + kind for kind in kinds if any(re.fullmatch(kind, name) for name in names)]


def _is_block(name: str) -> bool:
    return re.fullmatch(BLOCK.removeprefix(MODEL), name) is not None


def _adapters(blocks: list[nn.Module]) -> dict[str, str]:
    """Return the MLPs an adapter stands beside, with the norm before them; a norm behind stays where it is."""
    if not blocks or not all(isinstance(getattr(block, "mlp", None), nn.Module) for block in blocks):
        return {}
    behind = all(_norm_behind(block) for block in blocks)
    return {f"{BLOCK}[.]mlp": "" if behind else "norm2"}


def _norm_behind(block: nn.Module) -> bool:
    return type(block).__name__ in ("ResPostBlock", "EvaBlockPostNorm", "SwinTransformerV2Block")
