"""No name from a stranger is a formula in a table that we write, and each is read back as it was."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from simmat.inference.table import write_table
from simmat.io.files import write_rows
from simmat.io.reading import read_csv_rows

HOSTILE = (
    '=HYPERLINK("http://127.0.0.1/?"&A2,"open")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    "\r=1+1",
    "'=1+1",
)
PLAIN = ("a", "a=b", "'quoted'", "", "x\n=1")


def cells(file: Path) -> list[list[str]]:
    """Return the cells as any other program reads them."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@pytest.mark.parametrize("name", [*HOSTILE, *PLAIN])
def test_a_table_of_names_is_read_back_as_it_was(tmp_path: Path, name: str) -> None:
    """Ids are the names of files."""
    file = tmp_path / "splits.csv"
    write_rows(file, [("id", "split"), (name, "train")])
    assert not cells(file)[1][0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert read_csv_rows(file, "table", "id,split")[1][0][1] == [name, "train"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_a_formula_in_the_table_of_objects(
    tmp_path: Path, name: str
) -> None:
    """Paths stay paths, classes get an apostrophe, and negative numbers stay numbers."""
    row = {"image": name, "label": 1, "class": 2, "class_name": name, "score": -0.5}
    write_table(tmp_path / "objects.csv", [row])
    (image, _, _, class_name, score) = cells(tmp_path / "objects.csv")[1]
    assert Path(image) == Path(name)
    assert class_name == f"'{name}"
    assert score == "-0.5"
    assert not image.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert pd.read_csv(tmp_path / "objects.csv")["score"].tolist() == [-0.5]
