"""At which rate each part of the network learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import config, gray_set, registry

from simmat import training
from simmat.assemble import assemble
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


def test_a_model_may_know_a_better_rate_than_the_tuner(tmp_path: Path) -> None:
    """A small network is not tuned at SAM's rate; a rate that was found for its weights is none for random ones."""
    settings = config(
        gray_set(tmp_path / "set"), tmp_path / "run", tune="full", lr=None
    )
    parts = plan_run(settings, registry()).parts
    knows = replace(parts.foundation, learning_rates={"full": 1e-3})
    own = parts.tuner.learning_rate
    assert parts.learning_rate == own != 1e-3
    assert (
        replace(parts, foundation=knows, weights=tmp_path / "w").learning_rate == 1e-3
    )
    assert replace(parts, foundation=knows, weights=None).learning_rate == own
    other = registry().tuner("lora")
    assert (
        replace(
            parts, foundation=knows, weights=tmp_path / "w", tuner=other
        ).learning_rate
        == other.learning_rate
    )


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
