"""The harness `tests/kill` runs: a few random kills; `make kill` runs 50."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_commands_killed_at_random_moments_end_as_if_never_stopped() -> None:
    """A power cut costs time, never the result, and leaves nothing behind."""
    harness = Path(__file__).parents[1] / "kill"
    # A process of its own: it forks, and must do so with one thread.
    ended = subprocess.run(
        [sys.executable, str(harness), "--kills", "8", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
