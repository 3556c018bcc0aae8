"""Tuners: which weights of a foundation model train, and how.

Each `apply_…` has the signature of `TunerSpec.apply`: it gets a model whose parameters are all frozen, and replaces or
unfreezes named modules in place. The transfer layer trains under every tuner. `join_memory` is for foundation models
whose attention takes the trained tokens of a tuner, its `memory`; see `simmat.foundation.TunableAttention`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.foundation import Memory
from simmat.nn.lora import add_lora, takes_lora
from simmat.plugin_specs import TuningTargets

SIDES = ("all", "backbone", "decoder")
"""Values of `where`: the parts of the model that LoRA tunes."""
LoRATarget: TypeAlias = tuple[str, nn.Linear | nn.Conv2d, Sequence[int], int]
"""A layer that LoRA tunes: its name, the layer, indices of the tuned slices of its output, number of slices."""


def apply_frozen(
    model: nn.Module, *, targets: TuningTargets, generator: torch.Generator
) -> None:
    """Train nothing but the transfer layer."""


def apply_full(
    model: nn.Module, *, targets: TuningTargets, generator: torch.Generator
) -> None:
    """Train every parameter except `targets.frozen`."""
    _unfreeze(model, targets, "full", ".*")


def apply_decoder(
    model: nn.Module, *, targets: TuningTargets, generator: torch.Generator
) -> None:
    """Train the whole decoder except `targets.frozen`.

    Raises:
        ConfigError: the model's decoder has no such parameter.
    """
    _unfreeze(model, targets, "decoder", "decoder[.].*")


def apply_lora(
    model: nn.Module,
    *,
    targets: TuningTargets,
    generator: torch.Generator,
    rank: int,
    alpha: float,
    where: str,
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
    for _, layer, slices, parts in lora_layers(
        "lora", model, targets, where, rank=rank, alpha=alpha
    ):
        add_lora(
            layer,
            slices=slices,
            parts=parts,
            rank=rank,
            alpha=alpha,
            generator=generator,
        )


def lora_layers(
    tuner: str,
    model: nn.Module,
    targets: TuningTargets,
    where: str,
    *,
    rank: int,
    alpha: float,
) -> list[LoRATarget]:
    """Return the layers that the model names for LoRA on a side.

    Args:
        tuner: name of the tuner, for messages.
        where: "all", "backbone" or "decoder".

    Raises:
        ConfigError: an option is out of range, or the model names no layer, or one that LoRA does not support.
    """
    check_options(
        tuner,
        (rank >= 1, f"rank must be at least 1, got {rank}"),
        (alpha > 0, f"alpha must be greater than 0, got {alpha}"),
        (where in SIDES, f"where must be one of {', '.join(SIDES)}, got {where!r}"),
    )
    side = "" if where == "all" else f"{where}."
    found: list[LoRATarget] = []
    for name, layer in targeted_modules(model, targets.lora, tuner):
        if not name.startswith(side):
            continue
        for pattern, value in targets.lora.items():
            if re.fullmatch(pattern, name):
                slices, parts = value
                break
        plain = cast("nn.Linear | nn.Conv2d", layer)
        outputs = plain.weight.shape[0] if takes_lora(layer) else 0
        if not outputs or outputs % parts or not set(slices) <= set(range(parts)):
            raise ConfigError(
                f"foundation model {model_name(model)!r} names slices {tuple(slices)} of {parts} of {name!r} for LoRA, "
                f"which is a {type(layer).__name__} of {outputs} outputs; LoRA takes equal slices of plain Linear "
                "layers and 1x1 Conv2d without groups or padding"
            )
        found.append((name, plain, slices, parts))
    if not found:
        raise ConfigError(
            f"foundation model {model_name(model)!r} names no layer of its {where} for tuner {tuner!r}; "
            "use another --tune (frozen, lora, decoder, full)"
        )
    return found


def apply_linear(
    model: nn.Module, *, targets: TuningTargets, generator: torch.Generator
) -> None:
    """Train the first layer and the position embeddings, which the model names as `embed`.

    Raises:
        ConfigError: the model names none.
    """
    _unfreeze(model, targets, "linear", "|".join(targets.embed))


def unfreeze_newly_initialized(model: nn.Module, targets: TuningTargets) -> None:
    """Train the parameters that no weight file has, whatever the tuner; see `TuningTargets.newly_initialized`."""
    for name, parameter in model.named_parameters():
        if _matches(targets.newly_initialized, name) and not _matches(
            targets.frozen, name
        ):
            parameter.requires_grad_(True)


def pretrained_backbone(model: nn.Module, targets: TuningTargets) -> list[nn.Parameter]:
    """Return the backbone's parameters except those that no weight file has."""
    found = []
    for name, parameter in model.named_parameters():
        if not name.startswith("backbone."):
            continue
        if not _matches(targets.newly_initialized, name):
            found.append(parameter)
    return found


def join_memory(
    k: Tensor, v: Tensor, memory: Memory, qkv: nn.Linear
) -> tuple[Tensor, Tensor]:
    """Append a memory to the keys and values of an attention with a fused qkv.

    A prompt is projected by `qkv`; a prefix is appended as it is.

    Args:
        k: (B, heads, L, d) keys.
        v: (B, heads, L, d) values.
        memory: N tokens of D = heads · d.
        qkv: D -> 3 · D, in the order q, k, v.

    Returns:
        Keys and values, (B, heads, L + N, d) each, the memory last.
    """
    more_k, more_v = memory()  # (N, D) each
    if memory.kind == "prompt":
        _, more_k, more_v = qkv(more_k).chunk(3, -1)
    return _append_tokens(k, more_k), _append_tokens(v, more_v)


def _append_tokens(tensor: Tensor, extra: Tensor) -> Tensor:
    """Append (N, heads · d) tokens to (B, heads, L, d): (B, heads, L + N, d)."""
    batch, heads = tensor.shape[:2]
    # (heads, N, d)
    split = extra.reshape(len(extra), heads, -1).transpose(0, 1).to(tensor.dtype)
    return torch.cat([tensor, split.expand(batch, -1, -1, -1)], 2)


def model_name(model: nn.Module) -> str:
    """Return a foundation model's `name`, or else its class name."""
    return str(getattr(model, "name", type(model).__name__))


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that require gradients, and the stored buffers of the modules that train, by name.

    Such buffers are the statistics of a trained BatchNorm, or the random frequencies of a decoder's position encoding.
    The tensors are detached but share the model's memory; copy them to keep them.
    """
    state = {
        name: p.detach() for name, p in model.named_parameters() if p.requires_grad
    }
    trains = _training_modules(model)
    stored = model.state_dict().keys()
    for prefix, module in model.named_modules():
        if prefix in trains:
            for own, buffer in module.named_buffers(recurse=False):
                name = f"{prefix}.{own}" if prefix else own
                if name in stored:
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


@contextmanager
def without_training(model: nn.Module) -> Iterator[None]:
    """Let no parameter of a model require gradients while the block runs."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _training_modules(model: nn.Module) -> set[str]:
    """Return the names of the modules that train, by the rule of `set_train_mode`."""
    trains: set[str] = set()
    for name, module in model.named_modules():  # a parent comes before its children
        own = list(module.parameters(recurse=False))
        below = own or list(module.parameters())
        if any(p.requires_grad for p in below) or (
            not below and name and name.rpartition(".")[0] in trains
        ):
            trains.add(name)
    return trains


def check_options(tuner: str, *rules: tuple[bool, str]) -> None:
    """Raise ConfigError with the texts of all rules that do not hold."""
    problems = [text for holds, text in rules if not holds]
    if problems:
        raise ConfigError(f"tuner {tuner!r}: " + "; ".join(problems))


def targeted_modules(
    model: nn.Module, patterns: Iterable[str], tuner: str
) -> list[tuple[str, nn.Module]]:
    """Return name and module where a pattern matches the whole name; ConfigError if none does."""
    patterns = tuple(patterns)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if _matches(patterns, name)
    ]
    if not found:
        raise ConfigError(
            f"foundation model {model_name(model)!r} names no layer for tuner {tuner!r}; "
            "use another --tune (frozen, lora, decoder, full)"
        )
    return found


def _unfreeze(
    model: nn.Module, targets: TuningTargets, tuner: str, wanted: str
) -> None:
    """Train the parameters whose whole name matches `wanted` and none of `targets.frozen`."""
    matching = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if re.fullmatch(wanted, name)
    ]
    found = [
        parameter for name, parameter in matching if not _matches(targets.frozen, name)
    ]
    if not found:
        raise ConfigError(
            f"foundation model {model_name(model)!r} has no parameter for tuner {tuner!r} to train; use --tune frozen"
        )
    for parameter in found:
        parameter.requires_grad_(True)


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
