"""Work on many images: the files of one are written while the next one is segmented, and nothing of it is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from simmat.errors import DataError, OutputError
from simmat.inference.job import ImageOutcome, ImageTask, Progress, joint_error
from simmat.inference.run import Run
from simmat.inference.segmenter import Segmenter
from simmat.nn.device import Processes


class Scripted:
    """A segmenter whose two parts of each image do what a test says."""

    def __init__(self, find: dict[str, Callable[[], object]], write: dict[str, Callable[[], object]]) -> None:
        self.find, self.write, self.said = find, write, []
        self.job = SimpleNamespace(out=Path("out"))
        self.progress = Progress()
        self.progress.note = self.said.append  # type: ignore[method-assign]

    def earlier_outcome(self, task: ImageTask) -> None:
        """Nothing is done yet."""

    def start(self, task: ImageTask) -> Callable[[], ImageOutcome]:
        """Do the first part, return the second."""
        self.find.get(task.name, bool)()

        def finish() -> ImageOutcome:
            self.write.get(task.name, bool)()
            return ImageOutcome(task.name)

        return finish


ALONE = Processes(torch.device("cpu"))


def _run(names: str, find: Any = None, write: Any = None) -> tuple[Run, Scripted]:
    scripted = Scripted(find or {}, write or {})
    return Run(cast(Segmenter, scripted), [ImageTask(name, {}) for name in names]), scripted


def _raise(error: BaseException) -> None:
    raise error


def test_files_are_written_while_the_next_image_is_segmented() -> None:
    """Else the network waits for the disk after every image."""
    segmenting = threading.Event()
    late = {"a": lambda: _raise(DataError("late")) if not segmenting.wait(10) else None}
    run, _ = _run("ab", {"b": segmenting.set}, late)
    run.run(ALONE)
    assert [outcome.error for outcome in run.outcomes.values()] == [None, None]


def test_what_fails_in_either_part_is_reported_in_order() -> None:
    """A user goes through the list of files from the top."""
    find, write = {"b": partial(_raise, DataError("b.tif: damaged"))}, {"a": partial(_raise, DataError("a.tif: bad"))}
    run, _ = _run("abc", find, write)
    run.run(ALONE)
    assert list(run.outcomes) == ["a", "b", "c"]
    assert run.outcomes["c"].error is None
    text = str(joint_error(list(run.outcomes.values()), Path("out")))
    assert text.index("2 of 3") < text.index("a.tif") < text.index("b.tif")


def test_an_image_that_is_being_written_when_the_call_is_stopped_counts() -> None:
    """Its files are there, and a later call skips it."""
    written: list[str] = []
    run, scripted = _run("abc", {"b": partial(_raise, KeyboardInterrupt())}, {"a": lambda: written.append("a")})
    with pytest.raises(KeyboardInterrupt):
        run.run(ALONE)
    assert written == list(run.outcomes) == ["a"]
    assert "1 of 3 images are done" in scripted.said[0]


def test_a_full_disk_stops_the_call() -> None:
    """The images after it could not be written either."""
    started: list[str] = []
    find = {name: partial(started.append, name) for name in "bc"}
    run, _ = _run("abc", find, {"a": partial(_raise, OutputError("disk full"))})
    with pytest.raises(OutputError, match="disk full"):
        run.run(ALONE)
    assert "c" not in started
