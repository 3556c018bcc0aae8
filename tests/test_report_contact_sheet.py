"""The contact sheet of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from simmat.errors import DataError
from simmat.report.contact_sheet import COLUMNS, GAP, MARGIN, SheetRow, contact_sheet
from simmat.types import Channel, Prompt, SensorImage

CELL = 120


def row(height: int = 60, width: int = 80, *, name: str = "a", iou: float = 0.5) -> SheetRow:
    values = np.random.default_rng(0).uniform(0, 9, (height, width)).astype(np.float32)
    truth = np.zeros((height, width), np.bool_)
    truth[10:40, 10:40] = True
    image = SensorImage.from_planes(values, (Channel("sonar", "counts", "count"),))
    return SheetRow(name, image, truth, Prompt.points([(25, 25)]), np.roll(truth, 15, axis=1), iou)


def column(sheet: np.ndarray, index: int) -> np.ndarray:
    left = MARGIN + index * (CELL + GAP)
    return sheet[:, left : left + CELL]


def coloured(pixels: np.ndarray) -> int:
    return int((np.ptp(pixels[-90:].astype(int), axis=-1) > 40).sum())


def test_each_column_shows_its_own_thing() -> None:
    """Image bare, truth filled, click as a mark, prediction filled elsewhere."""
    sheet = np.asarray(contact_sheet([row()], "title", cell_px=CELL))
    image, truth, click, prediction = (column(sheet, index) for index in range(len(COLUMNS)))
    assert coloured(image) == 0
    assert coloured(truth) > 1000
    assert coloured(prediction) > 1000
    assert 20 < coloured(click) < 500
    assert not np.array_equal(truth[-90:], prediction[-90:])


def test_further_columns_stand_at_the_right() -> None:
    """What is found without prompts is seen beside the click."""
    plain = np.asarray(contact_sheet([row()], "title", cell_px=CELL))
    red = Image.new("RGB", (640, 480), (255, 0, 0))
    sheet = np.asarray(contact_sheet([replace(row(), more=(("found", red),))], "title", cell_px=CELL))
    assert sheet.shape[1] == plain.shape[1] + CELL + GAP
    np.testing.assert_array_equal(column(sheet, 2)[-100:], column(plain, 2)[-100:])
    assert (column(sheet, len(COLUMNS))[-60, CELL // 2] == (255, 0, 0)).all()


def test_rows_of_different_shape_get_cells_of_one_size() -> None:
    """Rows must line up however images differ."""
    one, two = (contact_sheet([row(80, 80)] * count, "title", cell_px=CELL) for count in (1, 2))
    mixed = contact_sheet([row(80, 80), row(40, 300)], "title", cell_px=CELL)
    assert mixed.size == two.size
    assert two.size[0] == one.size[0]


def test_scores_and_names_are_written() -> None:
    """A picture without its sample's name and figure cannot be looked into."""
    base = np.asarray(contact_sheet([row()], "title", cell_px=CELL))
    for other in (row(name="b"), row(iou=0.75)):
        assert not np.array_equal(base, np.asarray(contact_sheet([other], "title", cell_px=CELL)))


def test_a_long_name_stays_in_its_columns() -> None:
    """A path as id must not run through the scores."""
    short, long = (
        np.asarray(contact_sheet([row(name=name)], "title", cell_px=CELL))
        for name in ("a", "very-long-identifier/" * 9)
    )
    np.testing.assert_array_equal(column(short, 3), column(long, 3))
    np.testing.assert_array_equal(column(short, 2), column(long, 2))


def test_no_rows_are_refused() -> None:
    """An empty picture would hide that nothing was scored."""
    with pytest.raises(DataError, match="at least one row"):
        contact_sheet([], "title")
