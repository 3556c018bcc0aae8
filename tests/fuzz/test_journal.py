"""A run of damaged files that is stopped continues where it was."""

from __future__ import annotations

from pathlib import Path

from fuzz.journal import Journal
from fuzz.outcome import Outcome


def test_a_later_call_runs_what_is_open_and_what_failed(tmp_path: Path) -> None:
    """20,000 cases of each reader take hours, and a reader that was mended must be tried again."""
    first = Journal(tmp_path / "png.jsonl")
    for number in (0, 1, 2, 5):
        first.add(Outcome(number, "value" if number else "refused"))
    first.add(Outcome(3, "exception", "KeyError"))
    first.write()
    second = Journal(tmp_path / "png.jsonl")
    assert list(second.open_numbers(range(7))) == [3, 4, 6]
    assert second.counts == {"value": 3, "refused": 1}
    assert second.failures[3].what == "KeyError"
    second.add(Outcome(3, "refused"))
    second.write()
    third = Journal(tmp_path / "png.jsonl")
    assert list(third.open_numbers(range(7))) == [4, 6]
    assert not third.failures


def test_what_a_killed_call_wrote_by_half_is_passed_over(tmp_path: Path) -> None:
    """Its cases run again; the rest counts."""
    path = tmp_path / "png.jsonl"
    path.write_text('{"passed": [0, 1], "value": 2}\n{"passed": [2, 3], "va')
    assert list(Journal(path).open_numbers(range(4))) == [2, 3]
