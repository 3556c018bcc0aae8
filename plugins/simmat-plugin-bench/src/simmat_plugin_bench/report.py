"""Report on a bench: tables for the terminal, as Markdown, LaTeX and CSV, and a self-contained page with plots."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from simmat_plugin_report.page import Block, Code, Figure, Table, write_sections
from simmat_plugin_report.scores import NONE, plural, signed

from simmat.evaluation import mean_interval
from simmat.io.files import atomic_write_text, write_rows
from simmat.io.reading import read_bytes
from simmat_plugin_bench.cells import RESULTS, results_of, write_results
from simmat_plugin_bench.grid import Arm, Bench
from simmat_plugin_bench.plots import draw_plots
from simmat_plugin_bench.results import ArmRow, Results, SeedScores, collect
from simmat_plugin_bench.run import RUN_WITH
from simmat_plugin_bench.settings import DEFAULT, DataSet


@dataclass(frozen=True)
class Difference:
    """The difference of an arm from the reference arm on one data set.

    Attributes:
        interval: 95 % interval of a bootstrap over test images, the same for both arms; None if the score is not
            `miou_object`, a result lacks the IoUs of its objects, or there is only one image.
        state: why seeds are missing, as "1 of 3 seeds"; "" if none is.
    """

    mean: float
    interval: tuple[float, float] | None
    state: str = ""

    def __str__(self) -> str:
        """Format as "+0.053 [-0.010, +0.110]"."""
        return signed((self.mean, self.interval)) + (
            f" ({self.state})" if self.state else ""
        )


def differences(
    results: Results,
) -> list[tuple[Arm, dict[str, Difference], float | None]]:
    """Compare every arm with the reference arm; empty without a reference, or if `--quick` does not run it.

    The reference is the arm of this name with the same foundation model, or else the first of this name. The IoU of an
    object is its mean over seeds.

    Returns:
        The arm, its difference on each data set by name, and the mean over the averaged data sets; None if one is
        missing or lacks seeds.
    """
    found = []
    name, sets = results.bench.settings.reference, results.bench.settings.data
    having = [arm.foundation for arm in results.bench.arms if arm.name == name]
    for arm in results.bench.arms:
        foundation = (
            arm.foundation if arm.foundation in having else next(iter(having), None)
        )
        if foundation is None or (arm.name, arm.foundation) == (name, foundation):
            continue
        # Two arms may have the reference's name: an added one runs where the one in the TOML does not.
        others = {
            row.data.name: row
            for row in results.rows
            if (row.arm.name, row.arm.foundation) == (name, foundation)
        }
        on = {}
        for data in sets:
            row, reference = results.row(data, arm), others.get(data.name)
            if (
                row is not None
                and reference is not None
                and row.score is not None
                and reference.score is not None
            ):
                state = next(
                    (one.state for one in (row, reference) if not one.done), ""
                )
                images = (
                    _by_image(row, reference)
                    if results.bench.settings.score == DEFAULT
                    else []
                )
                on[data.name] = Difference(
                    row.score.mean - reference.score.mean, mean_interval(images), state
                )
        averaged = [on.get(data.name) for data in sets if data.averaged]
        known = [one.mean for one in averaged if one is not None and not one.state]
        if on:
            found.append(
                (
                    arm,
                    on,
                    fmean(known) if known and len(known) == len(averaged) else None,
                )
            )
    return found


def _by_image(row: ArmRow, reference: ArmRow) -> list[list[float]]:
    """Return the IoU difference of each object, by image; empty if the runs do not have the same objects."""
    if (
        row.ious.keys() != row.scores.keys()
        or reference.ious.keys() != reference.scores.keys()
    ):
        return []
    runs = [*row.ious.values(), *reference.ious.values()]
    if (
        len(
            {
                frozenset((sample, len(ious)) for sample, ious in run.items())
                for run in runs
            }
        )
        != 1
    ):
        return []
    return [
        [
            a - b
            for a, b in zip(_means(row, sample), _means(reference, sample), strict=True)
        ]
        for sample in runs[0]
    ]


def _means(row: ArmRow, sample: str) -> list[float]:
    """Return the mean IoU over seeds of each object of a sample."""
    return [
        fmean(values)
        for values in zip(*(ious[sample] for ious in row.ious.values()), strict=True)
    ]


ARM_HEAD = ("arm", "mat", "tune", "lr")
HEAD = (*ARM_HEAD, "score", "gain", "trainable", "seconds", "state")
DIFFERENCE_NOTE = (
    "Score minus the reference's score; in brackets, if the objects' IoUs are known, the 95 % interval of a "
    "bootstrap over test images, the same for both arms. It covers the random choice of test images, but not of "
    "the seed."
)


def tables(results: Results) -> list[tuple[str, Table, str]]:
    """Return title, table and note of each table: all data sets, differences from the reference, each data set."""
    sets = results.bench.settings.data
    found = []
    if len(sets) > 1:
        averaged = sum(data.averaged for data in sets)
        note = f"The mean is over {plural(averaged, 'data set')}; the best in each column is marked."
        found.append(("All data sets", overview(results), note))
    if compared := differences(results):
        # the mean comes first, because the table may be wide
        head = (*ARM_HEAD, "mean", *(data.name for data in sets))
        lines = [
            (
                *_arm_cells(results, arm),
                signed(mean),
                *(str(on.get(data.name, NONE)) for data in sets),
            )
            for arm, on, mean in compared
        ]
        title = f'Difference from "{results.bench.settings.reference}"'
        table = Table(head, lines, len(ARM_HEAD) - 1)
        found.append((title, table, DIFFERENCE_NOTE))
    return [*found, *((data.name, data_table(results, data), "") for data in sets)]


def data_table(results: Results, data: DataSet, *, waiting: bool = True) -> Table:
    """Return the table of one data set.

    Args:
        waiting: include arms that have not started.
    """
    shown = [row for row in results.of(data) if waiting or row.begun]
    lines: list[tuple[str, ...]] = [
        (
            results.label(row.arm),
            row.mat,
            row.tune,
            _rate(row),
            str(row.score) if row.score is not None else NONE,
            signed(row.gain),
            f"{row.facts['trainable']:,}" if row.facts else NONE,
            f"{row.seconds:.0f}" if row.seconds is not None else NONE,
            row.state,
        )
        for row in shown
    ]
    several = len({arm.foundation for arm in results.bench.arms}) > 1
    for name, why in results.bench.no_zero_shot.items():
        lines.append(
            (
                f"{name}: zero-shot" if several else "zero-shot",
                *([NONE] * (len(HEAD) - 2)),
                f"none: {why}",
            )
        )
    scores = [row.score if row.done else None for row in shown]
    best = _best(len(ARM_HEAD), scores)
    return Table(HEAD, lines, len(ARM_HEAD) - 1, best)


def _best(column: int, scores: Sequence[SeedScores | None]) -> set[tuple[int, int]]:
    """Return (row, column) of the highest scores of a column with two or more."""
    means = {row: score.mean for row, score in enumerate(scores) if score is not None}
    return (
        {(row, column) for row, mean in means.items() if mean == max(means.values())}
        if len(means) > 1
        else set()
    )


def _rate(row: ArmRow) -> str:
    if row.lr is not None:
        return f"{row.lr:g}"
    return "tuner's" if row.arm.kind == "train" and row.arm.rates == (None,) else NONE


def _arm_cells(results: Results, arm: Arm) -> tuple[str, str, str, str]:
    """Return an arm's cells below `ARM_HEAD`; of a setting that differs between data sets, every value."""
    rows = [row for row in results.rows if row.arm is arm]
    rates = [_rate(row) for row in rows]
    known = [rate for rate in rates if rate != NONE]
    settings = [row.mat for row in rows], [row.tune for row in rows], known or rates
    mat, tune, lr = (", ".join(dict.fromkeys(values)) for values in settings)
    return results.label(arm), mat, tune, lr


def overview(results: Results) -> Table:
    """Return the table arms x data sets, with mean and gain over the averaged ones at the end."""
    sets, arms = results.bench.settings.data, results.bench.arms
    head = (
        *ARM_HEAD,
        *(data.name + ("" if data.averaged else " (not averaged)") for data in sets),
        "mean",
        "gain",
    )
    columns = [[results.row(data, arm) for arm in arms] for data in sets]
    means = [mean_of(results, arm) for arm in arms]
    lines = [
        (*_arm_cells(results, arm), *map(_short, rows), text, signed(gain))
        for arm, (_, gain, text), *rows in zip(arms, means, *columns, strict=True)
    ]
    first = len(ARM_HEAD)
    best = _best(first + len(sets), [score for score, _, _ in means])
    for number, column in enumerate(columns, start=first):
        best |= _best(
            number,
            [row.score if row is not None and row.done else None for row in column],
        )
    return Table(head, lines, first - 1, best)


def _short(row: ArmRow | None) -> str:
    if row is None:
        return ""
    if row.score is None:
        return f"{NONE} ({row.state})" if row.begun else NONE
    return str(row.score) + ("" if row.done else f" ({row.state})")


def mean_of(results: Results, arm: Arm) -> tuple[SeedScores | None, float | None, str]:
    """Return score and gain of an arm over the averaged data sets, and the score as text.

    Without a result on one of them there is none, as means over other sets cannot be compared; the text then says how
    many are done, "– (2 of 3)".
    """
    wanted = sum(data.averaged for data in results.bench.settings.data)
    rows = [row for row in results.rows if row.arm is arm and row.data.averaged]
    done = sum(row.done for row in rows)
    if not rows or done < wanted:
        return None, None, f"{NONE} ({done} of {wanted})" if wanted else NONE
    score = SeedScores(
        tuple(fmean(row.scores[seed] for row in rows) for seed in arm.seeds)
    )
    gains = [row.gain for row in rows if row.gain is not None]
    return score, fmean(gains) if len(gains) == len(rows) else None, str(score)


def markdown(results: Results) -> str:
    """Return all tables as Markdown."""
    settings = results.bench.settings
    parts = [
        f"# {settings.title}",
        f"Score: `{settings.score}` on the test split, mean ± std over seeds.",
        "",
    ]
    for title, table, note in tables(results):
        parts += [
            f"## {title}",
            "",
            *([note, ""] if note else []),
            _markdown_table(table),
            "",
        ]
    if failures := [line for row in results.rows for line in row.failures]:
        parts += ["## Failed", "", *(f"```\n{line}\n```" for line in failures), ""]
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|---|" + "---:|" * (len(table.head) - 1)
    return "\n".join([line(table.head), rule, *map(line, table.rows)])


def latex(results: Results) -> str:
    r"""Return all tables as LaTeX, for documents with `\usepackage{booktabs}`."""
    score = f"Score: {results.bench.settings.score} on the test split, mean ± std over seeds."
    parts = [r"% needs \usepackage{booktabs} in the preamble"]
    for title, table, note in tables(results):
        parts.append(latex_table(table, f"{title}. {score} {note}"))
    return "\n\n".join(parts) + "\n"


_ESCAPED = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
    }
    | {special: f"\\{special}" for special in "&%$#_{}"}
)


def latex_table(table: Table, caption: str) -> str:
    """Return a table with its caption; the best cells are bold."""
    numbers = len(table.head) - table.numbers_from
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * table.numbers_from}{'r' * numbers}}}",
        r"\toprule",
        _latex_row([latex_text(cell) for cell in table.head]),
        r"\midrule",
    ]
    for row, texts in enumerate(table.rows):
        cells = []
        for column, text in enumerate(texts):
            cell = latex_text(text)
            if (row, column) in table.best:
                cell = rf"\textbf{{{cell}}}"
            cells.append(cell)
        lines.append(_latex_row(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def latex_text(text: str) -> str:
    """Return a text in one line that LaTeX prints as it is."""
    escaped = " ".join(text.split()).translate(_ESCAPED)
    # a minus, not a hyphen, before a number
    return re.sub(r"(?<![^\s\[])-(?=\d)", "$-$", escaped)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


CSV_HEAD = (
    "data", "averaged", "foundation", "arm", "seed", "score", "gain", "mat", "tune", "lr", "trainable", "total",
    "steps", "seconds", "memory_bytes", "val", "state",
)  # fmt: skip


def csv_rows(results: Results) -> Iterator[Sequence[Any]]:
    """Yield a head and one row per seed, with or without a score."""
    yield CSV_HEAD
    for row in results.rows:
        for seed in row.arm.seeds:
            score, result = row.scores.get(seed), row.results.get(seed, {})
            yield (
                row.data.name, row.data.averaged, row.arm.foundation, row.arm.name, seed, score, _gain(row, seed),
                row.mat, row.tune, row.lr, *map(row.facts.get, ("trainable", "total", "steps")), result.get("seconds"),
                result.get("peak_device_bytes") or result.get("peak_memory_bytes"),
                row.vals.get(seed), "done" if score is not None else row.state,
            )  # fmt: skip


def _gain(row: ArmRow, seed: int) -> float | None:
    """Return one seed's score minus the mean of the zero-shot model."""
    if row.gain is None or row.score is None or seed not in row.scores:
        return None
    return row.gain + row.scores[seed] - row.score.mean


_PLOTS = {
    "curves": (
        "Learning curves",
        "Validation mIoU of clicks against step: mean over seeds with a band of one standard deviation; zero-shot is "
        "dashed.",
    ),
    "few": (
        "Few labelled images",
        "Score against the number of training images; all arms of a seed use the same images.",
    ),
}


def write_bench_page(
    out: Path, results: Results, plots: Mapping[str, Path], source: str
) -> Path:
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
    sections += [
        (title, [table, *([note] if note else [])])
        for title, table, note in tables(results)
    ]
    sections += [
        (heading, [Figure(plots[name].read_bytes(), caption, caption)])
        for name, (heading, caption) in _PLOTS.items()
        if name in plots
    ]
    sections.append(
        ("Failed", [Code(line) for row in results.rows for line in row.failures])
    )
    sections.append(("What was run", [Code(source)]))
    return write_sections(
        out, results.bench.settings.title, _summary(results), sections
    )


def _summary(results: Results) -> str:
    settings = results.bench.settings
    done = sum(row.done for row in results.rows)
    arms, sets = len(results.bench.arms), len(settings.data)
    summary = (
        f"{plural(arms, 'arm')} on {plural(sets, 'data set')}; {done} of {len(results.rows)} rows are "
        f"done. Score: {settings.score} on the test split, mean ± standard deviation over seeds."
    )
    if any(len(arm.rates) > 1 for arm in results.bench.arms):
        summary += " Learning rates were chosen on the validation split; the test split was evaluated once, at the end."
    return summary


def _unfinished(results: Results) -> list[str]:
    """Return arm, state and data sets of the rows that are not done."""
    missing: dict[tuple[str, str], list[str]] = {}
    for row in results.rows:
        if not row.done:
            missing.setdefault((results.label(row.arm), row.state), []).append(
                row.data.name
            )
    every = [data.name for data in results.bench.settings.data]
    return [
        f"{arm} ({state}): {'everywhere' if sets == every else ', '.join(sets)}"
        for (arm, state), sets in missing.items()
    ]


def write_report(bench: Bench) -> tuple[Results, list[Path]]:
    """Write table.md, table.tex, table.csv, results.json, plots/ and index.html from the present results.

    Missing results are marked as missing.

    Returns:
        The results, and the files written.

    Raises:
        DataError: a result is damaged.
        OutputError: a file cannot be written.
    """
    results = collect(bench)
    names = ("table.md", "table.tex", "table.csv", RESULTS)
    table, tex, csv, results_json = (bench.out / name for name in names)
    atomic_write_text(table, markdown(results))
    atomic_write_text(tex, latex(results))
    write_rows(csv, csv_rows(results))
    plots = draw_plots(results, bench.out / "plots")
    copy = bench.out / RUN_WITH  # the TOML may have changed since
    settings = read_bytes(copy if copy.is_file() else bench.path, "bench file").decode(
        "utf-8", "replace"
    )
    page = write_bench_page(bench.out / "index.html", results, plots, settings)
    write_results(results_json, results_of(bench.cells))
    return results, [table, tex, csv, results_json, page]
