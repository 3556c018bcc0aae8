"""No test reads files outside of the checkout, but recordings of real sensors where `SIMMAT_SHARED_DATA` names them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(
    r"Path\.home\(|expanduser|[\"']/(work|tmp|mnt)/\w|\"shared\" / \"data\""
)


def test_tests_read_only_the_checkout() -> None:
    """A test that needs somebody's disk is skipped, or fails, on every other."""
    found = []
    for file in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("*/*/tests/**/*.py")]:
        for line in file.read_text(encoding="utf-8").splitlines():
            if (
                OUTSIDE.search(line)
                and "SIMMAT_SHARED_DATA" not in line
                and file != Path(__file__)
            ):
                found.append(f"{file.relative_to(ROOT)}: {line.strip()}")
    assert found == []
