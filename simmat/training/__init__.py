"""Train: `train` a config, `resume` a run, follow both with a `Callback`."""

from __future__ import annotations

from simmat.callbacks import Callback, ConsoleCallback, RunInfo
from simmat.training.fit import Diverged, Interrupted
from simmat.training.network import choose_network
from simmat.training.plan import (
    TrainingPlan,
    check_out_outside_data,
    open_data,
    plan_run,
    subset_of,
)
from simmat.training.run_folder import RunFolder, changes_noted, fingerprint_in
from simmat.training.start import resume, started_configs, train, train_configs
from simmat.training.step import StepOutputs

__all__ = [
    "Callback",
    "ConsoleCallback",
    "Diverged",
    "Interrupted",
    "RunFolder",
    "RunInfo",
    "StepOutputs",
    "TrainingPlan",
    "changes_noted",
    "check_out_outside_data",
    "choose_network",
    "fingerprint_in",
    "open_data",
    "plan_run",
    "resume",
    "started_configs",
    "subset_of",
    "train",
    "train_configs",
]
