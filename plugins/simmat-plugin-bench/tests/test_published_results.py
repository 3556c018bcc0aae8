"""What the pages on transfer publish is what the results in benchmarks/results say, each of the settings beside it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from installed import need_plugins
from simmat_plugin_bench.cells import Cell
from simmat_plugin_bench.grid import expand
from simmat_plugin_bench.reading import read_settings
from simmat_plugin_bench.results_file import read_results

from simmat.plugins.loader import load_plugins

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
"""File of results, without its ending -> head, rule and rows of its table; the first column names the arm in code.

Its last part names its bench; one in a folder is of earlier weights, which the folder is named after.
"""
ROWS = [
    pytest.param(folder, row, id=f"{folder}: {cells_of(row)[0]}")
    for folder, table in TABLES.items()
    for row in table[2:]
]


@cache
def cells_in(folder: str, bench: str | None = None) -> tuple[Cell, ...]:
    """The cells of a file of results, as its bench, or another one, stands in benchmarks/."""
    need_plugins("lite", "thermal", "unet")
    toml = ROOT / "benchmarks" / f"{bench or Path(folder).name}.toml"
    return expand(read_settings(toml), toml, Path("out"), load_plugins()).cells


@cache
def kept(folder: str) -> dict[str, dict[str, Any]]:
    """The results that are kept, by the names of their cells."""
    return read_results(RESULTS / f"{folder}.json")


def published_test(folder: str, cell: Cell) -> dict[str, Any] | None:
    """Return a cell's published test scores; one of present weights counts only with the bench's present settings."""
    entry = kept(folder).get(cell.name)
    if entry is None or ("/" not in folder and entry["result"]["digest"] != cell.digest()):
        return None
    test: dict[str, Any] | None = entry["result"]["test"]
    return test


def score_of(folder: str, dataset: str, arm: str) -> float | str:
    """Return the published test score of an arm on a set, the mean over its seeds; or why there is none."""
    cells = [cell for cell in cells_in(folder) if (cell.dataset, cell.root.parent.name) == (dataset, arm)]
    if not cells:
        return "–"  # the arm is not meant for this set
    tests = [test for cell in cells if (test := published_test(folder, cell))]
    return fmean(test["miou_object"] for test in tests) if tests else "not run"


def test_every_file_of_results_has_its_table() -> None:
    """Results that no page shows would go stale unseen, and a table without results would be made up."""
    assert set(TABLES) == {str(path.relative_to(RESULTS).with_suffix("")) for path in RESULTS.rglob("*.json")}


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
        assert kept(folder).keys() <= {cell.name for cell in (*cells_in(folder), *rates)}
        shown = {match[1] for row in table[2:] if (match := re.search(r"\(`([^`]+)`\)", row))}
        assert {cell.root.parent.name for cell in cells_in(folder) if published_test(folder, cell)} == shown, folder


def test_the_tables_of_earlier_weights_are_of_one_model() -> None:
    """Scores of several weights in one table would be compared with each other; present ones the digest tells."""
    weights: dict[str, set[str]] = {}
    for folder in TABLES:
        for name, entry in kept(folder).items():
            if "/" in folder and "/lite/" in name and (digest := entry["settings"]["weights"]):
                weights.setdefault(folder.split("/")[0], set()).add(digest)
    assert [len(found) for found in weights.values()] == [1] * len(weights)
    assert weights
