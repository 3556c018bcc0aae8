"""All results of a bench in one json file, to keep or share: written by every report, read with `--results`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import field_validator

from simmat.io.files import atomic_write_json, atomic_write_text
from simmat_plugin_bench.cells import FORMAT, Cell, CellFile, Order, Result, digest_of, read_cell_file, write_order

RESULTS = "results.json"
"""Name of the file in the bench's folder."""


class KeptResult(CellFile):
    """The settings and the result of one cell."""

    settings: dict[str, Any]
    result: Result

    @field_validator("result")
    @classmethod
    def _is_of_its_settings(cls, result: Result, info: Any) -> Result:
        if "settings" in info.data and digest_of(info.data["settings"]) != result.digest:
            raise ValueError("the result does not belong to its settings")
        return result


class KeptResults(CellFile):
    """The content of the file."""

    format: int
    cells: dict[str, KeptResult]


def results_of(cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Return settings and result of every cell with a result, by the cell's name, as json values.

    Raises:
        DataError: a file of a cell is damaged.
    """
    found = {}
    for cell in cells:
        if (result := cell.result()) is not None:
            settings = read_cell_file(cell.folder.order, Order)["settings"]
            found[cell.name] = {"settings": settings, "result": {k: v for k, v in result.items() if k != "format"}}
    return found


def write_results(path: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write results from `results_of`, one line per cell, so that two versions can be compared line by line.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = [f"{json.dumps(name)}: {json.dumps(entry, allow_nan=False)}" for name, entry in sorted(found.items())]
    atomic_write_text(path, f'{{"format": {FORMAT}, "cells": {{\n' + ",\n".join(lines) + "\n}}\n")


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file from `write_results`.

    Raises:
        DataError: it cannot be read, is damaged or of another format, or a result does not belong to its settings.
    """
    remedy = f"give the {RESULTS} of a bench"
    values = read_cell_file(path, KeptResults, what="file of results", remedy=remedy)
    return dict(values["cells"])


def put_back(path: Path, cells: Iterable[Cell]) -> tuple[int, int]:
    """Write the results of a file into the cells that have not started.

    Returns:
        The number of cells filled, and of those skipped because their settings differ.

    Raises:
        DataError: as `read_results`.
        OutputError: a cell cannot be written.
    """
    found = read_results(path)
    done = other = 0
    for cell in cells:
        if (entry := found.get(cell.name)) is None or cell.state() != "open":
            continue
        if entry["result"]["digest"] != cell.digest():
            other += 1
            continue
        # The order is written last: without it a cell counts as not started, even after a crash.
        cell.root.mkdir(parents=True, exist_ok=True)
        atomic_write_json(cell.folder.result, {"format": FORMAT, **entry["result"]})
        write_order(cell)
        done += 1
    return done, other
