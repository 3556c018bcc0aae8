"""What a validation scores, and how often there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import config, gray_set, registry

from simmat.data.index import read_index
from simmat.training import validation
from simmat.training.length import find_length
from simmat.training.plan import plan_run
from simmat.training.validation import (
    prompted_share,
    validation_interval,
    work_of_validation,
)


@pytest.mark.parametrize("work", [1, 7, 60, 300])
@pytest.mark.parametrize("steps", [40, 100, 244, 1000])
def test_validation_is_at_most_a_fifth_of_the_work(work: float, steps: int) -> None:
    """Only in a run too short for two is it more: its first and its last step are always scored."""
    every = validation_interval(work, steps, batch_size=4)
    validations = 1 + -(-steps // every)
    assert 2 <= validations <= 11
    assert validations == 2 or 4 * validations * work <= 3 * 4 * steps


@pytest.mark.parametrize(
    ("val", "heads", "enough", "used"),
    [
        (2, "prompt", 10, 2),
        (14, "prompt", 10, 10),
        (14, "prompt,dense", 30, 8),
        (14, "prompt,dense", 6, 6),
    ],
)
def test_a_slow_validation_has_fewer_images_at_any_length(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    val: int,
    heads: str,
    enough: int,
    used: int,
) -> None:
    """Runs on other images could not be compared, and fewer than six images choose nothing."""
    monkeypatch.setattr(validation, "ENOUGH_WORK", enough)
    data = gray_set(tmp_path / "data", val=val)
    for steps in (12, 1000):
        plan = plan_run(
            config(data, tmp_path / "run", steps=steps, heads=heads, val_every=None),
            registry(),
        )
        assert len(plan.val) == used
        assert any(f"{used} of {val} samples" in note for note in plan.notes) == (
            used < val
        )


def test_a_validation_prompts_for_a_fixed_number_of_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where images hold hundreds, prompts would take longer than the steps between two validations."""
    data = gray_set(tmp_path / "data", val=6)
    settings = config(data, tmp_path / "run")
    plan = plan_run(settings, registry())
    index = read_index(plan.dataset)
    before = work_of_validation(index, plan.val, plan.config, plan.spec)
    assert plan.val_share == 1
    assert not any("prompts for about" in note for note in plan.notes)
    monkeypatch.setattr(validation, "MAX_OBJECTS", 3)
    assert prompted_share(index, plan.val) == 3 / 12
    assert work_of_validation(index, plan.val, plan.config, plan.spec) <= before
    notes = plan_run(settings, registry()).notes
    assert any("of the 12 objects" in note for note in notes)


@pytest.mark.parametrize(("work", "every"), [(1, 25), (120, 40), (1000, 100)])
def test_an_open_training_validates_in_time_for_its_earliest_end(
    tmp_path: Path, work: float, every: int
) -> None:
    """Four times as far apart as one takes; but its scores decide when it ends, from 100 steps on."""
    settings = config(
        tmp_path, tmp_path / "run", steps="auto", batch_size=4, val_every=None
    )
    assert (
        find_length(settings, train_count=40, val_count=6, work=work).val_every == every
    )
