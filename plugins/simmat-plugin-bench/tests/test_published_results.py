"""The tables of benchmarks/results/README.md show what the results beside them say, each with its settings."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from installed import need_plugins
from simmat_plugin_bench.cells import Cell, read_results
from simmat_plugin_bench.grid import expand
from simmat_plugin_bench.settings import read_settings

from simmat.plugins.loader import load_plugins

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = (RESULTS / "README.md").read_text(encoding="utf-8")


def cells_of(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip().strip("|").split("|")]


TABLES = {
    name: table.strip().split("\n\n")[0].splitlines()
    for name, table in re.findall(
        r"<!-- results: ([\w-]+) -->\n(.*?)(?=<!--|\Z)", PAGE, flags=re.DOTALL
    )
}
"""Bench -> head, rule and rows of its table; the first column names the arm in code."""
ROWS = [
    pytest.param(bench, row, id=f"{bench}: {cells_of(row)[0]}")
    for bench, table in TABLES.items()
    for row in table[2:]
]


@cache
def cells_in(bench: str) -> tuple[Cell, ...]:
    """Return the cells of benchmarks/BENCH.toml."""
    need_plugins("lite", "thermal", "unet")
    toml = ROOT / "benchmarks" / f"{bench}.toml"
    return expand(read_settings(toml), toml, Path("out"), load_plugins()).cells


@cache
def kept(bench: str) -> dict[str, dict[str, Any]]:
    """Return the results that are kept, by the names of their cells."""
    return read_results(RESULTS / f"{bench}.json")


def published_test(bench: str, cell: Cell) -> dict[str, Any] | None:
    """Return a cell's published test scores; a result of other settings than the bench's does not count."""
    entry = kept(bench).get(cell.name)
    if entry is None or entry["result"]["digest"] != cell.digest():
        return None
    test: dict[str, Any] | None = entry["result"]["test"]
    return test


def score_of(bench: str, dataset: str, arm: str) -> float | str:
    """Return the published test score of an arm on a set, the mean over its seeds; or why there is none."""
    cells = [
        cell
        for cell in cells_in(bench)
        if (cell.dataset, cell.root.parent.name) == (dataset, arm)
    ]
    if not cells:
        return "–"  # the arm is not meant for this set
    tests = [test for cell in cells if (test := published_test(bench, cell))]
    return fmean(test["miou_object"] for test in tests) if tests else "not run"


@pytest.mark.parametrize(("bench", "row"), ROWS)
def test_the_table_is_what_was_measured(bench: str, row: str) -> None:
    """A figure that nobody measured is worse than none."""
    head, *figures, mean = cells_of(row)
    arm = re.search(r"\((`[^`]+`)\)$", head)
    assert arm, f"{head} names no arm"
    sets = [name.split(" (")[0] for name in cells_of(TABLES[bench][0])[1:-1]]
    scores = [score_of(bench, name, arm[1].strip("`")) for name in sets]
    assert any(
        cell.root.parent.name == arm[1].strip("`") for cell in cells_in(bench)
    ), f"{bench} has no such arm"
    assert figures == [
        score if isinstance(score, str) else f"{score:.3f}" for score in scores
    ]
    known = [score for score in scores if not isinstance(score, str)]
    assert mean == (f"{fmean(known):.3f}" if len(known) == len(scores) else "–")
