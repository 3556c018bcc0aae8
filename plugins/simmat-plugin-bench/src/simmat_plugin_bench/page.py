"""Write the report of a bench: tables, plots, and a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from simmat_plugin_report.page import Block, Code, Figure, write_sections

from simmat.io.files import atomic_write_text
from simmat.io.reading import read_bytes
from simmat_plugin_bench.cells import RESULTS, results_of, write_results
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.plots import draw_plots
from simmat_plugin_bench.prepare import RUN_WITH
from simmat_plugin_bench.results import Results, collect
from simmat_plugin_bench.table import as_csv, markdown, tables

_PLOTS = {
    "curves": (
        "Learning curves",
        "Validation mIoU of clicks against step: mean over seeds with a band of one standard deviation; zero-shot is "
        "dashed.",
    ),
    "few": (
        "Few labelled images",
        "Score against the number of training images; all arms of a seed use the same ones.",
    ),
}


def write_bench_page(out: Path, results: Results, plots: Mapping[str, Path], source: str) -> Path:
    """Write the page.

    Args:
        plots: from `draw_plots`.
        source: text of the bench's TOML.

    Raises:
        OutputError: the file cannot be written.
    """
    sections: list[tuple[str, list[Block]]] = []
    if unfinished := _unfinished(results):
        sections.append(("Not done yet", [unfinished]))
    sections += [(title, [table, *([note] if note else [])]) for title, table, note in tables(results)]
    sections += [
        (heading, [Figure(plots[name].read_bytes(), caption, caption)])
        for name, (heading, caption) in _PLOTS.items()
        if name in plots
    ]
    sections.append(("Failed", [Code(line) for row in results.rows for line in row.failures]))
    sections.append(("What was run", [Code(source)]))
    return write_sections(out, results.bench.settings.title, _summary(results), sections)


def _summary(results: Results) -> str:
    settings = results.bench.settings
    done = sum(row.done for row in results.rows)
    arms, sets = len(results.bench.arms), len(settings.data)
    summary = (
        f"{arms} arm{'s' * (arms != 1)} on {sets} data set{'s' * (sets != 1)}; {done} of {len(results.rows)} rows are "
        f"done. Score: {settings.score} on the test split, mean ± standard deviation over seeds."
    )
    if any(len(arm.rates) > 1 for arm in results.bench.arms):
        summary += " Learning rates were chosen on the validation split; the test split was read once, at the end."
    return summary


def _unfinished(results: Results) -> list[str]:
    """Return arm, state and data sets of the rows that are not done."""
    missing: dict[tuple[str, str], list[str]] = {}
    for row in results.rows:
        if not row.done:
            missing.setdefault((results.label(row.arm), row.state), []).append(row.data.name)
    every = [data.name for data in results.bench.settings.data]
    return [
        f"{arm} ({state}): {'everywhere' if sets == every else ', '.join(sets)}"
        for (arm, state), sets in missing.items()
    ]


def write_report(bench: Bench) -> tuple[Results, list[Path]]:
    """Write table.md, table.csv, results.json, plots/ and index.html from the present results.

    Missing results are marked as missing.

    Returns:
        The results, and the files written.

    Raises:
        ConfigError: no result has the requested score.
        DataError: a result is damaged.
        OutputError: a file cannot be written.
    """
    results = collect(bench)
    table, csv, results_json = bench.out / "table.md", bench.out / "table.csv", bench.out / RESULTS
    atomic_write_text(table, markdown(results))
    atomic_write_text(csv, as_csv(results))
    plots = draw_plots(results, bench.out / "plots")
    copy = bench.out / RUN_WITH  # the TOML may have changed since
    settings = read_bytes(copy if copy.is_file() else bench.path, "bench file").decode("utf-8", "replace")
    page = write_bench_page(bench.out / "index.html", results, plots, settings)
    write_results(results_json, results_of(bench.cells))
    return results, [table, csv, results_json, page]
