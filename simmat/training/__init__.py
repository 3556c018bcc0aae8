"""The training job: `train` a config, `resume` a run, watch both."""

from __future__ import annotations

from simmat.training.loop import Diverged, Interrupted, resume, train
from simmat.training.watch import RunPlan, Watcher

__all__ = ["Diverged", "Interrupted", "RunPlan", "Watcher", "resume", "train"]
