"""A run that cannot go on says so before it spoils what it has learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from runs import config, gray_set, registry
from torch import Tensor

from simmat import training
from simmat.training.fit import Diverged
from simmat.training.run_folder import load_state


class _Overflowing(torch.autograd.Function):
    """A number that stays what it is, and whose gradient is infinite."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, torch.inf)


@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_a_gradient_that_overflows_ends_the_run_and_spoils_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grad_clip: float
) -> None:
    """AdamW would make every weight NaN, while the loss is still a number, and the next validation would keep it."""
    real, calls = Accelerator.backward, []

    def backward(self: Accelerator, loss: Tensor) -> None:
        calls.append(loss)
        real(self, loss if len(calls) < 3 else _Overflowing.apply(loss))

    monkeypatch.setattr(Accelerator, "backward", backward)
    chosen = config(
        gray_set(tmp_path / "set"),
        tmp_path / "run",
        steps=4,
        val_every=2,
        grad_clip=grad_clip,
    )
    with pytest.raises(
        Diverged, match=r"the gradient became (nan|inf) at step 3; lower --lr \(now"
    ):
        training.train(chosen, registry())
    state = load_state(tmp_path / "run" / "last.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in state.model.values())
