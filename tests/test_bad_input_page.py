"""docs/bad-input.md shows what is answered: every row is run, in a folder where just that is wrong."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input_page import BY_HAND, PAGE, Row, answer, rows
from bad_input_places import BREAK, LIBRARIES, Places

ROWS = [row for row in rows() if not row.title.endswith(BY_HAND)]

BEGUN = ("Names and settings/Lr absurd",)
"""Found by a run that has begun, whose folder stays."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    return Places(tmp_path_factory.mktemp("page"))


def _files(place: Path) -> set[Path]:
    """All that lies there but what programs keep for their next start."""
    return {path for path in place.rglob("*") if not {"__pycache__", ".simmat"} & set(path.parts)}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[row.key for row in ROWS])
def test_the_page_shows_what_is_answered(row: Row, places: Places) -> None:
    """Word for word: a page that shows other messages than those one gets is found by no search."""
    for plugin in LIBRARIES.get(row.section, ()):
        if importlib.util.find_spec(f"simmat_plugin_{plugin}") is None:
            pytest.skip(f"needs simmat-plugin-{plugin}")
    with places.made(row) as place:
        before = _files(place)
        code, text = answer(row, place)
        left = _files(place) - before
    assert code == 2
    assert text == row.answer
    assert not left or row.key in BEGUN


def test_every_folder_that_is_broken_belongs_to_a_row_of_the_page() -> None:
    """A row that was renamed would be run in a folder where nothing is wrong."""
    assert set(BREAK) <= {row.key for row in rows()}


def test_no_two_rows_have_one_name() -> None:
    """They would be run in one and the same folder."""
    keys = [row.key for row in ROWS]
    assert sorted(keys) == sorted(set(keys))


def test_the_page_has_no_table_that_is_not_read() -> None:
    """A row that the reader passes over is compared with nothing."""
    lines = [line for line in Path(PAGE).read_text(encoding="utf-8").splitlines() if "| `error:" in line]
    assert len(lines) == len([row for row in rows() if row.answer.startswith("error:")])
