"""How much memory a run needs, and a word about it before a machine kills the run."""

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
from simmat.training import RunPlan, Watcher, memory, train
from simmat.training.memory import available_bytes, estimate_bytes, memory_warning
from simmat.training.setup import Setup, prepare
from simmat.training.step import Asking, TrainingStep

CPU = torch.device("cpu")


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """A run of two images a step and two prompts each."""
    return prepare(config(gray_set(tmp_path / "data"), tmp_path / "run"), registry(), Watcher())


def estimate(model: SimMAT, **changes: int) -> int:
    """Estimate for one channel at 64 px."""
    return estimate_bytes(model, **({"channels": 1, "size": 64, "images": 2, "prompts": 2, "half": False} | changes))  # type: ignore[arg-type]


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

    step = TrainingStep(model, LOSSES["focal"], Asking(box_fraction=0.0, corrections=1))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = step(collate([items[0], items[1]]))
    assert losses["loss"].requires_grad
    assert estimate(model, rounds=2) - weights - 3 * moving == pytest.approx(sum(seen.values()), rel=0.25)


@pytest.mark.parametrize("more", [{"rounds": 3}, {"prompts": 4}, {"images": 4}])
def test_more_of_anything_needs_more(setup: Setup, more: dict[str, int]) -> None:
    """Each of these can be turned down to fit."""
    model = assemble(setup.spec, setup.parts)
    assert estimate(model, **more) > 1.2 * estimate(model)


def test_losses_of_many_prompts_are_kept_a_group_at_a_time(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are recomputed on the way back; counting all would frighten users off a run that fits."""
    model = assemble(setup.spec, setup.parts)
    plain = estimate(model, prompts=16)
    monkeypatch.setattr(memory, "MOST_ELEMENTS", 4 * 64 * 64)
    assert estimate(model, prompts=16) == plain - (2 * 32 - 1) * 4 * 64 * 64 * 4 * memory.FULL_SIZE_TENSORS


def test_estimating_leaves_the_network_as_it_is(setup: Setup) -> None:
    """It runs before the first step of a run that must be the same bits every time."""
    model = assemble(setup.spec, setup.parts).train()
    model.foundation.eval()
    modes = [module.training for module in model.modules()]
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    estimate(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_this_machine_has_memory() -> None:
    """A figure in pages, or in the kilobytes of some systems, would be off by a thousand."""
    had = available_bytes(CPU)
    assert had is not None
    assert 2**28 < had < 2**46


def test_a_container_has_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own memory is not what a job on a cluster may use; "max" is no limit."""
    given, unlimited = tmp_path / "memory.max", tmp_path / "limit"
    given.write_text("1048576\n")
    unlimited.write_text("max\n")
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (unlimited, tmp_path / "none", given))
    assert available_bytes(CPU) == 2**20


@pytest.mark.parametrize(("gib", "processes", "warns"), [(3, 1, False), (5, 1, True), (3, 2, True)])
def test_a_run_that_does_not_fit_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, gib: int, processes: int, warns: bool
) -> None:
    """Processes on one machine share its memory."""
    monkeypatch.setattr(memory, "available_bytes", lambda device: 4 * 2**30)
    said = memory_warning(gib * 2**30, CPU, processes)
    assert bool(said) == warns
    assert not warns or f"needs about {gib * processes}.0 GiB, and cpu has 4.0 GiB" in said


def test_where_nobody_knows_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning out of nothing teaches to overlook warnings."""
    monkeypatch.setattr(memory, "available_bytes", lambda device: None)
    assert memory_warning(2**60, CPU, 1) == ""


def test_the_warning_comes_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After hours in the queue it would be of no use."""
    plans: list[RunPlan] = []

    class Listener(Watcher):
        def started(self, plan: RunPlan) -> None:
            plans.append(plan)

    monkeypatch.setattr(memory, "available_bytes", lambda device: 1024)
    train(config(gray_set(tmp_path / "data"), tmp_path / "run", steps=1), registry(), Listener())
    assert any(note.startswith("Warning: this run needs about") for note in plans[0].notes)
