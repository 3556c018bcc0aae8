"""Damaged files: a value that holds what it promises, or a SimMATError; never a traceback, a hang or a leftover.

100 cases of every target; of the heavy ones (`Target.weight`) as many fewer as one of them is heavier.
`make fuzz` runs 20,000 of each.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuzz.outcome import Outcome
from fuzz.run import told
from fuzz.targets import TARGETS, missing_module

CASES = 100
SEED = 0


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused(name: str, run_cases: Callable[[str, int, int], list[Outcome]]) -> None:
    """What a stranger sends must end in one clear error, within limits of time and memory."""
    target = TARGETS[name]
    if (missing := missing_module(target)) is not None:
        pytest.skip(f"{missing} is not installed")
    cases = CASES // target.weight
    outcomes = run_cases(name, SEED, cases)
    assert len(outcomes) == cases
    assert any(outcome.kind == "value" for outcome in outcomes), "all were refused: the seeds are not valid any more"
    failed = [told(name, SEED, outcome) for outcome in outcomes if outcome.failed]
    assert not failed, "\n".join([f"{len(failed)} of {cases} cases failed", *failed[:10]])
