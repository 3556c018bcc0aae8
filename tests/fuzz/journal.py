"""What was run: kept in a file a target, so that a later call continues there, with any number of jobs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from fuzz.outcome import Outcome

_MOST = 200
"""Outcomes that are held before they are written; a killed call loses no more of a target."""


class Journal:
    """The outcomes of one target and seed.

    A line is either numbers that passed ({"passed": [first, last], counts}) or one that failed. A case that failed
    counts as not run, so that the next call tries it again.

    Args:
        path: the file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.failures: dict[int, Outcome] = {}
        self._passed: set[int] = set()
        self._held: list[Outcome] = []
        for line in path.read_text().splitlines() if path.is_file() else ():
            self._take(line)

    def open_numbers(self, wanted: range) -> Iterator[int]:
        """Yield those of the numbers that did not pass yet, those that failed first."""
        yield from (number for number in sorted(self.failures) if number in wanted)
        yield from (number for number in wanted if number not in self._passed and number not in self.failures)

    def passed(self, wanted: range) -> int:
        """Return how many of the numbers have passed."""
        return sum(number in self._passed for number in wanted)

    def add(self, outcome: Outcome) -> None:
        """Note one outcome."""
        if outcome.failed:
            self.write()
            self.failures[outcome.number] = outcome
            self._append({"failed": asdict(outcome)})
            return
        self._held.append(outcome)
        if len(self._held) >= _MOST:
            self.write()

    def write(self) -> None:
        """Write what is held."""
        for run in _runs(self._held):
            numbers = [run[0].number, run[-1].number]
            line: dict[str, object] = {"passed": numbers, **Counter(str(outcome.kind) for outcome in run)}
            self._append(line)
            self._take(json.dumps(line))
        self._held = []

    def _append(self, line: dict[str, object]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _take(self, line: str) -> None:
        try:
            said = json.loads(line)
        except ValueError:  # the last line of a call that was killed
            return
        if "failed" in said:
            failed = Outcome(**said["failed"])
            self.failures[failed.number] = failed
            return
        first, last = said.pop("passed")
        self._passed |= set(range(first, last + 1))
        self.counts.update(said)
        for number in range(first, last + 1):
            self.failures.pop(number, None)


def _runs(outcomes: list[Outcome]) -> Iterator[list[Outcome]]:
    """Part outcomes into runs of consecutive numbers."""
    run: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda one: one.number):
        if run and outcome.number != run[-1].number + 1:
            yield run
            run = []
        run.append(outcome)
    if run:
        yield run
