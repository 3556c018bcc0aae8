"""The page of a run, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simmat_plugin_report.compare_page import compare_sections, names_of
from simmat_plugin_report.page import write_sections
from simmat_plugin_report.run_page import run_sections, summary_of
from simmat_plugin_report.run_view import RunView


def write_page(out: Path, runs: Sequence[RunView]) -> Path:
    """Write the page of one run, or one that compares several.

    Raises:
        DataError: a picture in a report is damaged.
        OutputError: the page cannot be written.
    """
    if len(runs) == 1:
        (run,) = runs
        return write_sections(out, f"{run.name}: {run.spec.modality}", summary_of(run), list(run_sections(run)))
    named = dict(zip(names_of(runs), runs, strict=True))
    summary = f"{len(runs)} runs. Differences are those to the first one, {next(iter(named))}."
    return write_sections(out, f"{len(runs)} runs side by side", summary, list(compare_sections(named)))
