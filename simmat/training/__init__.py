"""Train: `train` a config, `resume` a run, follow both with a `Callback`."""

from __future__ import annotations

from simmat.callbacks import Callback, RunPlan
from simmat.training.callbacks import ConsoleCallback
from simmat.training.compatibility import changes_noted
from simmat.training.loop import Interrupted, UntrainedScores, resume, score_untrained, train, train_sensors
from simmat.training.run import Diverged
from simmat.training.run_folder import RunFolder
from simmat.training.setup import check_out_outside_data, choose_network, open_data
from simmat.training.state import fingerprint_in

__all__ = [
    "Callback",
    "ConsoleCallback",
    "Diverged",
    "Interrupted",
    "RunFolder",
    "RunPlan",
    "UntrainedScores",
    "changes_noted",
    "check_out_outside_data",
    "choose_network",
    "fingerprint_in",
    "open_data",
    "resume",
    "score_untrained",
    "train",
    "train_sensors",
]
