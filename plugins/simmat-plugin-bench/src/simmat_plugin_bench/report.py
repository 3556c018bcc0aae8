"""Writes what a bench has found: tables, plots, the page."""

from __future__ import annotations

from pathlib import Path

from simmat.files import atomic_write_text, read_bytes
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.page import write_bench_page
from simmat_plugin_bench.plots import draw_plots
from simmat_plugin_bench.prepare import RUN_WITH
from simmat_plugin_bench.results import Results, collect
from simmat_plugin_bench.table import as_csv, markdown


def write_report(bench: Bench) -> tuple[Results, list[Path]]:
    """Write table.md, table.csv, plots/ and index.html of what is there; what is missing says so in each.

    Returns:
        The results, and the files written.

    Raises:
        ConfigError: the score asked for is no figure of the results.
        DataError: a result is damaged.
        OutputError: a file cannot be written.
    """
    results = collect(bench)
    table, csv = bench.out / "table.md", bench.out / "table.csv"
    atomic_write_text(table, markdown(results))
    atomic_write_text(csv, as_csv(results))
    plots = draw_plots(results, bench.out / "plots")
    told = bench.out / RUN_WITH  # the TOML may have changed, or gone, since
    settings = read_bytes(told if told.is_file() else bench.path, "bench file").decode("utf-8", "replace")
    page = write_bench_page(bench.out / "index.html", results, plots, settings)
    return results, [table, csv, page]
