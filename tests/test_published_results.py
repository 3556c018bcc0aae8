"""What docs/transfer.md publishes is what the results in benchmarks/results say, each of the settings beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from simmat.bench.cells import digest_of

ROOT = Path(__file__).parents[1]
CELLS = ROOT / "benchmarks" / "results" / "transfer-short" / "cells"
PAGE = (ROOT / "docs" / "transfer.md").read_text(encoding="utf-8")
TABLE = PAGE.split("<!-- results -->")[1].split("\n\n")[1].splitlines()
"""Head, rule and rows of the table of scores; the first column names the cell's arm in code."""


def cells_of(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip().strip("|").split("|")]


SETS = [name.split(" (")[0] for name in cells_of(TABLE[0])[1:-1]]


def score_of(dataset: str, arm: str) -> float | None:
    """Return the published test score of an arm on a set; None where it was not run."""
    files = [path for path in CELLS.glob(f"{dataset}/*/{arm}/*/result.json") if json.loads(path.read_text())["test"]]
    assert len(files) <= 1, f"two learning rates of {arm} were tested on {dataset}"
    return float(json.loads(files[0].read_text())["test"]["miou_object"]) if files else None


@pytest.mark.parametrize("row", TABLE[2:], ids=lambda row: cells_of(row)[0])
def test_the_table_is_what_was_measured(row: str) -> None:
    """A figure that nobody measured is worse than none."""
    head, *figures, mean = cells_of(row)
    arm = re.search(r"\((`[^`]+`)\)$", head)
    assert arm, f"{head} names no folder of cells"
    scores = [score_of(name, arm[1].strip("`")) for name in SETS]
    assert figures == [f"{score:.3f}" if score is not None else "not run" for score in scores]
    known = [score for score in scores if score is not None]
    assert mean == (f"{fmean(known):.3f}" if len(known) == len(scores) else "–")


def test_no_result_is_of_other_settings_than_it_says() -> None:
    """A result that was moved to another cell, or edited, would pass for another run's."""
    results = sorted(CELLS.rglob("result.json"))
    assert results
    for path in results:
        order = json.loads((path.parent / "cell.json").read_text())
        digest = json.loads(path.read_text())["digest"]
        assert order["digest"] == digest == digest_of(order["settings"]), path
