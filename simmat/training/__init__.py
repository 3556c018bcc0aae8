"""Train: `train` a config, `resume` a run, follow both with a `Callback`."""

from __future__ import annotations

from simmat.callbacks import Callback, RunPlan
from simmat.training.callbacks import ConsoleCallback
from simmat.training.fit import Diverged, Interrupted
from simmat.training.plan import TrainingPlan, check_out_outside_data, choose_network, open_data, plan_run
from simmat.training.run_folder import RunFolder
from simmat.training.start import UntrainedScores, resume, score_untrained, started_configs, train, train_sensors
from simmat.training.state import changes_noted, fingerprint_in

__all__ = [
    "Callback",
    "ConsoleCallback",
    "Diverged",
    "Interrupted",
    "RunFolder",
    "RunPlan",
    "TrainingPlan",
    "UntrainedScores",
    "changes_noted",
    "check_out_outside_data",
    "choose_network",
    "fingerprint_in",
    "open_data",
    "plan_run",
    "resume",
    "score_untrained",
    "started_configs",
    "train",
    "train_sensors",
]
