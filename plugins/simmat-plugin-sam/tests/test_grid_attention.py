"""Attention on a grid by blocks of logits: the values and gradients of the plain formula."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention
from simmat_plugin_baselines.prompt_tuning import PrefixTokens
from simmat_plugin_sam import grid_attention
from torch import Tensor, nn

SIDES = (5, 6)
WIDTH = 16


@pytest.fixture(
    params=[2**20, 2 * 30 * 34, 70, 1],
    ids=["one block", "some groups", "some rows", "single rows"],
)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set how many logits are in a block; those of a group are 30 x 30, or 30 x 34 with a prefix."""
    monkeypatch.setattr(grid_attention, "BLOCK", request.param)
    return int(request.param)


def plain_module() -> Attention:
    """Return the package's attention with random weights."""
    module = Attention(WIDTH, num_heads=2, use_rel_pos=True, input_size=SIDES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4, generator=generator)
    return module


def attend(module: Attention, x: Tensor, prefix: PrefixTokens | None = None) -> Tensor:
    """Attend with the weights of the package's module."""
    tables = (module.rel_pos_h, module.rel_pos_w)
    qkv, proj = module.qkv, module.proj
    return grid_attention.grid_attention(
        x, qkv, proj, heads=2, tables=tables, memory=prefix
    )


def drawn(*shape: int) -> Tensor:
    """Return random values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def gradients(out: Tensor, x: Tensor, *modules: nn.Module) -> list[Tensor]:
    """Return the gradients of the input and of all parameters, for one gradient of the output."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return list(torch.autograd.grad(out, [x, *parameters], drawn(*out.shape)))


@pytest.mark.usefixtures("block")
def test_blocks_give_the_values_and_gradients_of_the_package() -> None:
    """The attention of segment-anything is the oracle, tables of positions included."""
    module, x = plain_module(), drawn(3, *SIDES, WIDTH).requires_grad_()
    ours, expected = attend(module, x), module(x)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(
        gradients(ours, x, module), gradients(expected, x, module), rtol=1e-4, atol=1e-4
    )


@pytest.mark.usefixtures("block")
def test_a_prefix_gets_its_gradients_from_every_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its keys have no position; torch's fused attention with a mask is the oracle."""
    module, x = plain_module(), drawn(2, *SIDES, WIDTH).requires_grad_()
    prefix = PrefixTokens(drawn(4, WIDTH), 2 * drawn(4, WIDTH))
    ours = attend(module, x, prefix)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    fused = attend(module, x, prefix)
    torch.testing.assert_close(ours, fused)
    found, expected = (
        gradients(ours, x, module, prefix),
        gradients(fused, x, module, prefix),
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("block")
def test_bf16_is_as_close_to_fp32_as_the_package() -> None:
    """Gradients of keys and values are sums over blocks, which bf16 would round each time."""
    module, x = plain_module(), drawn(3, *SIDES, WIDTH).requires_grad_()
    exact = gradients(module(x), x, module)
    with torch.autocast("cpu", torch.bfloat16):
        found, plain = attend(module, x), module(x)
    ours, package = gradients(found, x, module), gradients(plain, x, module)
    for one, other, true in zip(ours, package, exact, strict=True):
        assert (one - true).norm() < 1.5 * (other - true).norm() + 1e-3 * true.norm()


def test_no_matrix_of_logits_is_kept_for_the_backward_pass() -> None:
    """Keeping them is what filled the memory in training."""
    module, x = plain_module(), drawn(3, *SIDES, WIDTH)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda one: kept.append(one.numel()) or one, lambda one: one
    ):
        attend(module, x)
    assert kept
    assert max(kept) < 3 * 2 * 30 * 30  # B · heads · (H·W)²
