"""Work on many images: the files of one are written while the next one is segmented, and nothing of it is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from simmat.cli.batch import Work, run_all
from simmat.errors import DataError, OutputError


@dataclass(frozen=True)
class Scripted(Work):
    """Work whose two parts do what a test says."""

    name: str
    find: Callable[[], object] = bool
    write: Callable[[], object] = bool

    def is_done(self) -> bool:
        """Return False."""
        return False

    def start(self) -> Callable[[], list[str]]:
        """Do the first part, return the second."""
        self.find()
        return self._write

    def _write(self) -> list[str]:
        self.write()
        return [f"{self.name} is written"]


def _raise(error: BaseException) -> None:
    raise error


def test_files_are_written_while_the_next_image_is_segmented() -> None:
    """Else the network waits for the disk after every image."""
    segmenting = threading.Event()
    first = Scripted("a", write=lambda: _raise(DataError("late")) if not segmenting.wait(10) else None)
    outcome = run_all([first, Scripted("b", find=segmenting.set)], Path("out"))
    assert outcome.done == ("a", "b")
    assert outcome.error is None


def test_what_fails_in_either_part_is_reported_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    """A user goes through the list of files from the top."""
    works = [
        Scripted("a", write=partial(_raise, DataError("a.tif: bad place"))),
        Scripted("b", find=partial(_raise, DataError("b.tif: damaged"))),
        Scripted("c"),
    ]
    outcome = run_all(works, Path("out"))
    assert outcome.done == ("c",)
    text = str(outcome.error)
    assert text.index("a.tif") < text.index("b.tif")
    assert capsys.readouterr().out == "c is written\n"


def test_an_image_that_is_being_written_when_the_call_is_stopped_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """Its files are there, and a later call skips it."""
    written: list[str] = []
    works = [Scripted("a", write=lambda: written.append("a")), Scripted("b", find=partial(_raise, KeyboardInterrupt()))]
    with pytest.raises(KeyboardInterrupt):
        run_all([*works, Scripted("c")], Path("out"))
    shown = capsys.readouterr()
    assert written == ["a"]
    assert shown.out == "a is written\n"
    assert "1 of 3 images are done" in shown.err


def test_a_full_disk_stops_the_call() -> None:
    """The images after it could not be written either."""
    started: list[str] = []
    works = [
        Scripted("a", write=partial(_raise, OutputError("disk full"))),
        Scripted("b", find=lambda: started.append("b")),
        Scripted("c", find=lambda: started.append("c")),
    ]
    with pytest.raises(OutputError, match="disk full"):
        run_all(works, Path("out"))
    assert "c" not in started
