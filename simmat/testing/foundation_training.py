"""What moves when a foundation model is tuned."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from simmat.errors import ConfigError
from simmat.foundation import FoundationModel
from simmat.nn.losses import mask_loss
from simmat.nn.tuners import set_train_mode
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.foundation_answers import answer, images, prompt_kinds
from simmat.testing.foundation_spec import FoundationCase
from simmat.testing.networks import CHANNELS, TUNER, apply_tuner, tuned

MOST_NAMES = 5


def lora_changes_nothing_at_step_0(case: FoundationCase) -> None:
    """With LoRA applied and nothing trained, the model answers as before."""
    if not case.spec.targets.lora:
        raise CheckSkipped("the model names no layer for LoRA")
    plain = case.model
    lora = cast(FoundationModel, apply_tuner(cast(nn.Module, plain), case.spec, TUNER["lora"]))
    for kind, prompts in prompt_kinds(plain, case.image_size).items():
        pictures = images(2, case.image_size)
        before, after = answer(plain, pictures, prompts), answer(lora, pictures, prompts)
        for what, one, other in (("logits", before.logits, after.logits), ("predicted IoU", before.iou, after.iou)):
            if not torch.allclose(one, other, rtol=1e-5, atol=1e-5):
                raise CheckFailed(
                    f"{what} ({kind}) moved by up to {float((one - other).abs().max()):.3g} under LoRA that adds zero",
                    "let the layers be called, and do not look at their class: LoRA puts a subclass in their place",
                )


def gradient_reaches_the_mat(case: FoundationCase) -> None:
    """Every weight of the MAT before the model gets a gradient that is finite and not all zero."""
    case.require_values()
    network = tuned(case, TUNER["frozen"])
    _backward(network, case)
    for name, parameter in network.mat.named_parameters():
        gradient = parameter.grad
        if gradient is None or not bool(gradient.isfinite().all()) or not bool(gradient.any()):
            state = "no gradient" if gradient is None else "a gradient of zero" if not gradient.any() else "NaN"
            raise CheckFailed(
                f"the MAT's {name} gets {state}",
                "run embed and encode without no_grad or detach, and use every pixel of the input",
            )


def frozen_stays_without_gradient(case: FoundationCase) -> None:
    """Only what a tuner moves gets a gradient."""
    case.require_values()
    for tuner in ("frozen", *_named_tuners(case)[:1]):
        network = tuned(case, TUNER[tuner])
        trains = {name for name, p in network.named_parameters() if p.requires_grad}
        _backward(network, case)
        if wrong := [name for name, p in network.named_parameters() if p.grad is not None and name not in trains]:
            raise CheckFailed(
                f"under tuner {tuner!r} what is frozen gets a gradient: {_some(wrong)}",
                "never set requires_grad in the model; tuners do",
            )


def all_that_trains_has_a_gradient(case: FoundationCase) -> None:
    """Everything a tuner moves gets a gradient from clicks, boxes and corrections together."""
    case.require_values()
    for tuner in (*_named_tuners(case), "decoder", "full"):
        try:
            network = tuned(case, TUNER[tuner])
        except ConfigError:  # the tuner refuses the model, as it may
            continue
        _backward(network, case)
        if silent := [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]:
            raise CheckFailed(
                f"under tuner {tuner!r} these train without a gradient: {_some(silent)}",
                "leave out parameters that nothing uses, call layers instead of reading their weights, "
                "or name what must not move in targets.never",
            )


def _named_tuners(case: FoundationCase) -> list[str]:
    """Return the tuners whose targets the model names."""
    needs = {"lora": case.spec.targets.lora, "adapter": case.spec.targets.adapters, "linear": case.spec.targets.embed}
    return [tuner for tuner, named in needs.items() if named]


def _backward(network: nn.Module, case: FoundationCase) -> None:
    """Ask in every way that training does, and send the loss back."""
    set_train_mode(network)
    size = case.image_size
    planes = images(2, size)[:, : len(CHANNELS)]
    content = torch.ones(2, size, size, dtype=torch.bool)
    total = torch.zeros(())
    for prompts in prompt_kinds(case.model, size).values():
        targets = torch.zeros(len(prompts.image_index), size, size, dtype=torch.bool)
        targets[:, size // 4 : size // 2, size // 4 : size // 2] = True
        total = total + mask_loss(network(planes, content, prompts), targets).per_prompt.sum()
    if total.requires_grad:
        torch.autograd.backward(total)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
