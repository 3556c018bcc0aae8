"""Log a run to TensorBoard, Weights & Biases or MLflow, by accelerate's trackers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from simmat.config import TrainConfig
from simmat.errors import ConfigError
from simmat.evaluation import Scores
from simmat.terminal import escape
from simmat.training.callbacks import Callback, RunPlan
from simmat.types import is_finite_number

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
