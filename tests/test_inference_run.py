"""Work on many images: what fails is collected, and nothing that is done is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from simmat.inference.job import ImageOutcome, ImageTask, Progress, joint_error
from simmat.inference.segmenter import Segmenter

from simmat.errors import DataError, OutputError
from simmat.inference.run import Run
from simmat.nn.device import Processes

ALONE = Processes(torch.device("cpu"))


class Scripted:
    """A segmenter that does with each image what a test says."""

    def __init__(self, actions: dict[str, Callable[[], object]]) -> None:
        self.actions, self.said = actions, []
        self.job = SimpleNamespace(out=Path("out"))
        self.progress = Progress()
        self.progress.note = self.said.append  # type: ignore[method-assign]

    def earlier_outcome(self, task: ImageTask) -> None:
        """Nothing is done yet."""

    def segment(self, task: ImageTask) -> ImageOutcome:
        """Do what the test says."""
        self.actions.get(task.name, bool)()
        return ImageOutcome(task.name)


def _run(names: str, **actions: Callable[[], object]) -> tuple[Run, Scripted]:
    scripted = Scripted(actions)
    return Run(cast(Segmenter, scripted), [ImageTask(name, {}) for name in names]), scripted


def _raise(error: BaseException) -> None:
    raise error


def test_what_fails_is_reported_in_order() -> None:
    """A user goes through the list of files from the top."""
    run, _ = _run("abc", a=partial(_raise, DataError("a.tif: bad")), b=partial(_raise, DataError("b.tif: damaged")))
    run.run(ALONE)
    assert list(run.outcomes) == ["a", "b", "c"]
    assert run.outcomes["c"].error is None
    text = str(joint_error(list(run.outcomes.values()), Path("out")))
    assert text.index("2 of 3") < text.index("a.tif") < text.index("b.tif")


def test_a_call_that_is_stopped_says_what_is_done() -> None:
    """A later call skips it."""
    run, scripted = _run("abc", b=partial(_raise, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run.run(ALONE)
    assert list(run.outcomes) == ["a"]
    assert "1 of 3 images are done" in scripted.said[0]


def test_a_full_disk_stops_the_call() -> None:
    """The images after it could not be written either."""
    started: list[str] = []
    run, _ = _run("abc", a=partial(_raise, OutputError("disk full")), b=partial(started.append, "b"))
    with pytest.raises(OutputError, match="disk full"):
        run.run(ALONE)
    assert not started
