"""Callbacks of a training run: of the caller and of plugins, on the console, and for a tracker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from simmat.callbacks import Callback, RunPlan
from simmat.errors import ConfigError
from simmat.terminal import escape
from simmat.types import is_finite_number

if TYPE_CHECKING:
    from accelerate import Accelerator

    from simmat.config import TrainConfig
    from simmat.evaluation.scores import Scores
    from simmat.plugins.registry import Registry


class Callbacks(Callback):
    """Several callbacks, called in their order; those of plugins last, and in isolation.

    A callback of a plugin that fails is left out with a warning: the training is worth more.
    """

    def __init__(self, *members: Callback, of_plugins: Iterable[tuple[str, Callback]] = ()) -> None:
        """Take callbacks, and those of plugins with the package of each."""
        self._members, self._of_plugins = members, list(of_plugins)
        for name in ("preparing", "advanced", "started", "stepped", "validated", "stopped", "finished"):
            setattr(self, name, partial(self._tell, name))

    @classmethod
    def with_plugins(cls, callback: Callback, config: TrainConfig, registry: Registry) -> Callbacks:
        """Return a callback together with those that plugins have for a run."""
        found: list[tuple[str, Callback]] = []
        for package, hook in registry.callback_hooks():
            with _warned(package):
                given = hook.make(config=config, registry=registry)
                found += [(package, member) for members in given for member in members]
        return cls(callback, of_plugins=found)

    def _tell(self, name: str, *args: Any, **kwargs: Any) -> None:
        for member in self._members:
            getattr(member, name)(*args, **kwargs)
        works = []
        for package, member in self._of_plugins:
            with _warned(package):
                getattr(member, name)(*args, **kwargs)
                works.append((package, member))
        self._of_plugins = works


@contextmanager
def _warned(package: str) -> Iterator[None]:
    """Turn what a plugin raises into a warning."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = f"warning: {package} failed ({type(error).__name__}: {error}); the training goes on without it"
        tqdm.write(escape(line), file=sys.stderr)


class ConsoleCallback(Callback):
    """Show a run on stderr: its plan, then a progress bar with loss, mIoU, speed and remaining time.

    Attributes:
        plan: the run's plan; None until it starts, and in processes other than the main one.
        best: the validation mIoU of the best bundle so far.
    """

    def __init__(self) -> None:
        self.plan: RunPlan | None = None
        self.best = float("nan")
        self.best_step = -1
        self._bar: tqdm[Any] | None = None
        self._phase: tqdm[Any] | None = None
        self._shown: dict[str, str] = {}

    def __enter__(self) -> ConsoleCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_phase()
        if self._bar is not None:
            self._bar.close()

    def preparing(self, what: str, total: int) -> None:
        """Open a progress bar for a phase."""
        self._end_phase()
        # disable=None: no bar without a terminal, where one per validation would fill the log.
        self._phase = tqdm(total=total, desc=escape(what), leave=False, unit="image", disable=None, file=sys.stderr)

    def advanced(self, count: int) -> None:
        """Advance the phase's bar."""
        if self._phase is not None:
            self._phase.update(count)

    def started(self, plan: RunPlan) -> None:
        """Print what will be trained, on how many samples, and how much memory it needs."""
        self._end_phase()
        self.plan = plan
        if plan.best_miou is not None and plan.best_step is not None:
            self.best, self.best_step = plan.best_miou, plan.best_step
        share = 100 * plan.trainable / max(plan.total, 1)
        for line in (
            *plan.notes,
            f"{plan.train_samples} training and {len(plan.val)} validation samples",
            f"{plan.trainable:,} of {plan.total:,} parameters train ({share:.2f} %)",
            f"about {_bytes(plan.memory_bytes)} of memory on {plan.device}"
            + (f" in each of {plan.processes} processes" if plan.processes > 1 else ""),
        ):
            tqdm.write(escape(line), file=sys.stderr)
        if plan.first_step:
            tqdm.write(escape(f"resuming after step {plan.first_step} of {plan.steps}"), file=sys.stderr)
        self._bar = tqdm(
            total=plan.steps,
            initial=plan.first_step,
            desc="train",
            unit="step",
            file=sys.stderr,
            mininterval=0.5,
            dynamic_ncols=True,
        )

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Advance the bar and show the loss."""
        if self._bar is not None:
            self._shown["loss"] = f"{losses['loss']:.3f}"
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(1)

    def validated(self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores) -> None:
        """Show the validation score next to the loss, and remember the best."""
        self._end_phase()
        if best:
            self.best, self.best_step = summary["miou_object"], step
        shown = [f"{summary['miou_object']:.3f}"]
        for name, block, key in (("AP50", "everything", "ap50"), ("class mIoU", "semantic", "miou")):
            value = (summary.get(block) or {}).get(key)
            shown += [] if value is None else [f"{name} {value:.3f}"]
        self._shown["val mIoU"] = " ".join(shown) + (" (best)" if best else "")
        if self._bar is not None:
            self._bar.set_postfix(self._shown)

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._phase.close()
            self._phase = None


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(count / 2**20, 1):.0f} MiB"


PROJECT = {"tensorboard": "tensorboard", "wandb": "simmat", "mlflow": "simmat"}
"""Tracker -> name of the project; TensorBoard's is a folder in that of the run."""

_REMEDY = {
    "mlflow": "set MLFLOW_TRACKING_URI to your server, or `pip install mlflow`, which keeps a database here, ",
    "wandb": "log in with `wandb login`, or set WANDB_MODE=offline, ",
}
"""Tracker -> what to do where it does not start."""


def check_tracker(name: str | None) -> None:
    """Check that the package of a tracker is installed.

    Raises:
        ConfigError: it is not.
    """
    found = None if name is None else find_spec(name)
    # A folder of that name, as W&B leaves one where it has run, is found without an origin.
    if name is not None and (found is None or found.origin is None):
        raise ConfigError(
            f"--track {name} needs the package {name}, which is not installed; run "
            f"`pip install 'simmat[{name}]'`, or leave --track out"
        )


class TrackingCallback(Callback):
    """Log settings, losses and validation scores to the tracker of a run.

    A tracker that fails later on, as by a server that is gone, is left with a warning: the training is worth more.
    """

    def __init__(self, accelerator: Accelerator, config: TrainConfig) -> None:
        """Make a callback; nothing starts yet.

        Args:
            accelerator: of the run, made with `log_with`.
            config: of the run, with `track`.
        """
        self._accelerator, self._config = accelerator, config
        self._works = False

    def __enter__(self) -> TrackingCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._works:
            self._try("end", lambda: [tracker.finish() for tracker in self._accelerator.trackers])

    def started(self, plan: RunPlan) -> None:
        """Start the tracker with the settings of the run.

        Raises:
            ConfigError: the tracker does not start.
        """
        name, out = str(self._config.track), self._config.out
        options: dict[str, dict[str, Any]] = {
            "wandb": {"name": out.name, "dir": str(out)},
            "mlflow": {"run_name": out.name},
        }
        try:
            self._accelerator.init_trackers(PROJECT[name], _settings(self._config), options)
        except Exception as error:  # trackers raise errors of many types
            raise ConfigError(
                f"--track {name} does not start ({type(error).__name__}: {error}); {_REMEDY.get(name, '')}or remove "
                f"track from {out / 'config.toml'} and resume the run"
            ) from error
        self._works = True

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Log losses and learning rate."""
        self._log({f"train/{name}": value for name, value in losses.items()}, step)

    def validated(self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores) -> None:
        """Log all scores that are numbers."""
        self._log(_numbers(summary, "val/"), step)

    def _log(self, values: dict[str, float], step: int) -> None:
        self._try("log", lambda: self._accelerator.log(values, step=step))

    def _try(self, what: str, act: Any) -> None:
        if not self._works:
            return
        try:
            act()
        except Exception as error:  # trackers raise errors of many types
            self._works = False
            line = (
                f"warning: --track {self._config.track} cannot {what} ({type(error).__name__}: {error}); it is left out"
            )
            tqdm.write(escape(line), file=sys.stderr)


def _settings(config: TrainConfig) -> dict[str, bool | int | float | str]:
    """Return the settings that are set; tables and lists as json text."""
    values = config.model_dump(mode="json", exclude_none=True)
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in values.items()
    }


def _numbers(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the finite numbers of a table and those within it, by their path: "val/by_size/small/miou_object"."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{name}/")
        elif is_finite_number(value):
            found[prefix + name] = float(value)
    return found
