"""The report of a bench: its tables, plots and the one HTML page, which opens from disk on any device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from simmat.files import atomic_write_text, read_bytes
from simmat.report.page import Figure, figure_html, section_html, table_html, write_sections
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.plots import draw_plots
from simmat_plugin_bench.prepare import RUN_WITH
from simmat_plugin_bench.results import Results, Spread, collect
from simmat_plugin_bench.results_file import RESULTS, results_of, write_results
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
        "Score of each arm on each data set: mean and standard deviation over seeds; a faint dot is one seed.",
    ),
    "gain": (
        "Gain against trainable parameters",
        "Mean score minus that of the zero-shot model, against the number of parameters that train. Above the dashed "
        "line an arm is better than the model as it came.",
    ),
    "curves": (
        "Learning curves",
        "Validation score against step: mean over seeds, the band is a standard deviation. Dashed is zero-shot.",
    ),
    "few": (
        "Few labelled images",
        "Score against the number of training images, which all arms of a seed share.",
    ),
}


def write_bench_page(out: Path, results: Results, plots: Mapping[str, tuple[Path, Path]], source: str) -> Path:
    """Write the page.

    Args:
        out: the HTML file.
        results: what the bench found.
        plots: as `draw_plots` gives them.
        source: the bench's TOML.

    Raises:
        DataError: a picture cannot be read.
        OutputError: the file cannot be written.
    """
    settings = results.bench.settings
    sections = [_unfinished(results)]
    if len(settings.data) > 1:
        sections.append(section_html("All data sets", _overview(results)))
    sections.append(_differences(results))
    sections += [_plot(name, plots) for name in ("scores", "gain", "curves", "few")]
    sections += [section_html(data.name, _data_table(results, data)) for data in settings.data]
    sections += [_failures(results), _made_with(results)]
    sections.append(section_html("What was run", f"<pre><code>{escape(source)}</code></pre>"))
    return write_sections(out, settings.title, _summary(results), sections)


def _summary(results: Results) -> str:
    settings = results.bench.settings
    done = sum(row.done for row in results.rows)
    arms, sets = len(results.bench.arms), len(settings.data)
    said = (
        f"{_count(arms, 'arm')} on {_count(sets, 'data set')}; {done} of {len(results.rows)} rows are done. Score: "
        f"{settings.score} on the test split, mean ± standard deviation over seeds."
    )
    if any(len(arm.rates) > 1 for arm in results.bench.arms):
        said += " Learning rates were chosen on the validation split; the test split was read once, at the end."
    return said


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _unfinished(results: Results) -> str:
    missing: dict[tuple[str, str], list[str]] = {}
    for row in results.rows:
        if not row.done:
            missing.setdefault((results.label(row.arm), row.state), []).append(row.data.name)
    every = [data.name for data in results.bench.settings.data]
    items = "".join(
        f"<li>{escape(arm)} ({escape(state)}): {'everywhere' if sets == every else escape(', '.join(sets))}</li>"
        for (arm, state), sets in missing.items()
    )
    return section_html("Not done yet", f"<ul>{items}</ul>", missing)


def _overview(results: Results) -> str:
    head, lines = overview(results)
    columns: list[list[float | None]] = [
        [_mean(row.score) if row is not None and row.done else None for row in rows]
        for rows in ([results.row(data, a.arm) for a in results.averages] for data in results.bench.settings.data)
    ]
    columns.append([_mean(average.score) for average in results.averages])
    columns.append([None] * len(lines))  # the gain says the same as the mean
    averaged = sum(data.averaged for data in results.bench.settings.data)
    note = f"MEAN is over {_count(averaged, 'data set')}; the best of each column is marked."
    table = table_html([_title(name) for name in head], _body(lines, columns), numbers_from=1)
    return f'<div class="wide" tabindex="0">{table}</div>\n<p class="faint">{escape(note)}</p>'


def _differences(results: Results) -> str:
    head, lines = difference_table(results)
    rows = [
        f"<tr><td>{escape(arm)}</td>"
        + "".join(f'<td class="number">{escape(text).replace(" [", "<br>[")}</td>' for text in texts)
        + "</tr>"
        for arm, *texts in lines
    ]
    table = table_html([_title(name) for name in head], rows, numbers_from=1)
    note = f'<p class="faint">{escape(DIFFERENCE_NOTE)}</p>'
    return section_html(difference_title(results), f'<div class="wide" tabindex="0">{table}</div>\n{note}', lines)


def _data_table(results: Results, data: DataSet) -> str:
    lines = rows_of(results, data)
    scores = [_mean(row.score) if row.done else None for row in results.of(data)]
    scores += [None] * (len(lines) - len(scores))
    none: list[float | None] = [None] * len(lines)
    columns = [scores, *([none] * (len(HEAD) - 2))]
    table = table_html([_title(name) for name in HEAD], _body(lines, columns), numbers_from=1)
    return f'<div class="wide" tabindex="0">{table}</div>'


def _body(lines: Sequence[Sequence[str]], columns: Sequence[Sequence[float | None]]) -> Iterator[str]:
    """Write rows; in each column of numbers the highest, among two or more, is marked."""
    best = []
    for column in columns:
        known = [value for value in column if value is not None]
        best.append(max(known) if len(known) > 1 else None)
    for number, line in enumerate(lines):
        cells = [f"<td>{escape(line[0])}</td>"]
        for column, top, text in zip(columns, best, line[1:], strict=True):
            mark = " best" if top is not None and column[number] == top else ""
            cells.append(f'<td class="number{mark}">{escape(text)}</td>')
        yield f"<tr>{''.join(cells)}</tr>"


def _mean(score: Spread | None) -> float | None:
    return score.mean if score is not None else None


def _title(name: str) -> str:
    return name.lower() if name in WORDS else name


def _plot(name: str, plots: Mapping[str, tuple[Path, Path]]) -> str:
    if name not in plots:
        return ""
    heading, caption = _PLOTS[name]
    light, dark = plots[name]
    return section_html(heading, figure_html(Figure(light, caption, caption, dark), wide=name != "gain"))


def _failures(results: Results) -> str:
    logs = [line for row in results.rows for line in row.failures]
    return section_html("Failed", "\n".join(f"<pre><code>{escape(log)}</code></pre>" for log in logs), logs)


def _made_with(results: Results) -> str:
    lines = [
        (
            f"<tr><td>{escape(row.data.name)}</td><td>{escape(results.label(row.arm))}</td>"
            + "".join(f'<td class="number">{escape(text)}</td>' for text in texts)
            + "</tr>"
        )
        for row in results.rows
        if row.score is not None
        for texts in [(_whole(row.samples), _whole(row.steps), _whole(row.total), _memory(row.memory_bytes), row.on)]
    ]
    head = ("data", "arm", "training images", "steps", "parameters", "peak memory", "on")
    table = f'<div class="wide" tabindex="0">{table_html(head, lines, numbers_from=2)}</div>'
    return section_html("Size and cost of each run", table, lines)


def _whole(value: int | None) -> str:
    return f"{value:,}" if value else NONE


def _memory(value: int | None) -> str:
    return f"{value / 2**30:.1f} GiB" if value else NONE


def write_report(bench: Bench) -> tuple[Results, list[Path]]:
    """Write table.md, table.csv, results.json, plots/ and index.html of what is there; what is missing says so in each.

    Returns:
        The results, and the files written.

    Raises:
        ConfigError: the score asked for is no figure of the results.
        DataError: a result is damaged.
        OutputError: a file cannot be written.
    """
    results = collect(bench)
    table, csv, kept = bench.out / "table.md", bench.out / "table.csv", bench.out / RESULTS
    atomic_write_text(table, markdown(results))
    atomic_write_text(csv, as_csv(results))
    plots = draw_plots(results, bench.out / "plots")
    told = bench.out / RUN_WITH  # the TOML may have changed, or gone, since
    settings = read_bytes(told if told.is_file() else bench.path, "bench file").decode("utf-8", "replace")
    page = write_bench_page(bench.out / "index.html", results, plots, settings)
    write_results(kept, results_of(bench.cells))
    return results, [table, csv, kept, page]
