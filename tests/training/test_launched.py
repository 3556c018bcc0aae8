"""A command that hangs or fails says so, and what it wrote, in a time that is known."""

from __future__ import annotations

import time

import pytest
from launched import run_python

HANGS = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"])
print("said on stdout", flush=True)
print("said on stderr", file=sys.stderr, flush=True)
time.sleep(20)
"""


def test_a_command_that_hangs_fails_with_what_it_wrote() -> None:
    """Without a limit one wait on a port stops the whole run; its child holds the output open as a worker does."""
    start = time.monotonic()
    with pytest.raises(AssertionError) as caught:
        run_python(["-c", HANGS], timeout_s=2)
    assert time.monotonic() - start < 15
    for part in ("not done in 2 s", "said on stdout", "said on stderr"):
        assert part in str(caught.value)


def test_a_command_that_fails_says_how_and_what_it_wrote() -> None:
    """ "returncode == 1" alone tells nobody what to look for."""
    with pytest.raises(AssertionError, match=r"ended with 3\n(?s:.*)the reason"):
        run_python(
            ["-c", "import sys; print('the reason', file=sys.stderr); sys.exit(3)"]
        )
