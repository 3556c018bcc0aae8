"""The training job: `train` a config, `resume` a run, watch both."""

from __future__ import annotations

from simmat.training.loop import Diverged, Interrupted, resume, train
from simmat.training.resume_checks import changes_noted
from simmat.training.run_folder import RunFolder
from simmat.training.setup import open_data
from simmat.training.state import fingerprint_in
from simmat.training.untrained import Untrained, score_untrained
from simmat.training.watch import RunPlan, Watcher

__all__ = [
    "Diverged",
    "Interrupted",
    "RunFolder",
    "RunPlan",
    "Untrained",
    "Watcher",
    "changes_noted",
    "fingerprint_in",
    "open_data",
    "resume",
    "score_untrained",
    "train",
]
