"""Depthwise convolutions that compute in fp32 while a CPU's autocast is on."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from runs import config, gray_set, registry
from torch import Tensor, nn

from simmat import training
from simmat.nn.depthwise import keep_depthwise_in_fp32


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 3, padding=1, groups=2))


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        answer: Tensor = model(x)
    return answer


def test_a_depthwise_layer_is_fp32_inside_and_bf16_outside() -> None:
    """Its weights see the exact input; what follows gets what autocast would have given it."""
    layer, x = network()[0], torch.randn(2, 8, 16, 16).bfloat16()
    exact = nn.functional.conv2d(x.float(), layer.weight, layer.bias, padding=1, groups=8)
    rounded = run(layer, x)
    keep_depthwise_in_fp32(layer)
    kept = run(layer, x)
    assert kept.dtype == rounded.dtype == torch.bfloat16
    assert torch.equal(kept, exact.bfloat16())
    assert not torch.equal(kept, rounded)


def test_its_gradient_is_that_of_fp32() -> None:
    """The way back is what this is for."""
    layer, x = network()[0], torch.randn(2, 8, 16, 16)
    plain = copy.deepcopy(layer)
    keep_depthwise_in_fp32(layer)
    run(layer, x).sum().backward()
    plain(x).sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)


def test_a_copy_computes_with_its_own_weights() -> None:
    """A running mean of the weights is such a copy."""
    model, x = network(), torch.randn(2, 8, 16, 16)
    keep_depthwise_in_fp32(model)
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert run(copied, x).abs().max() == 0 < run(model, x).abs().max()


@pytest.mark.parametrize("autocast", [True, False])
def test_the_dtype_is_the_one_it_would_have_been(autocast: bool) -> None:
    """Whatever comes in, what follows must not find another format than before."""
    layer, x = network()[0], torch.randn(2, 8, 16, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        before = layer(x).dtype
        keep_depthwise_in_fp32(layer)
        assert layer(x).dtype == before == (torch.bfloat16 if autocast else torch.float32)


def test_other_convolutions_and_all_names_stay() -> None:
    """Grouped ones are quicker in bf16, and a bundle finds its weights by name."""
    model, before = network(), network()
    keep_depthwise_in_fp32(model)
    x = torch.randn(2, 8, 16, 16).bfloat16()
    assert torch.equal(run(model[1], x), run(before[1], x))
    assert list(model.state_dict()) == list(before.state_dict())


@pytest.mark.parametrize(("precision", "kept"), [("bf16", True), ("fp32", False)])
def test_a_training_in_bf16_on_a_cpu_keeps_them(
    precision: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be slow where most people try it first."""
    seen: list[nn.Module] = []
    monkeypatch.setattr("simmat.training.loop.keep_depthwise_in_fp32", seen.append)
    training.train(config(gray_set(tmp_path / "set"), tmp_path / "run", steps=1, precision=precision), registry())
    assert bool(seen) is kept
