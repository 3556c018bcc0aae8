"""What docs/transfer.md publishes is what the results in benchmarks/results say, each of the settings beside it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest

from simmat.bench.cells import Cell, digest_of
from simmat.bench.grid import expand
from simmat.bench.reading import read_settings
from simmat.plugins import load_plugins

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = (ROOT / "docs" / "transfer.md").read_text(encoding="utf-8")


def cells_of(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip().strip("|").split("|")]


TABLES = {
    name: table.strip().split("\n\n")[0].splitlines()
    for name, table in re.findall(r"<!-- results: ([\w-]+) -->\n(.*?)(?=<!--|\Z)", PAGE, flags=re.DOTALL)
}
"""Bench -> head, rule and rows of its table of scores; the first column names the cell's arm in code."""
ROWS = [
    pytest.param(bench, row, id=f"{bench}: {cells_of(row)[0]}") for bench, table in TABLES.items() for row in table[2:]
]


@cache
def cells_in(bench: str, folder: str | None = None) -> tuple[Cell, ...]:
    """The cells of a bench as it stands in benchmarks/, with the published results as its folder."""
    toml = ROOT / "benchmarks" / f"{bench}.toml"
    return expand(read_settings(toml), toml, RESULTS / (folder or bench), load_plugins()).cells


def score_of(bench: str, dataset: str, arm: str) -> float | str:
    """Return the published test score of an arm on a set, the mean over its seeds; or why there is none."""
    cells = [cell for cell in cells_in(bench) if (cell.dataset, cell.root.parent.name) == (dataset, arm)]
    if not cells:
        return "–"  # the arm is not meant for this set
    tests = [result["test"] for cell in cells if (result := cell.result())]
    return fmean(test["miou_object"] for test in tests if test) if any(tests) else "not run"


def test_every_bench_with_results_has_its_table() -> None:
    """Results that no page shows would go stale unseen, and a table without results would be made up."""
    assert set(TABLES) == {path.name for path in RESULTS.iterdir() if path.is_dir()}


@pytest.mark.parametrize(("bench", "row"), ROWS)
def test_the_table_is_what_was_measured(bench: str, row: str) -> None:
    """A figure that nobody measured is worse than none."""
    head, *figures, mean = cells_of(row)
    arm = re.search(r"\((`[^`]+`)\)$", head)
    assert arm, f"{head} names no folder of cells"
    sets = [name.split(" (")[0] for name in cells_of(TABLES[bench][0])[1:-1]]
    scores = [score_of(bench, name, arm[1].strip("`")) for name in sets]
    assert any(cell.root.parent.name == arm[1].strip("`") for cell in cells_in(bench)), f"{bench} has no such arm"
    assert figures == [score if isinstance(score, str) else f"{score:.3f}" for score in scores]
    known = [score for score in scores if not isinstance(score, str)]
    assert mean == (f"{fmean(known):.3f}" if len(known) == len(scores) else "–")


def test_every_result_that_is_kept_is_a_cell_of_its_bench_and_has_its_row() -> None:
    """One that fell out of the bench or of the page would be kept, and shown nowhere."""
    rates = cells_in("transfer-rates", "transfer-short")
    for bench, table in TABLES.items():
        known = {cell.root for cell in (*cells_in(bench), *rates)}
        assert {path.parent for path in (RESULTS / bench).rglob("result.json")} <= known
        shown = {match[1] for row in table[2:] if (match := re.search(r"\(`([^`]+)`\)", row))}
        tested = {cell.root.parent.name for cell in cells_in(bench) if (result := cell.result()) and result["test"]}
        assert tested == shown, bench


def test_no_result_is_of_other_settings_than_it_says() -> None:
    """A result that was moved to another cell, or edited, would pass for another run's."""
    results = sorted(RESULTS.rglob("result.json"))
    assert results
    for path in results:
        order = json.loads((path.parent / "cell.json").read_text())
        digest = json.loads(path.read_text())["digest"]
        assert order["digest"] == digest == digest_of(order["settings"]), path
