"""Trainings whose validations decide when they end."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import open_end
import pytest
import torch
from launched import TWO_PROCESSES, run_python
from runs import config, files_of, gray_set, registry

from simmat.bundle import read_bundle
from simmat.callbacks import Callback, RunInfo
from simmat.config import load_configs
from simmat.errors import ConfigError
from simmat.training.length import Ending, OpenEnd
from simmat.training.mean_weights import forget_mean, mean_weights, update_mean
from simmat.training.plan import plan_run
from simmat.training.run_folder import RunFolder, load_state
from simmat.training.step import learning_rate


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
    assert rates[end.cooldown_start] == max(rates)
    assert rates[-1] < 0.6 * max(rates)


@pytest.mark.slow
def test_a_resumed_run_ends_as_the_whole_one(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    """The decision depends on what the state holds alone, not on what the process remembers."""
    last = len(_steps(whole))
    for stop in (last // 2, last - 1):
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


END = OpenEnd(min_steps=100, max_steps=1000, min_rise=0.01, cooldown_share=0.25)


def test_a_score_that_stands_still_ends_the_training_with_a_cooldown() -> None:
    """The rate falls for a quarter of the steps before."""
    scores = [0.1, 0.4, 0.6, 0.7, 0.8, 0.8, 0.8]
    assert END.ending(scores[:6], 25) == Ending(800, 1000)  # it still rises
    flat = [*scores, 0.8, 0.8]
    assert END.ending(flat, 25) == Ending(800, 1000)  # only once without a rise
    assert END.ending([*flat, 0.8], 25) == Ending(cooldown_start=225, steps=282)


@pytest.mark.parametrize("val_every", [1, 7, 25, 100, 5000])
def test_no_score_ends_a_training_outside_of_its_bounds(val_every: int) -> None:
    """The number of steps, shown before the first one, holds whatever the data."""
    rng = np.random.default_rng(val_every)
    for _ in range(50):
        count = int(rng.integers(0, 60))
        found = END.ending(rng.random(count).tolist(), val_every)
        assert END.min_steps <= found.steps <= END.max_steps
        assert 0 < found.cooldown_start < found.steps


def test_later_scores_never_move_an_end_that_is_decided() -> None:
    """The rate already falls: a resumed run, which knows more scores, would fall at other steps."""
    rng = np.random.default_rng(0)
    scores = np.cumsum(rng.random(60) * 0.1 * 0.8 ** np.arange(60)).tolist()
    ends = [END.ending(scores[:count], 10) for count in range(len(scores) + 1)]
    decided = [end for end in ends if end.steps < END.max_steps]
    assert decided
    assert len(set(decided)) == 1
    assert ends[-1] == decided[0]


def test_the_rate_stays_at_its_peak_and_falls_in_the_cooldown() -> None:
    """Warm-up, constant rate, cool-down, as in arXiv 2405.18392."""

    def rate(step: int, cooldown_start: int, steps: int) -> float:
        return learning_rate(
            step,
            peak=1.0,
            steps=steps,
            warmup=20,
            cooldown_start=cooldown_start,
            schedule="cosine",
        )

    open_end = [rate(step, 800, 1000) for step in range(150)]
    assert open_end[0] == 1 / 20
    assert open_end[20:] == [1.0] * 130
    falling = [rate(step, 150, 188) for step in range(150, 188)]
    assert falling[0] == 1.0
    assert falling == sorted(falling, reverse=True)
    assert 0.01 < falling[-1] < 0.02
    # a fixed number of steps has the cosine as ever
    assert rate(100, 0, 180) == pytest.approx(
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2))
    )


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
