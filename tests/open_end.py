"""Trainings with an open end of few steps, in a process of their own or in several: DATA OUT [STEP TO STOP AT]."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from runs import StopAt, config, registry

from simmat import training
from simmat.training import length
from simmat.training.length import OpenEnd

SHORT = OpenEnd(min_steps=10, max_steps=24, min_rise=0.01, cooldown_share=0.5)


def short() -> Any:
    """Patch the rule by which trainings end, so that few steps show it."""
    return mock.patch.object(length, "OPEN_END", SHORT)


def train(data: Path, out: Path, stop: int | None = None, **changes: Any) -> None:
    """Train or, if there is a run, resume; with `stop` it is interrupted after so many steps."""
    callback = None if stop is None else StopAt(stop)
    with short(), suppress(training.Interrupted):
        if (out / "config.toml").exists():
            training.resume(out, registry(), callback)
        else:
            settings = config(
                data, out, **{"steps": None, "warmup_steps": 2, **changes}
            )
            training.train(settings, registry(), callback)


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
