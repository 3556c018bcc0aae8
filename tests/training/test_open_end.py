"""Trainings whose validations decide when they end."""

from __future__ import annotations

from pathlib import Path

import open_end
import pytest
from launched import TWO_PROCESSES, run_python
from runs import config, files_of, gray_set, registry

from simmat import training
from simmat.callbacks import Callback, RunInfo
from simmat.config import load_configs
from simmat.errors import ConfigError
from simmat.training.plan import plan_run
from simmat.training.run_folder import RunFolder, load_state


class Told(Callback):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def started(self, run: RunInfo) -> None:
        self.run = run

    def ending(self, steps: int) -> None:
        self.ends.append(steps)

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        self.last = step
        self.rate = losses["lr"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_set(tmp_path_factory.mktemp("open") / "set", val=6)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("open") / "whole"
    open_end.train(data, out)
    return out


def _steps(run: Path) -> list[int]:
    return [
        record["step"]
        for record in RunFolder(run).records()
        if record["kind"] == "train"
    ]


def _results(run: Path) -> dict[str, bytes]:
    names = ("bundle.safetensors", "last.safetensors", "metrics.jsonl")
    return {name: content for name, content in files_of(run).items() if name in names}


def test_a_training_without_a_number_of_steps_ends_by_its_validation(
    whole: Path,
) -> None:
    """A number that suits a data set is known by nobody before."""
    state = load_state(whole / "last.safetensors", tensors=False).notes
    end = open_end.SHORT.ending(state.scores, 2)
    assert 10 <= end.steps < 24
    assert _steps(whole) == list(range(1, end.steps + 1))
    assert 'steps = "auto"' in (whole / "config.toml").read_text()
    rates = [
        record["lr"]
        for record in RunFolder(whole).records()
        if record["kind"] == "train"
    ]
    assert rates[end.cooldown] == max(rates)
    assert rates[-1] < 0.6 * max(rates)


def test_a_resumed_run_ends_as_the_whole_one(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    """The decision depends on what the state holds alone, not on what the process remembers."""
    last = len(_steps(whole))
    for stop in (1, last // 2, last - 1):
        out = tmp_path / str(stop)
        open_end.train(data, out, stop)
        assert _steps(out)[-1] == stop
        open_end.train(data, out)
        assert _results(out) == _results(whole)


@pytest.mark.slow
def test_two_processes_end_together_and_resume_as_the_whole_run(
    data: Path, tmp_path: Path
) -> None:
    """Processes that disagreed on the last step would wait for each other for ever."""
    script = [*TWO_PROCESSES, open_end.__file__, str(data)]
    run_python([*script, str(tmp_path / "whole")])
    steps = _steps(tmp_path / "whole")
    assert 10 <= len(steps) < 24
    for stop in (3, len(steps) - 1):
        out = tmp_path / str(stop)
        run_python([*script, str(out), str(stop)])
        assert _steps(out)[-1] == stop
        run_python([*script, str(out)])
        assert _results(out) == _results(tmp_path / "whole")


def test_a_run_tells_its_likely_end_and_then_its_end(
    data: Path, tmp_path: Path
) -> None:
    """A bar shows both."""
    told = Told()
    with open_end.short():
        training.train(config(data, tmp_path / "run", steps="auto"), registry(), told)
    assert (told.run.fewest_steps, told.run.steps) == (10, 24)
    assert set(told.ends) == {told.last}


@pytest.mark.parametrize(
    ("val", "changes", "setting", "why"),
    [
        (6, {}, "auto", "250 to 1600 steps"),
        (6, {"steps": "auto"}, "auto", "250 to 1600 steps"),
        (6, {"steps": 40}, 40, ""),
        (6, {"steps": None, "epochs": 3}, None, ""),
        (2, {}, 410, "2 validation images are too few"),
        (6, {"val_images": 5}, 410, "5 validation images are too few"),
        (6, {"keep": "last"}, "auto", "250 to 1600 steps"),
        (
            6,
            {"steps": "auto", "protocol": "simmat-compat"},
            410,
            "simmat-compat has a schedule of its own",
        ),
    ],
)
def test_the_number_of_steps_is_fixed_where_no_validation_can_tell(
    tmp_path: Path, val: int, changes: dict[str, object], setting: object, why: str
) -> None:
    """A few images rise and fall by chance."""
    data = gray_set(tmp_path / "set", val=val)
    settings = {"steps": None, "val_every": None, **changes}
    plan = plan_run(config(data, tmp_path / "run", **settings), registry())
    assert plan.config.steps == setting
    assert (plan.open_end is not None) == (setting == "auto")
    assert why in "\n".join(plan.notes)
    if setting == "auto":
        assert (plan.val_every, plan.warmup) == (25, 20)


@pytest.mark.parametrize("steps", ["all", 0, 2.5, True, 10**10])
def test_steps_are_a_number_or_auto(tmp_path: Path, steps: object) -> None:
    """The message names both."""
    with pytest.raises(ConfigError, match=r"steps.* must be auto or .*got"):
        config(tmp_path, tmp_path / "run", steps=steps)


def test_several_sensors_need_a_number_of_steps(tmp_path: Path) -> None:
    """They have one schedule, and validations of their own."""
    file = tmp_path / "run.toml"
    file.write_text('steps = "auto"\n[[data]]\nmodality = "gray"\ndata = "a"\n')
    with pytest.raises(ConfigError, match="auto is for one sensor; give a number"):
        load_configs(file, {"out": tmp_path / "out"})
