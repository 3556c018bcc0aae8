"""Write the report of a bench: tables, plots, and a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from simmat_plugin_report.page import Figure, Table, write_template

from simmat.io.files import atomic_write_text
from simmat.io.reading import read_bytes
from simmat_plugin_bench.cells import RESULTS, results_of, write_results
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.plots import draw_plots
from simmat_plugin_bench.prepare import RUN_WITH
from simmat_plugin_bench.results import Results, Spread, collect
from simmat_plugin_bench.settings import DataSet
from simmat_plugin_bench.table import (
    DIFFERENCE_NOTE,
    HEAD,
    NONE,
    WORDS,
    as_csv,
    difference_table,
    difference_title,
    markdown,
    overview,
    rows_of,
)

_PLOTS = {
    "scores": (
        "Scores",
        "Score of each arm on each data set: mean and standard deviation over seeds; each faint dot is one seed.",
    ),
    "gain": (
        "Gain against trainable parameters",
        "Mean score minus that of the zero-shot model, against the number of trainable parameters. Above the dashed "
        "line an arm is better than the zero-shot model.",
    ),
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
    settings = results.bench.settings
    return write_template(
        out,
        Path(__file__).parent / "templates" / "bench.html.j2",
        title=settings.title,
        summary=_summary(results),
        unfinished=_unfinished(results),
        overview=_overview(results) if len(settings.data) > 1 else None,
        overview_note=f"MEAN is over {_count(sum(data.averaged for data in settings.data), 'data set')}; the best in "
        "each column is marked.",
        differences=_differences(results),
        differences_title=difference_title(results),
        differences_note=DIFFERENCE_NOTE,
        plots=[_plot(name, plots) for name in _PLOTS if name in plots],
        data=[(data.name, _data_table(results, data)) for data in settings.data],
        failures=[line for row in results.rows for line in row.failures],
        made_with=_made_with(results),
        source=source,
    )


def _summary(results: Results) -> str:
    settings = results.bench.settings
    done = sum(row.done for row in results.rows)
    arms, sets = len(results.bench.arms), len(settings.data)
    summary = (
        f"{_count(arms, 'arm')} on {_count(sets, 'data set')}; {done} of {len(results.rows)} rows are done. Score: "
        f"{settings.score} on the test split, mean ± standard deviation over seeds."
    )
    if any(len(arm.rates) > 1 for arm in results.bench.arms):
        summary += " Learning rates were chosen on the validation split; the test split was read once, at the end."
    return summary


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _unfinished(results: Results) -> list[tuple[str, str, str]]:
    """Return arm, state and data sets of the rows that are not done."""
    missing: dict[tuple[str, str], list[str]] = {}
    for row in results.rows:
        if not row.done:
            missing.setdefault((results.label(row.arm), row.state), []).append(row.data.name)
    every = [data.name for data in results.bench.settings.data]
    return [(*about, "everywhere" if sets == every else ", ".join(sets)) for about, sets in missing.items()]


def _overview(results: Results) -> Table:
    head, lines = overview(results)
    columns: list[list[float | None]] = [
        [_mean(row.score) if row is not None and row.done else None for row in rows]
        for rows in ([results.row(data, a.arm) for a in results.averages] for data in results.bench.settings.data)
    ]
    columns.append([_mean(average.score) for average in results.averages])
    return _table(head, lines, columns)


def _differences(results: Results) -> Table:
    head, lines = difference_table(results)
    return _table(head, [[text.replace(" [", "\n[") for text in line] for line in lines])


def _data_table(results: Results, data: DataSet) -> Table:
    return _table(HEAD, rows_of(results, data), [[_mean(row.score) if row.done else None for row in results.of(data)]])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[Sequence[float | None]] = ()) -> Table:
    """Return a table; `columns` are the values from column 1 on; the highest of a column with two or more is marked."""
    best = set()
    for index, column in enumerate(columns, 1):
        known = [value for value in column if value is not None]
        if len(known) > 1:
            best |= {(row, index) for row, value in enumerate(column) if value == max(known)}
    return Table([name.lower() if name in WORDS else name for name in head], rows, 1, best)


def _mean(score: Spread | None) -> float | None:
    return score.mean if score is not None else None


def _plot(name: str, plots: Mapping[str, Path]) -> tuple[str, Figure, bool]:
    """Return heading, figure, and True for a wide figure."""
    heading, caption = _PLOTS[name]
    return heading, Figure(plots[name].read_bytes(), caption, caption), name != "gain"


def _made_with(results: Results) -> Table:
    rows = [
        (
            row.data.name,
            results.label(row.arm),
            *(_whole(value) for value in (row.samples, row.steps, row.total)),
            _memory(row.memory_bytes),
            row.on,
        )
        for row in results.rows
        if row.score is not None
    ]
    return Table(("data", "arm", "training images", "steps", "parameters", "peak memory", "on"), rows, 2)


def _whole(value: int | None) -> str:
    return f"{value:,}" if value else NONE


def _memory(value: int | None) -> str:
    return f"{value / 2**30:.1f} GiB" if value else NONE


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
