"""Specs of timm's models, from timm's registry and from networks on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import timm
from timm.models import PretrainedCfg

from simmat.errors import SpecError
from simmat.plugin_specs import FoundationSpec, WeightFile
from simmat_plugin_timm.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
)
from simmat_plugin_timm.network import bare_network, first_convolution, levels_of
from simmat_plugin_timm.targets import targets_of

PREFIX = "timm/"


def models() -> dict[str, str]:
    """Return name -> description of every supported model, and of each of its published weights."""
    lines: dict[str, str] = {}
    for architecture in ARCHITECTURES:
        for name in timm.list_models(module=architecture.module):
            if not name.startswith(architecture.prefix) or not _has_one_stem(name):
                continue
            for variant in [
                name,
                *(
                    n
                    for n in timm.list_pretrained(f"{name}.*")
                    if n.startswith(f"{name}.")
                ),
            ]:
                lines[variant] = _line(variant, architecture)
    return lines


@cache
def spec(model: str) -> FoundationSpec | None:
    """Return the spec of `timm/MODEL`; None if timm has no such model or weights.

    Raises:
        SpecError: timm has the model, but it is not supported.
    """
    bare = model.partition(".")[0]
    if not timm.is_model(bare):
        return None
    architecture = architecture_of(bare)
    if architecture is None or not _has_one_stem(bare):
        why = (
            "it is not one of the tested transformers"
            if architecture is None
            else "it starts with two convolutions"
        )
        raise SpecError(
            f"{PREFIX}{model} is a model of timm, but not supported: {why}; "
            "'simmat foundations list timm/' shows the supported ones"
        )
    facts = _facts(model)
    if facts is None:  # timm has the model, but no weights with this tag
        return None
    network = bare_network(model)
    first_convolution(network, model)  # refuse it now instead of when it is built
    multiple, native = (
        levels_of(network, architecture).strides[-1],
        min(facts.input_size[1:]),
    )
    million = sum(p.numel() for p in network.parameters()) / 1e6
    return FoundationSpec(
        name=PREFIX + model,
        description=f"{architecture.title} of timm ({million:.0f} M parameters) with an untrained prompt decoder",
        build="simmat_plugin_timm.network:build_timm",
        image_size=native - native % multiple,  # such as patches of 14 in 384 px
        size_multiple=multiple,
        pixel_mean=_on_bytes(facts.mean),
        pixel_std=_on_bytes(facts.std),
        targets=targets_of(network, architecture),
        weights=_weights(model, facts),
        promptable=False,
        licence=facts.license or "",
        options={"model": model, "model_args": {}},
    )


def _has_one_stem(name: str) -> bool:
    """False for a model that starts with two parallel convolutions, as most FastViTs do."""
    facts = _facts(name)
    return facts is not None and isinstance(facts.first_conv, str)


def _facts(name: str) -> PretrainedCfg | None:
    """Return timm's registry entry of a model; None if it has no weights with that tag."""
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        return None


def _line(name: str, architecture: Architecture) -> str:
    facts = _facts(name) or PretrainedCfg()
    known = "weights to fetch" if facts.hf_hub_id else "no published weights"
    licence = f", {facts.license}" if facts.license else ""
    return f"{architecture.title}, {min(facts.input_size[1:])} px, {known}{licence}"


def _on_bytes(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (255.0 * value for value in values)
    return red, green, blue


def _weights(model: str, facts: PretrainedCfg) -> WeightFile:
    """Describe the weights on the Hub, with the safetensors file first, as timm looks for them."""
    given = facts.hf_hub_filename or "pytorch_model.bin"
    safe = {
        "pytorch_model.bin": "model.safetensors",
        "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
    }
    first = safe.get(
        given,
        given.removesuffix(".bin") + ".safetensors"
        if given.endswith(".bin")
        else given,
    )
    return WeightFile(
        filename=first,
        sha256="",
        licence=facts.license or "",
        hub=facts.hf_hub_id or "",
        alternatives=() if first == given else (given,),
    )
