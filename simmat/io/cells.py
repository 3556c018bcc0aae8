"""Texts in the cells of CSV files: a spreadsheet would run one that begins as a formula does.

Names of files and classes come from strangers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_text(cell: object) -> object:
    """Return a cell as it is written: a text that a spreadsheet would run gets an apostrophe before it."""
    if isinstance(cell, str) and cell.lstrip("'").startswith(_FORMULA):
        return f"'{cell}"
    return cell


def as_read(cell: str) -> str:
    """Return the text that `as_text` wrote."""
    if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA):
        return cell[1:]
    return cell


def as_path(name: str) -> str:
    """Return the path of a file so that no spreadsheet runs it: `./=a.png`, which is the same path."""
    return f"./{name}" if name.startswith(_FORMULA) else name


def csv_line(cells: Iterable[object]) -> str:
    """Return the line of a CSV file, which ends in a line feed alone."""
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # which quotes both
    return line.getvalue().removesuffix("\r\n") + "\n"
