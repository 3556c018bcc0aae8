"""A step: its rates, its parts, and a gradient that overflows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from runs import config, gray_set, registry
from torch import Tensor

from simmat import training
from simmat.assemble import assemble
from simmat.callbacks import Callback
from simmat.training.fit import Diverged
from simmat.training.plan import plan_run
from simmat.training.run_folder import load_state
from simmat.training.step import build_optimizer, set_rates


@pytest.mark.parametrize(("factor", "moved"), [(1.0, 1e-3), (0.25, 2.5e-4)])
def test_the_backbone_moves_at_its_part_of_the_rate(
    tmp_path: Path, factor: float, moved: float
) -> None:
    """Of AdamW's first step, a weight with a gradient moves by the learning rate, whatever the gradient is."""
    chosen = config(
        gray_set(tmp_path / "set"),
        tmp_path / "run",
        tune="full",
        steps=1,
        warmup_steps=0,
        weight_decay=0.0,
        backbone_lr_factor=factor,
    )
    setup = plan_run(chosen, registry())
    before = assemble(setup.spec, setup.parts).state_dict()
    training.train(chosen, registry())
    after = load_state(tmp_path / "run" / "last.safetensors").model
    most = {
        part: max(
            float((after[name] - before[name]).abs().max())
            for name in after
            if name.startswith(part)
        )
        for part in ("mat.", "foundation.backbone.", "foundation.decoder.")
    }
    assert most["mat."] == pytest.approx(1e-3, rel=0.01)
    assert most["foundation.decoder."] == pytest.approx(1e-3, rel=0.01)
    assert most["foundation.backbone."] == pytest.approx(moved, rel=0.01)


def test_every_weight_that_moves_has_one_rate() -> None:
    """And none of what is frozen; vectors have no weight decay, in the backbone too."""
    inner, outer = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    frozen = torch.nn.Linear(1, 1).requires_grad_(False)
    module = torch.nn.Sequential(inner, outer, frozen)
    optimizer = build_optimizer(
        module, weight_decay=0.5, backbone=inner.parameters(), backbone_factor=0.1
    )
    set_rates(optimizer, 2.0)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert (
        sum(len(group["params"]) for group in optimizer.param_groups) == len(rates) == 4
    )
    assert [
        rates[id(parameter)]
        for parameter in (inner.weight, inner.bias, outer.weight, outer.bias)
    ] == [
        (0.2, 0.5),
        (0.2, 0.0),
        (2.0, 0.5),
        (2.0, 0.0),
    ]


WHOLE = {
    "steps": 3,
    "val_every": 3,
    "batch_size": 4,
    "lr": 1e-2,
    "pictures": False,
    "box_fraction": 0.0,
}


class Fails(Callback):
    """Ends a run at its last validation, as a full disk would."""

    def validated(self, step: int, summary: dict[str, Any], **_: Any) -> None:
        if step == WHOLE["steps"]:
            raise OSError("no space left")


def test_a_step_in_parts_is_the_same_step_whatever_ran_before(tmp_path: Path) -> None:
    """A run that failed, and whose error is held on to, as a notebook does, must not shift the parts of the next."""
    data = gray_set(tmp_path / "set")
    training.train(config(data, tmp_path / "whole", **WHOLE), registry())
    with pytest.raises(OSError, match="no space left") as held:
        training.train(
            config(data, tmp_path / "failed", **WHOLE, grad_accumulation=2),
            registry(),
            Fails(),
        )
    training.train(
        config(data, tmp_path / "parts", **WHOLE, grad_accumulation=2), registry()
    )
    assert held.value.__traceback__ is not None
    whole, parts = (
        load_state(tmp_path / name / "last.safetensors") for name in ("whole", "parts")
    )
    for name, tensor in whole.model.items():
        torch.testing.assert_close(
            parts.model[name], tensor, atol=2e-3, rtol=0, msg=name
        )
    steps = {
        int(value) for name, value in parts.optimizer.items() if name.endswith("/step")
    }
    assert steps == {3}


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
