"""Tuning targets of timm's networks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from simmat_plugin_sam.pyramid import FRESH
from torch import nn

from simmat.nn.lora import takes_lora
from simmat.plugin_specs import TuningTargets
from simmat_plugin_timm.architectures import Architecture
from simmat_plugin_timm.network import first_layer_name

Slices = tuple[tuple[int, ...], int]
ALL: Slices = ((0,), 1)
_PROJECTIONS: dict[str, Slices] = {
    "qkv": ((0, 2), 3),
    "kv": ((1,), 2),
    **dict.fromkeys(("q", "v", "q_proj", "v_proj"), ALL),
}
"""Name of an attention's layer -> slices of queries and values, and the number of all slices."""
_PROJECTION = re.compile(
    r"(?P<attention>.*)[.](?P<kind>" + "|".join(_PROJECTIONS) + r")(?P<within>[.].*)?"
)
_ON_GRID = ("vision_transformer_sam", "hieradet_sam2")
"""Modules of timm whose attention gets the tokens as a grid."""
_POST_NORM = ("ResPostBlock", "ResPostRelPosBlock", "EvaBlockPostNorm")
"""Classes of timm's blocks whose norm is after the MLP."""
MODEL = r"backbone[.]body[.]model[.]"


def targets_of(network: nn.Module, architecture: Architecture) -> TuningTargets:
    """Return the tuning targets of a network."""
    layers = _projections(network)
    modules = dict(network.named_modules())
    attentions = sorted({attention for attention, _ in layers.values()})
    lora = _patterns(modules, {name: slices for name, (_, slices) in layers.items()})
    first = MODEL + re.escape(first_layer_name(network))
    return TuningTargets(
        lora=lora,
        spatial_layers=tuple(lora) if architecture.module in _ON_GRID else (),
        adapters=_patterns(modules, _adapters(modules, attentions, architecture)),
        embed=(first + r"[.](weight|bias)", *_positions(network)),
        newly_initialized=FRESH,
    )


def _projections(network: nn.Module) -> dict[str, tuple[str, Slices]]:
    """Return layer that makes queries or values -> its attention, and its slices of both."""
    found = {}
    for name, layer in network.named_modules():
        match = _PROJECTION.fullmatch(name)
        if not match or not takes_lora(layer):
            continue
        attention = network.get_submodule(match["attention"])
        slices = _PROJECTIONS[match["kind"]]
        # Queries, keys and values are interleaved by head, so no slice is one of them.
        if getattr(attention, "head_first", False):
            slices = ALL
        found[name] = match["attention"], slices
    return found


Value = TypeVar("Value")


def _patterns(
    modules: Mapping[str, nn.Module], by_name: Mapping[str, Value]
) -> dict[str, Value]:
    """Return name pattern -> value, with one pattern for names that differ only in numbers and have one value."""
    kinds: dict[str, list[str]] = {}
    for name in modules:
        kinds.setdefault(
            "[.]".join(
                "[0-9]+" if part.isdigit() else part for part in name.split(".")
            ),
            [],
        ).append(name)
    patterns = {}
    for kind, names in kinds.items():
        values = {name: by_name[name] for name in names if name in by_name}
        if len(values) == len(names) and all(
            value == values[names[0]] for value in values.values()
        ):
            patterns[MODEL + kind] = values[names[0]]
        else:
            patterns.update(
                {MODEL + re.escape(name): value for name, value in values.items()}
            )
    return patterns


def _positions(network: nn.Module) -> list[str]:
    """Return patterns of a network's position embeddings, absolute and relative (Swin, BEiT)."""
    names = [name for name, _ in network.named_parameters()]
    kinds = (
        r"(encoder[.])?pos_embed([0-9]|_win(dow)?)?",
        r"(encoder[.])?pos_embed[.].*",
        r".*relative_position_bias_table",
    )
    return [
        MODEL + kind
        for kind in kinds
        if any(re.fullmatch(kind, name) for name in names)
    ]


def _adapters(
    modules: Mapping[str, nn.Module],
    attentions: Sequence[str],
    architecture: Architecture,
) -> dict[str, str]:
    """Return MLP for an adapter -> norm before it; empty if a block has no such MLP."""
    found = {}
    for block in sorted({attention.rpartition(".")[0] for attention in attentions}):
        for leaf, norm in architecture.mlps.items():
            if f"{block}.{leaf}" not in modules:
                return {}
            found[f"{block}.{leaf}"] = (
                "" if type(modules[block]).__name__ in _POST_NORM else norm
            )
    return found
