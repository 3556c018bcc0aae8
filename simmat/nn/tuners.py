"""Tuners: which weights of a foundation model train, and how.

Each `apply_…` has the signature of `TunerSpec.apply`: it gets a model whose parameters are all frozen, and replaces or
unfreezes named modules in place. The transfer layer trains under every tuner.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.nn.lora import LoRAConv2d, LoRALinear, takes_lora
from simmat.plugin_specs import TuningTargets

SIDES = ("all", "backbone", "decoder")
"""Values of `where`: the parts of the model that LoRA tunes."""
_LORA: dict[type[nn.Module], Any] = {nn.Linear: LoRALinear, nn.Conv2d: LoRAConv2d}
"""Class of a layer -> class that replaces it."""


def apply_frozen(model: nn.Module, *, targets: TuningTargets, generator: torch.Generator) -> None:
    """Train nothing but the transfer layer."""


def apply_full(model: nn.Module, *, targets: TuningTargets, generator: torch.Generator) -> None:
    """Train every parameter except `targets.never`."""
    _unfreeze(model, targets, "full", prefix="")


def apply_decoder(model: nn.Module, *, targets: TuningTargets, generator: torch.Generator) -> None:
    """Train the whole decoder except `targets.never`.

    Raises:
        ConfigError: the model's decoder has no such parameter.
    """
    _unfreeze(model, targets, "decoder", prefix="decoder.")


def apply_lora(
    model: nn.Module, *, targets: TuningTargets, generator: torch.Generator, rank: int, alpha: float, where: str
) -> None:
    """Add LoRA to the layers that the model names; see `simmat.nn.lora`.

    Args:
        targets: names the `lora` layers.
        generator: draws the A matrices.
        rank: rows of A, at least 1.
        alpha: the product is scaled by alpha / rank.
        where: "all", "backbone" or "decoder".

    Raises:
        ConfigError: an option is out of range, or the model names no layer, or one that LoRA does not support.
    """
    _check_lora_options("lora", rank, alpha, where)
    layers = _lora_layers(model, targets, where)
    _replace(model, layers, (), rank=rank, alpha=alpha, generator=generator)


def apply_conv_lora(
    model: nn.Module, *, targets: TuningTargets, generator: torch.Generator, rank: int, alpha: float, where: str
) -> None:
    """Add Conv-LoRA to the named layers that work on a grid, and LoRA to the others; see `simmat.nn.lora`.

    Arguments as in `apply_lora`.

    Raises:
        ConfigError: as in `apply_lora`, or no named layer works on a grid.
    """
    _check_lora_options("conv-lora", rank, alpha, where)
    layers = _lora_layers(model, targets, where)
    if not any(_matches(targets.grid, name) for name, *_ in layers):
        side = "" if where == "all" else f" of its {where}"
        raise ConfigError(
            f"foundation model {model_name(model)!r} names no layer{side} that works on a grid, which Conv-LoRA needs; "
            "use --tune lora"
        )
    _replace(model, layers, targets.grid, rank=rank, alpha=alpha, generator=generator)


def apply_linear(model: nn.Module, *, targets: TuningTargets, generator: torch.Generator) -> None:
    """Train the first layer and the position embeddings, which the model names as `embed`.

    Raises:
        ConfigError: the model names none.
    """
    names = [name for name, _ in model.named_parameters() if _matches(targets.embed, name)]
    _unfreeze(model, targets, "linear", prefix="", only=names)


def unfreeze_fresh(model: nn.Module, targets: TuningTargets) -> None:
    """Train the parameters that no weight file has, whatever the tuner; see `TuningTargets.fresh`."""
    for name, parameter in model.named_parameters():
        if _matches(targets.fresh, name) and not _matches(targets.never, name):
            parameter.requires_grad_(True)


def pretrained_backbone(model: nn.Module, targets: TuningTargets) -> list[nn.Parameter]:
    """Return the backbone's parameters except those that no weight file has."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if name.startswith("backbone.") and not _matches(targets.fresh, name)
    ]


def model_name(model: nn.Module) -> str:
    """Return a foundation model's `name`, or else its class name."""
    return str(getattr(model, "name", type(model).__name__))


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that require gradients, and the stored buffers of the modules that train, by name.

    Such buffers are the statistics of a trained BatchNorm, or the random frequencies of a decoder's position encoding.
    The tensors are detached but share the model's memory; copy them to keep them.
    """
    state = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    trains, stored = _training_modules(model), model.state_dict().keys()
    for prefix, module in model.named_modules():
        if prefix in trains:
            for own, buffer in module.named_buffers(recurse=False):
                if (name := f"{prefix}.{own}" if prefix else own) in stored:
                    state[name] = buffer.detach()
    return state


def set_train_mode(model: nn.Module) -> None:
    """Set modules that train to training mode and frozen ones to evaluation mode.

    A module with parameters of its own trains if one of them requires gradients; a module without, if a module below it
    does; a module without any parameters at or below it (dropout, stochastic depth), if its parent does. So BatchNorm
    of frozen layers keeps its statistics. Modules that the model's own `train` keeps in evaluation mode stay there.
    """
    model.train()
    trains = _training_modules(model)
    for name, module in model.named_modules():
        if name not in trains:
            module.training = False


def _training_modules(model: nn.Module) -> set[str]:
    """Return the names of the modules that train, by the rule of `set_train_mode`."""
    trains: set[str] = set()
    for name, module in model.named_modules():  # a parent comes before its children
        own = list(module.parameters(recurse=False))
        below = own or list(module.parameters())
        if any(p.requires_grad for p in below) or (not below and name and name.rpartition(".")[0] in trains):
            trains.add(name)
    return trains


def matching_modules(model: nn.Module, patterns: Iterable[str]) -> list[tuple[str, nn.Module]]:
    """Return name and module where a pattern matches the whole name, in the model's order."""
    patterns = tuple(patterns)
    return [(name, module) for name, module in model.named_modules() if _matches(patterns, name)]


def _unfreeze(
    model: nn.Module, targets: TuningTargets, tuner: str, prefix: str, only: Sequence[str] | None = None
) -> None:
    unfrozen = 0
    for name, parameter in model.named_parameters():
        wanted = name.startswith(prefix) and (only is None or name in only)
        if wanted and not _matches(targets.never, name):
            parameter.requires_grad_(True)
            unfrozen += 1
    if not unfrozen:
        raise ConfigError(
            f"foundation model {model_name(model)!r} has no parameter for tuner {tuner!r} to train; use --tune frozen"
        )


def _check_lora_options(tuner: str, rank: int, alpha: float, where: str) -> None:
    problems = []
    if rank < 1:
        problems.append(f"rank must be at least 1, got {rank}")
    if not alpha > 0:
        problems.append(f"alpha must be greater than 0, got {alpha}")
    if where not in SIDES:
        problems.append(f"where must be one of {', '.join(SIDES)}, got {where!r}")
    if problems:
        raise ConfigError(f"tuner {tuner!r}: " + "; ".join(problems))


_Layer = tuple[str, nn.Module, Sequence[int], int]


def _lora_layers(model: nn.Module, targets: TuningTargets, where: str) -> list[_Layer]:
    """Return name, layer, slices and parts of every layer that `targets.lora` names on the given side."""
    layers: list[_Layer] = []
    for name, module in model.named_modules():
        if where != "all" and not name.startswith(f"{where}."):
            continue
        for pattern, (slices, parts) in targets.lora.items():
            if re.fullmatch(pattern, name):
                _check_lora_layer(model, name, module, slices, parts)
                layers.append((name, module, slices, parts))
                break
    if not layers:
        side = "no layer" if where == "all" else f"no layer of its {where}"
        raise ConfigError(
            f"foundation model {model_name(model)!r} names {side} for LoRA; use another --tune (frozen, decoder, full)"
        )
    return layers


def _replace(model: nn.Module, layers: Sequence[_Layer], grid: Sequence[str], **options: Any) -> None:
    """Replace layers by ones with LoRA, or with Conv-LoRA if a pattern of `grid` matches."""
    for name, layer, slices, parts in layers:
        parent, _, leaf = name.rpartition(".")
        tuned = _LORA[type(layer)](layer, slices=slices, parts=parts, on_grid=_matches(grid, name), **options)
        setattr(model.get_submodule(parent), leaf, tuned)


def _check_lora_layer(model: nn.Module, name: str, layer: nn.Module, slices: Sequence[int], parts: int) -> None:
    if not takes_lora(layer):
        raise ConfigError(
            f"foundation model {model_name(model)!r} names {name!r} for LoRA, which is a {type(layer).__name__}; "
            "LoRA takes plain Linear layers and 1x1 Conv2d without groups or padding"
        )
    out = int(getattr(layer, "weight").shape[0])  # noqa: B009 - typed as Tensor | Module otherwise
    if out % parts or not slices or not set(slices) <= set(range(parts)):
        raise ConfigError(
            f"foundation model {model_name(model)!r} names slices {tuple(slices)} of {parts} of {name!r} for LoRA, "
            f"which has {out} outputs; the outputs must split into {parts} equal slices 0..{parts - 1}"
        )


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
