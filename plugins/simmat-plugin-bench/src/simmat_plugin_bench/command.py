"""The command `simmat bench`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simmat.cli.options import PATH, load_registry
from simmat.cli.tables import print_table
from simmat.errors import ConfigError
from simmat.io.files import require_inside
from simmat.terminal import echo

if TYPE_CHECKING:
    from simmat.plugins.registry import Registry
    from simmat_plugin_bench.cells import Cell
    from simmat_plugin_bench.grid import Bench
    from simmat_plugin_bench.results import Results
    from simmat_plugin_bench.run import Runner
    from simmat_plugin_bench.schedule import Job


@click.command(
    "bench", short_help="Run a grid of trainings, resumable, and report on it."
)
@click.argument("toml", type=PATH)
@click.option(
    "--out", type=PATH, help="Folder of the bench.  [default: runs/NAME-OF-TOML]"
)
@click.option(
    "--quick",
    is_flag=True,
    help="Run the part that [quick] in TOML selects, in runs/NAME-OF-TOML-quick.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="INT",
    help="Cells at once.  [default: one per GPU, or one]",
)
@click.option(
    "--only",
    metavar="PATTERN",
    help="Run only cells whose name contains this; * and ? as in a shell.",
)
@click.option(
    "--results",
    type=PATH,
    multiple=True,
    help="A results.json, whose results are used for cells with the same settings.  [repeatable]",
)
@click.option(
    "--dry-run", is_flag=True, help="List the cells with their states; run nothing."
)
@click.option(
    "--report",
    is_flag=True,
    help="Write the table, plots and page of the results so far; run nothing.",
)
@click.option(
    "--rerun-changed",
    is_flag=True,
    help="Remove cells run with other settings or data, and run them again.",
)
def command(
    toml: Path,
    out: Path | None,
    quick: bool,
    jobs: int | None,
    only: str | None,
    results: tuple[Path, ...],
    dry_run: bool,
    report: bool,
    rerun_changed: bool,
) -> int:
    """Run the grid of trainings that TOML describes, compare with untuned and from-scratch models, and report.

    Each cell is a separate process. Run the same command again to resume: finished cells are kept, started ones are
    resumed, and failed ones run again.
    """
    from simmat_plugin_bench.cells import matches
    from simmat_plugin_bench.grid import expand
    from simmat_plugin_bench.settings import read_settings

    if dry_run and report:
        raise ConfigError("--dry-run and --report exclude each other; give one")
    if report and (jobs is not None or only is not None or rerun_changed):
        raise ConfigError(
            "--report shows the present results and runs nothing; leave out --jobs, --only and --rerun-changed"
        )
    if dry_run and results:
        raise ConfigError(
            "--dry-run writes nothing, but --results would fill cells; leave one out"
        )
    registry = load_registry()
    folder = (
        out or Path("runs") / (f"{toml.stem}-quick" if quick else toml.stem)
    ).absolute()
    bench = expand(read_settings(toml), toml, folder, registry, quick=quick)
    cells = [cell for cell in bench.cells if matches(cell, only)]
    if not cells:
        raise ConfigError(
            f"--only {only!r} matches no cell; list the cells with --dry-run"
        )
    if dry_run:
        _list(bench, cells)
        return 0
    require_inside(folder, folder / "data", folder / "plots")
    for cell in bench.cells:
        own = cell.folder
        require_inside(folder, cell.root, own.run, own.log)
    if report:
        _take_results(bench, results)
    if report and not (folder / "cells").is_dir():
        raise ConfigError(
            f"no bench was run in {folder}; run it first, or give its folder with --out"
        )
    runner = (
        None
        if report
        else _run(bench, cells, registry, jobs, only, results, rerun=rerun_changed)
    )
    from simmat_plugin_bench.report import write_report

    found, files = write_report(bench)
    _print(found)
    for file in files:
        echo(f"wrote {file}")
    if runner is not None and runner.stopped:
        echo("stopped; run the same command again to resume", err=True)
        return 130
    return 1 if runner is not None and runner.failed else 0


def _run(
    bench: Bench,
    cells: Sequence[Cell],
    registry: Registry,
    jobs: int | None,
    only: str | None,
    results: tuple[Path, ...],
    *,
    rerun: bool,
) -> Runner:
    """Run the cells; return the runner, which knows what failed and whether a signal stopped it."""
    from simmat_plugin_bench.run import (
        Runner,
        check_inputs,
        lock_folder,
        process_slots,
        ready_to_run,
    )

    check_inputs(bench, cells, registry)
    with lock_folder(bench):
        _take_results(bench, results)
        ready_to_run(bench, cells, registry, rerun_changed=rerun, echo=echo)
        runner = Runner(bench, process_slots(jobs), _print_outcome, only)
        runner.run()
    for log in dict.fromkeys(runner.failed.values()):
        names = [name for name, one in runner.failed.items() if one == log]
        echo(f"failed: {', '.join(names)}\n{textwrap.indent(log, '    ')}", err=True)
    return runner


def _take_results(bench: Bench, results: Sequence[Path]) -> None:
    """Fill cells that have not started from files of results."""
    from simmat_plugin_bench.cells import take_results

    for path in results:
        done, other = take_results(path, bench.cells)
        echo(
            f"{done} results taken from {path}"
            + (f"; {other} with other settings skipped" if other else "")
        )


def _print_outcome(job: Job, seconds: float, failure: str) -> None:
    result = job.cell.result()
    if failure or result is None or result["diverged"]:
        said = "failed" if failure else "stopped" if result is None else "diverged"
    else:
        said = f"validation mIoU {result['val']['miou_object']:.4f}"
        said += (
            f", test mIoU {result['test']['miou_object']:.4f}"
            if result["test"] is not None
            else ""
        )
    echo(f"{job.cell.name}: {said} ({seconds:.0f} s)")


def _list(bench: Bench, cells: Sequence[Cell]) -> None:
    print_table(("CELL", "STATE"), [(cell.name, cell.state()) for cell in cells])
    names = {cell.name for cell in cells}
    skipped = arms = 0
    for data, arm in bench.pairs():
        own = [cell for cell in bench.cells_of(data, arm) if cell.name in names]
        first = [cell for cell in own if cell.seed == arm.seeds[0]]
        later = {cell.seed for cell in own if cell.seed != arm.seeds[0]}
        arms += bool(own)
        skipped += len(own) - len(first) - len(later)
    echo(f"{len(cells)} cells in {arms} arms on data sets")
    if skipped:
        echo(
            f"{skipped} of them will not be run, because other seeds use only the learning rate that validation chooses"
        )


def _print(results: Results) -> None:
    from simmat_plugin_bench.report import data_table, overview

    sets = results.bench.settings.data
    several = len(sets) > 1  # then the last table lists what has not begun
    for data in sets:
        if several and not any(row.begun for row in results.of(data)):
            continue
        echo(f"\n{data.name}: {results.bench.settings.score} on the test split")
        table = data_table(results, data, waiting=not several)
        print_table(table.head, table.rows)
    if several:
        echo(f"\nall data sets: {results.bench.settings.score} on the test split")
        table = overview(results)
        print_table(table.head, table.rows)
    echo("")
