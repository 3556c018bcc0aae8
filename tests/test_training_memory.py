"""How much memory a run needs, and the warning before a machine kills the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import config, gray_set, registry
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from simmat.data.batches import collate
from simmat.model import SimMAT, assemble
from simmat.nn.losses import LOSSES
from simmat.training import Callback, RunPlan, step, train
from simmat.training.setup import Setup, prepare
from simmat.training.step import TrainingStep, available_bytes, estimate_bytes, memory_warning

CPU = torch.device("cpu")


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """A run of two images a step and two prompts each."""
    return prepare(config(gray_set(tmp_path / "data"), tmp_path / "run"), registry(), Callback())


def estimate(model: SimMAT, **changes: int) -> int:
    """Estimate for one channel at 64 px."""
    return estimate_bytes(model, **({"channels": 1, "size": 64, "images": 2, "questions": 4, "half": False} | changes))  # type: ignore[arg-type]


def test_the_estimate_is_what_a_step_keeps(setup: Setup) -> None:
    """Counted over a real step: the storages that its graph holds, beside weights, gradients and moments."""
    model = assemble(setup.spec, setup.parts)
    weights = sum(p.numel() * 4 for p in [*model.parameters(), *model.buffers()])
    moving = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    items, seen = setup.items(), {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    step = TrainingStep(model, LOSSES["focal"], box_fraction=0.0, corrections=1)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = step(collate([items[0], items[1]]))
    assert losses["loss"].requires_grad
    assert estimate(model) - weights - 3 * moving == pytest.approx(sum(seen.values()), rel=0.4)


@pytest.mark.parametrize("more", [{"questions": 6}, {"images": 4}])
def test_more_of_anything_needs_more(setup: Setup, more: dict[str, int]) -> None:
    """Each of these can be turned down to fit; so can the precision."""
    model = assemble(setup.spec, setup.parts)
    assert estimate(model, **more) > 1.2 * estimate(model) > estimate(model, half=True)


def test_estimating_leaves_the_weights_and_the_random_state_alone(setup: Setup) -> None:
    """It runs before the first step of a run that must be the same bits every time."""
    model = assemble(setup.spec, setup.parts).train()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    estimate(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_the_memory_of_this_machine_is_found() -> None:
    """A figure in pages, or in the kilobytes of some systems, would be off by a thousand."""
    assert 2**28 < (available_bytes(CPU) or 0) < 2**46


def test_a_container_has_the_memory_of_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own memory is not what a job on a cluster may use."""
    monkeypatch.setattr(step, "memory_limit", lambda: 2**20)
    assert available_bytes(CPU) == 2**20


@pytest.mark.parametrize(("had", "warns"), [(4 * 2**30, False), (2**30, True), (None, False)])
def test_a_run_that_does_not_fit_is_warned_of(monkeypatch: pytest.MonkeyPatch, had: int | None, warns: bool) -> None:
    """The warning names both sizes and the settings to change; where nobody knows the memory, nothing is said."""
    monkeypatch.setattr(step, "available_bytes", lambda device: had)
    said = memory_warning(3 * 2**30, CPU)
    assert bool(said) == warns
    assert not warns or all(part in said for part in ("3.0 GiB", "1.0 GiB", "--batch-size"))


def test_the_warning_comes_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After hours in the queue it would be of no use."""
    plans: list[RunPlan] = []

    class Listener(Callback):
        def started(self, plan: RunPlan) -> None:
            plans.append(plan)

    monkeypatch.setattr(step, "available_bytes", lambda device: 1024)
    train(config(gray_set(tmp_path / "data"), tmp_path / "run", steps=1), registry(), Listener())
    assert any("--batch-size" in note for note in plans[0].notes)
