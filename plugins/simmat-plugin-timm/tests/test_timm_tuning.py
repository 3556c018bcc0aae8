"""Every tuner and transfer layer of the core on every family: it works, or it is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from simmat_plugin_baselines import TUNERS as OTHER_TUNERS
from simmat_plugin_sam.pyramid import PromptableModel
from simmat_testing.networks import build_network
from torch import Tensor, nn

from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.plugins.builtin import TUNERS
from simmat.plugins.registry import import_from_string

TUNER = {spec.name: spec for spec in (*TUNERS, *OTHER_TUNERS)}
SMALL = {
    "lora": {"rank": 2},
    "adapter": {"width": 4},
}


def network(family: Any, tuner: str, transfer: str = "zeroshot") -> SimMAT:
    """Build a family's tiny model for three channels."""
    return build_network(
        family.spec,
        transfer=transfer,
        tuner=tuner,
        zero_shot=np.eye(3).tolist(),
        image_size=family.size,
        tune_options=SMALL.get(tuner, {}),
    )


def answer(model: SimMAT, size: int) -> Tensor:
    """Return logits and IoU of two images, one of them half padding."""
    content = torch.ones(2, size, size, dtype=torch.bool)
    content[1, size // 2 :] = False
    planes = (
        torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        * content[:, None]
    )
    prompts = PromptBatch(
        torch.tensor([0, 1]),
        torch.full((2, 1, 2), 20.0),
        torch.ones(2, 1, dtype=torch.int64),
    )
    prediction = model(planes, content, prompts)
    return torch.cat([prediction.logits.flatten(1), prediction.iou], 1)


def title_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["family"])


def awake(family: Any, tuner: str) -> PromptableModel:
    """Return a tuned model whose layer scales and last norms are not at zero, as they are before pretraining."""
    model, drawn = family.ours(), torch.Generator().manual_seed(3)
    for parameter in model.requires_grad_(False).parameters():
        fan_in = max(parameter[0].numel(), 1) if parameter.ndim > 1 else 1
        parameter.add_(
            torch.randn(parameter.shape, generator=drawn)
            * (0.3 if fan_in < 300 else 0.5 / fan_in**0.5)
        )
    spec = TUNER[tuner]
    options = {**spec.options, **SMALL.get(tuner, {})}
    import_from_string(spec.apply)(
        model,
        targets=family.spec.targets,
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    return model


@pytest.mark.parametrize("transfer", ["first-conv", "channel-attention"])
@pytest.mark.parametrize("title", ["DINOv2", "Swin", "Hiera"])
def test_transfer_layers_copy_or_replace_the_first_layer(
    title: str, transfer: str, make_family: Any
) -> None:
    """Hiera's overlaps and pads, DINOv2's patch is 14: all unlike SAM's."""
    family = make_family(title)
    model = network(family, "full", transfer)
    answer(model, family.size).square().mean().backward()
    missing = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert missing == []


@pytest.mark.parametrize("title", ["ViT", "DINOv3", "Swin", "Hiera", "SAM's encoder"])
def test_gradient_checkpointing_changes_no_gradient(
    title: str, make_family: Any
) -> None:
    """Blocks are computed again on the way back, from features that were handed in."""
    family = make_family(title)
    gradients = []
    for on in (False, True):
        model = network(family, "full")
        model.foundation.gradient_checkpointing(on)
        answer(model, family.size).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(*gradients)


CANNOT_RECOMPUTE = {"Twins", "Twins, PCPVT", "CoaT", "CoaT-Lite"}


def test_gradient_checkpointing_recomputes_or_is_not_offered(
    family: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where timm cannot, training refuses it by name; a switch without an effect would save no memory."""
    model = network(family, "full")
    assert hasattr(model.foundation, "gradient_checkpointing") == (
        title_of(request) not in CANNOT_RECOMPUTE
    )
    if title_of(request) in CANNOT_RECOMPUTE:
        return
    recomputed, recompute = [], torch.utils.checkpoint.checkpoint

    def counted(*args: Any, **kwargs: Any) -> Any:
        recomputed.append(args[0])
        return recompute(*args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", counted)
    model.foundation.gradient_checkpointing(True)
    answer(model, family.size)
    assert recomputed


SOFTMAX = ("CoaT", "CoaT-Lite", "MaxViT", "FastViT", "CAFormer", "ViTamin")


@pytest.mark.parametrize(
    "title",
    [
        "ViT",
        "Twins",
        *(pytest.param(title, marks=pytest.mark.slow) for title in SOFTMAX),
    ],
)
@torch.no_grad()
def test_what_lora_leaves_alone_are_the_keys(title: str, make_family: Any) -> None:
    """The same added to every key moves no softmax over them; the slices of queries and values must not do that."""
    family = make_family(title)
    model = awake(family, "frozen")
    untouched = model.backbone.encode(model.backbone.embed(family.image())).levels[-1]

    def shifted(wanted: Callable[[int, Sequence[int]], bool]) -> Tensor:
        hooks = []
        for name, layer in model.named_modules():
            for pattern, (slices, parts) in family.spec.targets.lora.items():
                if re.fullmatch(pattern, name) and parts > 1:
                    hooks.append(
                        layer.register_forward_hook(shift(slices, parts, wanted))
                    )
        assert hooks
        moved = model.backbone.encode(model.backbone.embed(family.image())).levels[-1]
        for hook in hooks:
            hook.remove()
        return moved

    def shift(
        slices: Sequence[int], parts: int, wanted: Callable[[int, Sequence[int]], bool]
    ) -> Any:
        def hook(layer: nn.Module, given: Any, out: Tensor) -> Tensor:
            dim = 1 if isinstance(layer, nn.Conv2d) else -1
            pieces = [
                piece + wanted(i, slices) * 0.5
                for i, piece in enumerate(out.chunk(parts, dim))
            ]
            return torch.cat(pieces, dim)

        return hook

    keys, others = ((shifted(lambda index, slices, tuned=tuned: (index in slices) == tuned) - untouched).abs().mean()
                    for tuned in (False, True))  # fmt: skip
    assert keys < 0.01 * others


@pytest.mark.parametrize("title", ["DINOv3", "EVA-02", "Swin V2"])
def test_half_precision_answers_much_the_same(title: str, make_family: Any) -> None:
    """Biases and rotary positions are float32 beside bfloat16 features."""
    family = make_family(title)
    model = network(family, "lora").eval()
    exact = answer(model, family.size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = answer(model, family.size)
        rough.square().mean().backward()
    assert (rough - exact).abs().mean() < 0.1 * exact.abs().mean() + 0.02
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in model.parameters()
        if p.requires_grad
    )
