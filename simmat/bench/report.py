"""Writes what a bench has found: tables, plots, the page."""

from __future__ import annotations

from pathlib import Path

from simmat.bench.grid import Bench
from simmat.bench.results import Results, collect
from simmat.bench.table import as_csv, markdown
from simmat.files import atomic_write_text


def write_report(bench: Bench) -> tuple[Results, list[Path]]:
    """Write table.md and table.csv of what is there.

    Returns:
        The results, and the files written.

    Raises:
        DataError: a result is damaged.
        OutputError: a file cannot be written.
    """
    results = collect(bench)
    table, csv = bench.out / "table.md", bench.out / "table.csv"
    atomic_write_text(table, markdown(results))
    atomic_write_text(csv, as_csv(results))
    return results, [table, csv]
