"""While the rate is constant, a mean of the weights is scored and kept."""

from __future__ import annotations

from pathlib import Path

import open_end
import torch
from runs import gray_set

from simmat.bundle import read_bundle
from simmat.training.mean_weights import forget_mean, mean_weights, update_mean
from simmat.training.run_folder import load_state


def _after_steps(gradients: list[float]) -> tuple[torch.nn.Parameter, torch.optim.SGD]:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=1e-9)
    for done, gradient in enumerate(gradients, 1):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        update_mean(optimizer, done)
    return weight, optimizer


def test_weights_that_jump_to_and_fro_are_scored_where_they_would_settle() -> None:
    """A score of the weights of one step is that of a jump."""
    weight, optimizer = _after_steps([1.0, *[-2.0, 2.0] * 50])
    assert weight.item() == -1
    with mean_weights([optimizer, optimizer]):  # as of two sensors that share it
        assert abs(weight.item()) < 0.1
    assert weight.item() == -1
    forget_mean(optimizer)
    with mean_weights([optimizer]):
        assert weight.item() == -1


def test_the_mean_is_kept_until_the_rate_falls(tmp_path: Path) -> None:
    """The bundle must hold the weights that have the score that it states."""
    data = gray_set(tmp_path / "set", val=6)
    open_end.train(data, tmp_path / "run", 2, keep="last")
    state = load_state(tmp_path / "run/last.safetensors")
    spec, kept = read_bundle(tmp_path / "run/bundle.safetensors")
    assert spec.metrics["step"] == 2
    compared = []
    for key, mean in state.optimizer.items():
        if key.endswith("/mean"):
            name = key.removeprefix("model.").removesuffix("/mean")
            assert torch.equal(kept[name], mean)
            assert not torch.equal(kept[name], state.model[name])
            compared.append(name)
    assert compared
    open_end.train(data, tmp_path / "run")
    state = load_state(tmp_path / "run/last.safetensors")
    _, kept = read_bundle(tmp_path / "run/bundle.safetensors")
    assert not any(name.endswith("/mean") for name in state.optimizer)
    for name, weights in state.model.items():
        assert torch.equal(kept[name], weights)
