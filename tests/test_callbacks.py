"""Callbacks that plugins bring: a training does not end because one of them fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import runs

import simmat
from simmat import training
from simmat.callbacks import Callback, Callbacks, ConsoleCallback, TimeLeft
from simmat.config import TrainConfig
from simmat.plugins.kinds import CallbackHook
from simmat.plugins.registry import Registry
from simmat.training.fit import callbacks_of_plugins


class Counts(Callback):
    """Counts steps, and fails at one."""

    def __init__(self, fails_at: int = 0, error: BaseException | None = None) -> None:
        self.steps, self.fails_at, self.error = 0, fails_at, error

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        self.steps += 1
        if self.error is not None and step == self.fails_at:
            raise self.error


CONFIG = cast(TrainConfig, "settings")


def registry_of(*hooks: Any) -> Registry:
    """A registry with these hooks, of the packages p0, p1, …"""
    items = [
        ("callbacks", CallbackHook(f"p{place}", hook), f"p{place} 1.0")
        for place, hook in enumerate(hooks)
    ]
    return Registry([], cast(Any, items))


@pytest.mark.parametrize("error", [RuntimeError("no font"), SystemExit(3)])
def test_a_callback_of_a_plugin_that_fails_is_left_out(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one warning that names the package; the others go on."""
    own, good, bad = Counts(), Counts(), Counts(2, error)
    callbacks = Callbacks(
        [own],
        callbacks_of_plugins(
            CONFIG, registry_of(lambda **_: [[bad]], lambda **_: [[good]])
        ),
    )
    for step in range(1, 5):
        callbacks.stepped(step, {})
    assert (own.steps, good.steps, bad.steps) == (4, 4, 2)
    said = capsys.readouterr().err
    assert said.count("p0 1.0") == 1
    assert type(error).__name__ in said


def test_the_callers_own_callback_may_end_the_training() -> None:
    """It is theirs."""
    with pytest.raises(RuntimeError):
        Callbacks(
            [Counts(1, RuntimeError())], callbacks_of_plugins(CONFIG, registry_of())
        ).stepped(1, {})


def test_a_callback_of_another_kind_is_refused_before_the_training() -> None:
    """It lacks a method that is called after an hour."""

    class Other:
        def stepped(self, step: int, losses: dict[str, float]) -> None: ...

    with pytest.raises(TypeError, match=r"simmat\.Callback.*Other"):
        simmat.train(modality="gray", data="nowhere", out="run", callbacks=[Other()])  # type: ignore[list-item]


def time_left(
    durations_s: list[float],
    *,
    first_step: int = 0,
    best_step: int | None = None,
    fewest_steps: int = 105,
) -> list[str]:
    """What is said after steps that take so long, of a run of 105 steps with a validation after every 10."""
    run: Any = SimpleNamespace(
        steps=105,
        fewest_steps=fewest_steps,
        val_every=10,
        first_step=first_step,
        best_step=best_step,
    )
    now = 0.0
    left = TimeLeft(run, lambda: now)
    said = []
    for number, seconds in enumerate(durations_s, start=1):
        now += seconds
        said.append(left.stepped(first_step + number))
    return said


def test_the_rest_of_a_run_is_told_from_its_own_steps_and_validation() -> None:
    """It is said once, after five steps: before them comes the validation of 20 s."""
    said = time_left([26, 6, 6, 6, 6, 6, 6])
    # 100 steps of 6 s, and 11 validations of 20 s
    line = "about 14 minutes left: 100 steps of 6 s and 11 validations of 20 s"
    assert said == ["", "", "", "", line, "", ""]


@pytest.mark.plugins
def test_without_a_terminal_each_validation_is_a_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bar that is drawn again fills the log of a cluster's job."""
    registry = runs.registry()
    settings = runs.config(data, tmp_path / "run", steps=4, val_every=2, pictures=False)
    with ConsoleCallback() as console:
        training.train(settings, registry, console)
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = [line for line in said.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == [
        f"step {step} of 4" for step in (0, 2, 4)
    ]
    assert "loss" in lines[-1]
