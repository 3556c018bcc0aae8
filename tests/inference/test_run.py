"""Work on many images: what fails is collected, and nothing that is done is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from simmat.cli.predict import joint_error
from simmat.errors import DataError, OutputError
from simmat.inference import ImageOutcome, Progress
from simmat.inference import run as run_module
from simmat.inference.images import ImageTask
from simmat.inference.run import ImageRun
from simmat.nn.device import Processes

ALONE = Processes(torch.device("cpu"))


class Said(Progress):
    """Keeps what a call tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ImageRun, Said]]:
    """Return what makes a run of images that does with each of them what a test says."""

    def make(names: str, **actions: Callable[[], object]) -> tuple[ImageRun, Said]:
        def segment(predictor: object, request: object, writer: object, task: ImageTask, *_: object) -> ImageOutcome:
            actions.get(task.name, bool)()
            return ImageOutcome(task.name)

        monkeypatch.setattr(run_module, "segment_image", segment)
        writer = SimpleNamespace(out=Path("out"), earlier_outcome=lambda task: None)
        said = Said()
        unused = cast(Any, None)
        return ImageRun(unused, unused, cast(Any, writer), [ImageTask(name, {}) for name in names], said), said

    return make


def _raise(error: BaseException) -> None:
    raise error


def test_what_fails_is_reported_in_order(start: Callable[..., tuple[ImageRun, Said]]) -> None:
    """A user goes through the list of files from the top."""
    run, _ = start("abc", a=partial(_raise, DataError("a.tif: bad")), b=partial(_raise, DataError("b.tif: damaged")))
    run.run(ALONE)
    assert list(run.outcomes) == ["a", "b", "c"]
    assert run.outcomes["c"].error is None
    text = str(joint_error(list(run.outcomes.values()), Path("out")))
    assert text.index("2 of 3") < text.index("a.tif") < text.index("b.tif")


def test_a_call_that_is_stopped_says_what_is_done(start: Callable[..., tuple[ImageRun, Said]]) -> None:
    """A later call skips it."""
    run, said = start("abc", b=partial(_raise, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run.run(ALONE)
    assert list(run.outcomes) == ["a"]
    assert "1 of 3 images are done" in said.notes[0]


def test_a_full_disk_stops_the_call(start: Callable[..., tuple[ImageRun, Said]]) -> None:
    """The images after it could not be written either."""
    started: list[str] = []
    run, _ = start("abc", a=partial(_raise, OutputError("disk full")), b=partial(started.append, "b"))
    with pytest.raises(OutputError, match="disk full"):
        run.run(ALONE)
    assert not started
