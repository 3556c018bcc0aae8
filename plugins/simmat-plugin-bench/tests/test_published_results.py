"""What the pages on transfer publish is what the results in benchmarks/results say, each of the settings beside it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from installed import need_plugins
from simmat_plugin_bench.cells import Cell, digest_of
from simmat_plugin_bench.grid import expand
from simmat_plugin_bench.reading import read_settings

from simmat.plugins import load_plugins

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = "\n<!-- next page -->\n".join(
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("transfer", "transfer-short")
)


def cells_of(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip().strip("|").split("|")]


TABLES = {
    name: table.strip().split("\n\n")[0].splitlines()
    for name, table in re.findall(r"<!-- results: ([\w/-]+) -->\n(.*?)(?=<!--|\Z)", PAGES, flags=re.DOTALL)
}
"""Folder of results -> head, rule and rows of its table of scores; the first column names the cell's arm in code.

A folder's last part names its bench; one within another is of earlier weights, which the other is named after.
"""
ROWS = [
    pytest.param(folder, row, id=f"{folder}: {cells_of(row)[0]}")
    for folder, table in TABLES.items()
    for row in table[2:]
]


@cache
def cells_in(folder: str, bench: str | None = None) -> tuple[Cell, ...]:
    """The cells of a folder of results, as its bench, or another one, stands in benchmarks/."""
    need_plugins("lite", "thermal", "unet")
    toml = ROOT / "benchmarks" / f"{bench or Path(folder).name}.toml"
    return expand(read_settings(toml), toml, RESULTS / folder, load_plugins()).cells


def published_test(folder: str, cell: Cell) -> dict[str, Any] | None:
    """Return a cell's published test scores; one of present weights counts only with the bench's present settings."""
    path = cell.folder.result
    result = cell.result() if "/" not in folder else json.loads(path.read_text()) if path.is_file() else None
    return (result or {}).get("test")


def score_of(folder: str, dataset: str, arm: str) -> float | str:
    """Return the published test score of an arm on a set, the mean over its seeds; or why there is none."""
    cells = [cell for cell in cells_in(folder) if (cell.dataset, cell.root.parent.name) == (dataset, arm)]
    if not cells:
        return "–"  # the arm is not meant for this set
    tests = [test for cell in cells if (test := published_test(folder, cell))]
    return fmean(test["miou_object"] for test in tests) if tests else "not run"


def test_every_folder_of_results_has_its_table() -> None:
    """Results that no page shows would go stale unseen, and a table without results would be made up."""
    assert set(TABLES) == {str(path.parent.relative_to(RESULTS)) for path in RESULTS.rglob("cells")}


@pytest.mark.parametrize(("folder", "row"), ROWS)
def test_the_table_is_what_was_measured(folder: str, row: str) -> None:
    """A figure that nobody measured is worse than none."""
    head, *figures, mean = cells_of(row)
    arm = re.search(r"\((`[^`]+`)\)$", head)
    assert arm, f"{head} names no folder of cells"
    sets = [name.split(" (")[0] for name in cells_of(TABLES[folder][0])[1:-1]]
    scores = [score_of(folder, name, arm[1].strip("`")) for name in sets]
    assert any(cell.root.parent.name == arm[1].strip("`") for cell in cells_in(folder)), f"{folder} has no such arm"
    assert figures == [score if isinstance(score, str) else f"{score:.3f}" for score in scores]
    known = [score for score in scores if not isinstance(score, str)]
    assert mean == (f"{fmean(known):.3f}" if len(known) == len(scores) else "–")


def test_every_result_that_is_kept_is_a_cell_of_its_bench_and_has_its_row() -> None:
    """One that fell out of the bench or of the page would be kept, and shown nowhere."""
    for folder, table in TABLES.items():
        rates = cells_in(folder, "transfer-rates") if Path(folder).name == "transfer-short" else ()
        known = {cell.root for cell in (*cells_in(folder), *rates)}
        assert {path.parent for path in (RESULTS / folder).rglob("result.json")} <= known
        shown = {match[1] for row in table[2:] if (match := re.search(r"\(`([^`]+)`\)", row))}
        assert {cell.root.parent.name for cell in cells_in(folder) if published_test(folder, cell)} == shown, folder


def test_the_tables_of_earlier_weights_are_of_one_model() -> None:
    """Scores of several weights in one table would be compared with each other; present ones the digest tells."""
    weights: dict[str, set[str]] = {}
    for path in RESULTS.glob("*/*/cells/*/lite/*/*/cell.json"):
        if digest := json.loads(path.read_text())["settings"]["weights"]:
            weights.setdefault(path.relative_to(RESULTS).parts[0], set()).add(digest)
    assert [len(found) for found in weights.values()] == [1] * len(weights)
    assert weights


def test_no_result_is_of_other_settings_than_it_says() -> None:
    """A result that was moved to another cell, or edited, would pass for another run's."""
    results = sorted(RESULTS.rglob("result.json"))
    assert results
    for path in results:
        order = json.loads((path.parent / "cell.json").read_text())
        digest = json.loads(path.read_text())["digest"]
        assert order["digest"] == digest == digest_of(order["settings"]), path
