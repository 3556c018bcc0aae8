"""What follows a training: `Callback`, the callbacks of the console and of trackers, and those of plugins."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from simmat.errors import ConfigError
from simmat.io.files import require_inside
from simmat.terminal import escape
from simmat.types import is_finite_number

if TYPE_CHECKING:
    from accelerate import Accelerator

    from simmat.config import TrainConfig
    from simmat.evaluation.scores import Scores


@dataclass(frozen=True, kw_only=True, eq=False)
class RunInfo:
    """What callbacks are told of a run before its first step.

    Attributes:
        config: the settings, with defaults filled in.
        data: folder of the data set.
        splits: those that it has.
        val: ids of the samples of every validation, in the order of the data set.
        train_samples: number of training samples.
        steps: number of optimiser steps, also those before `first_step`; the most, as long as the end is open.
        fewest_steps: the fewest steps; equal to `steps` if the number is known.
        first_step: 0, or the number of steps that a resumed run has done.
        val_every: steps between validations.
        trainable: number of parameters that train.
        total: number of all parameters.
        device: where this process computes.
        processes: number of processes.
        best_miou: validation mIoU of the best bundle of a resumed run; None if it has none.
        best_step: step of that validation.
        notes: sentences for the user, such as how the data was split.
    """

    config: TrainConfig
    data: Path
    splits: frozenset[str]
    val: tuple[str, ...]
    train_samples: int
    steps: int
    fewest_steps: int
    first_step: int
    val_every: int
    trainable: int
    total: int
    device: str
    processes: int
    best_miou: float | None = None
    best_step: int | None = None
    notes: tuple[str, ...] = ()


class Callback:
    """A callback that does nothing; override the methods you need. Only the main process calls them."""

    def preparing(self, what: str, total: int) -> None:
        """A phase of `total` items begins ("statistics", "validation")."""

    def advanced(self, count: int) -> None:
        """`count` more items of the phase are done."""

    def started(self, run: RunInfo) -> None:
        """The first step is about to run."""

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Step `step` (from 1) is done; `losses` has the learning rate too, as "lr"."""

    def validated(
        self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores
    ) -> None:
        """A validation after `step` steps is done.

        Args:
            step: 0 before the first one.
            summary: that of the scores; with a dense head, it also has "everything" and "semantic", and the "score"
                that `best` compares.
            best: whether its bundle is written: it is the best so far, or the run keeps the last state.
            scores: of each object.
        """

    def ending(self, steps: int) -> None:
        """The run ends after `steps` steps; told after each validation from which this is known."""

    def stopped(self) -> None:
        """The run was asked to stop, and its state is saved."""

    def finished(self, bundle: Path) -> None:
        """All steps are done, and this is the bundle of the run, as `load` takes it."""


class Callbacks(Callback):
    """The caller's callbacks, then those of trackers and plugins.

    One of the latter that fails is left out with a warning, and the training continues.
    """

    def __init__(
        self, own: Iterable[Callback], of_plugins: Iterable[tuple[str, Callback]] = ()
    ) -> None:
        """Take the caller's callbacks, and (name for warnings, callback) of trackers and plugins."""
        self._own = list(own)
        self._of_plugins = list(of_plugins)

    def preparing(self, what: str, total: int) -> None:
        """Tell all."""
        self._tell(lambda callback: callback.preparing(what, total))

    def advanced(self, count: int) -> None:
        """Tell all."""
        self._tell(lambda callback: callback.advanced(count))

    def started(self, run: RunInfo) -> None:
        """Tell all."""
        self._tell(lambda callback: callback.started(run))

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Tell all."""
        self._tell(lambda callback: callback.stepped(step, losses))

    def validated(
        self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores
    ) -> None:
        """Tell all."""
        self._tell(
            lambda callback: callback.validated(step, summary, best=best, scores=scores)
        )

    def ending(self, steps: int) -> None:
        """Tell all."""
        self._tell(lambda callback: callback.ending(steps))

    def stopped(self) -> None:
        """Tell all."""
        self._tell(lambda callback: callback.stopped())

    def finished(self, bundle: Path) -> None:
        """Tell all."""
        self._tell(lambda callback: callback.finished(bundle))

    def _tell(self, tell: Callable[[Callback], None]) -> None:
        for callback in self._own:
            tell(callback)
        works = []
        for package, member in self._of_plugins:
            with warned_of_plugin(package):
                tell(member)
                works.append((package, member))
        self._of_plugins = works


@contextmanager
def warned_of_plugin(package: str) -> Iterator[None]:
    """Turn what a plugin raises into a warning."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = f"warning: {package} failed ({type(error).__name__}: {error}); the training continues without it"
        tqdm.write(escape(line), file=sys.stderr)


_TIMED_STEPS = 5
"""Steps that are timed before it is said how long the others take."""
_MIN_SAID_S = 60
"""Shorter rests of a run are not said; its progress bar shows them."""


class TimeLeft:
    """How long the rest of a run takes, from what its first steps and its first validation took."""

    def __init__(self, run: RunInfo, clock: Callable[[], float] = monotonic) -> None:
        """Begin to measure; the first step, or the validation before it, is about to begin."""
        self._run = run
        self._clock = clock
        self._since = clock()
        self._steps_s: list[float] = []
        self._validated_s: list[float] = []  # a step and the validation before it

    def stepped(self, step: int) -> str:
        """Note that a step is done; return how long the rest takes where that is known now, else ""."""
        now = self._clock()
        seconds = now - self._since
        self._since = now
        is_first = step == self._run.first_step + 1
        if is_first and self._run.best_step is not None:
            return ""  # a resumed run starts its loading processes here
        if is_first or (step - 1) % self._run.val_every == 0:
            self._validated_s.append(seconds)
        else:
            self._steps_s.append(seconds)
        if step != self._run.first_step + _TIMED_STEPS:
            return ""
        return self._sentence(step)

    def _sentence(self, step: int) -> str:
        run = self._run
        steps = run.steps - step
        validations = math.ceil(run.steps / run.val_every) - step // run.val_every
        validations_left = f"{validations} validation{'s' * (validations != 1)}"
        # where each step is followed by a validation, they are counted together
        step_s = median(self._steps_s or self._validated_s)
        left_s = steps * step_s
        text = f"{steps} steps of {step_s:.2g} s"
        if self._validated_s:
            validation_s = max(median(self._validated_s) - step_s, 0)
            left_s += validations * validation_s
            text += f" and {validations_left} of {validation_s:.2g} s"
        else:
            text += f", besides {validations_left}"
        if left_s < _MIN_SAID_S:
            return ""
        if run.fewest_steps < run.steps:
            shortest_s = left_s * max(run.fewest_steps - step, 0) / steps
            return f"{_minutes(shortest_s)} to {_minutes(left_s)} left: at most {text}"
        return f"about {_minutes(left_s)} left: {text}"


def _minutes(seconds: float) -> str:
    """Return a duration in words, rounded up: "12 minutes", "1 h 5 min"."""
    minutes = math.ceil(seconds / 60)
    if minutes == 1:
        return "1 minute"
    if minutes < 60:
        return f"{minutes} minutes"
    return f"{minutes // 60} h {minutes % 60} min"


def _steps_of(run: RunInfo) -> str:
    """Return the steps of a run: "200", or "100 to 1600" as long as its end is open."""
    if run.fewest_steps < run.steps:
        return f"{run.fewest_steps} to {run.steps}"
    return str(run.steps)


class ConsoleCallback(Callback):
    """Show a run on stderr: what it trains, then a progress bar with loss, mIoU, speed and remaining time.

    Where stderr is no terminal, each validation is a line instead.

    Args:
        name: shown before the bar; that of a sensor also before what is said of its run.

    Attributes:
        run: what is known of the run; None until it starts, and in processes other than the main one.
        best: the validation mIoU of the bundle so far.
        scored_on: what that validation scored, such as "5 objects in 2 images"; "" if it was before a resumed run.
        bundle: the path of the bundle, when all steps are done.
    """

    def __init__(self, name: str = "train") -> None:
        self.name = name
        self._of_sensor = "" if name == "train" else f"{name}: "
        self.run: RunInfo | None = None
        self.bundle: Path | None = None
        self.best = float("nan")
        self.scored_on = ""
        self.best_step = -1
        # the summary of the last validation
        self._last: Mapping[str, Any] | None = None
        self._time_left: TimeLeft | None = None
        self._bar: tqdm[Any] | None = None
        self._phase: tqdm[Any] | None = None
        self._shown: dict[str, str] = {}

    def __enter__(self) -> ConsoleCallback:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_phase()
        if self._bar is not None:
            self._bar.close()

    def preparing(self, what: str, total: int) -> None:
        """Open a progress bar for a phase."""
        self._end_phase()
        # disable=None: no bar without a terminal, where one per validation would fill the log.
        self._phase = tqdm(
            total=total,
            desc=escape(what),
            leave=False,
            unit="image",
            disable=None,
            file=sys.stderr,
        )

    def advanced(self, count: int) -> None:
        """Advance the phase's bar."""
        if self._phase is not None:
            self._phase.update(count)

    def started(self, run: RunInfo) -> None:
        """Print what will be trained, on how many samples, and where."""
        self._end_phase()
        self.run = run
        if run.best_miou is not None and run.best_step is not None:
            self.best = run.best_miou
            self.best_step = run.best_step
        share = 100 * run.trainable / max(run.total, 1)
        place = f"on {run.device}"
        if run.processes > 1:
            place += f", in {run.processes} processes"
        lines = [
            *run.notes,
            f"{run.train_samples} training and {len(run.val)} validation samples",
            f"{run.trainable:,} of {run.total:,} parameters train ({share:.2f} %)",
            place,
        ]
        if run.first_step:
            lines.append(f"resuming after step {run.first_step} of {_steps_of(run)}")
        for line in lines:
            self._write(line)
        # disable=None: no bar without a terminal
        self._bar = tqdm(
            total=run.steps,
            initial=run.first_step,
            desc=escape(self.name),
            unit="step",
            disable=None,
            file=sys.stderr,
            mininterval=0.5,
            dynamic_ncols=True,
        )
        self._time_left = TimeLeft(run)
        if run.fewest_steps < run.steps:
            self._shown["ends at"] = _steps_of(run)

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Advance the bar and show the loss."""
        if self._bar is not None:
            self._shown["loss"] = f"{losses['loss']:.3f}"
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(1)
        if self._time_left is not None:
            self._write(self._time_left.stepped(step))

    def ending(self, steps: int) -> None:
        """Set the end of the bar, and say it when it becomes known."""
        if self.run is None or steps == self.run.fewest_steps == self.run.steps:
            return
        self.run = replace(self.run, steps=steps, fewest_steps=steps)
        self._shown.pop("ends at", None)
        self._write(f"the learning rate falls now: the run ends after step {steps}")
        if self._bar is not None:
            self._bar.total = steps
            self._bar.set_postfix(self._shown)

    def _write(self, text: str) -> None:
        """Print a line of the run above the bar; "" prints nothing."""
        if text:
            tqdm.write(escape(self._of_sensor + text), file=sys.stderr)

    def validated(
        self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores
    ) -> None:
        """Show the validation score next to the loss, and remember the best."""
        self._end_phase()
        self._last = summary
        if best:
            self.best = summary["miou_object"]
            self.best_step = step
            self.scored_on = (
                f"{summary['objects']} objects in {summary['images']} images"
            )
        shown = [f"{summary['miou_object']:.3f}"]
        for name, block, key in (
            ("AP50", "everything", "ap50"),
            ("class mIoU", "semantic", "miou"),
        ):
            value = (summary.get(block) or {}).get(key)
            if value is not None:
                shown.append(f"{name} {value:.3f}")
        if best and self.run is not None and self.run.config.keep != "last":
            shown.append("(best)")
        self._shown["val mIoU"] = " ".join(shown)
        if self._bar is None or self.run is None:
            return
        if self._bar.disable:
            line = f"step {step} of {_steps_of(self.run)}: val mIoU {' '.join(shown)}"
            if "loss" in self._shown:
                line += f", loss {self._shown['loss']}"
            self._write(line)
        else:
            self._bar.set_postfix(self._shown)

    def finished(self, bundle: Path) -> None:
        """Remember where the bundle is, and warn if it is the model before training."""
        self.bundle = bundle
        if self.best_step != 0 or self.run is None:
            return
        if self.run.config.init is None:
            self._write(
                "Warning: no step had a better validation score than the model before training (step 0); train longer "
                "(--steps) or with another learning rate (--lr)"
            )
            return
        scored = ""
        if self._last is not None:
            scored = (
                f" with {self.best:.3f}; the last state has {self._last['miou_object']:.3f}, over "
                f"{self._last['objects']} objects in {self._last['images']} images"
            )
        self._write(
            "Warning: no step had a better validation score than the bundle of --init, so the result is that bundle "
            f"(step 0{scored}). The last state may still be better: a small difference over few objects is "
            "chance, and labels made from the bundle's own predictions agree with it. Compare both on images that a "
            "person has labelled; --keep last takes the last state. Otherwise train longer (--steps) or with another "
            "learning rate (--lr)"
        )

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._phase.close()
            self._phase = None


def check_tracker(name: str | None) -> None:
    """Raise ConfigError if the package of a tracker is not installed."""
    found = None if name is None else find_spec(name)
    # A folder of that name, as W&B leaves one where it has run, is found without an origin.
    if name is not None and (found is None or found.origin is None):
        raise ConfigError(
            f"--track {name} needs the package {name}, which is not installed; run "
            f"`pip install 'simmat[{name}]'`, or leave --track out"
        )


class TrackingCallback(Callback):
    """Log losses and validation scores by the tracker of a run's accelerator, see `tracked`."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Log losses and learning rate."""
        self._accelerator.log(
            {f"train/{name}": value for name, value in losses.items()}, step=step
        )

    def validated(
        self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores
    ) -> None:
        """Log all scores that are numbers."""
        self._accelerator.log(_numbers(summary, "val/"), step=step)


@contextmanager
def tracked(
    accelerator: Accelerator, config: TrainConfig
) -> Iterator[list[tuple[str, Callback]]]:
    """Start the tracker of a config with its settings, and finish it with the block; ConfigError if it does not start.

    Gives the callbacks that log to it, for `Callbacks(of_plugins=)`; none without `track`.
    """
    if config.track is None:
        yield []
        return
    name = f"--track {config.track}"
    out = config.out
    options: dict[str, dict[str, Any]] = {
        "wandb": {"name": out.name, "dir": str(out)},
        "mlflow": {"run_name": out.name},
    }
    # TensorBoard's is a folder in the run's
    project = "tensorboard" if config.track == "tensorboard" else "simmat"
    require_inside(out, out / "tensorboard", out / "wandb")
    settings = {}
    for key, value in config.model_dump(mode="json", exclude_none=True).items():
        if isinstance(value, bool | int | float | str):
            settings[key] = value
        else:
            settings[key] = json.dumps(value)
    try:
        accelerator.init_trackers(project, settings, options)
    except Exception as error:  # trackers raise errors of many types
        raise ConfigError(
            f"{name} did not start ({type(error).__name__}: {error}); log in or set its server as its manual says, or "
            f"remove track from {out / 'config.toml'} and resume the run"
        ) from error
    try:
        yield [(name, TrackingCallback(accelerator))]
    finally:
        with warned_of_plugin(name):
            for tracker in accelerator.trackers:
                tracker.finish()


def _numbers(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the finite numbers of a table and those within it, by their path: "val/by_size/small/miou_object"."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{name}/")
        elif is_finite_number(value):
            found[prefix + name] = float(value)
    return found
