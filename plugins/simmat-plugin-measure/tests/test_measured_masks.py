"""`simmat measure`: a table of the objects of masks that exist already."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simmat.cli import run
from simmat.data import instances

MEAN = "intensity_mean-gray [count]"


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A folder with an image, and a mask of two objects and two pieces of a third."""
    pixels = np.full((40, 50), 60, np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    for value, y, x in ((1, 3, 3), (2, 3, 30), (7, 25, 3), (7, 25, 30)):
        pixels[y : y + 8, x : x + 8] = 100 + value
        mask[y : y + 8, x : x + 8] = value
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def measured(
    folder: Path, *options: str, mask: str = "mask.png", image: str = "a.png"
) -> int:
    words = ["measure", str(folder / image), "--mask", str(folder / mask)]
    words += ["--modality", "gray", "--out", str(folder / "t.csv"), *options]
    return run(words)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "t.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_each_value_of_a_mask_is_a_row(case: Path) -> None:
    """The label is the value in the mask."""
    assert measured(case) == 0
    rows = rows_of(case)
    assert [row["label"] for row in rows] == ["1", "2", "7"]
    assert [row["area"] for row in rows] == ["64", "64", "128"]
    assert [float(row[MEAN]) for row in rows] == [101, 102, 107]
    assert float(rows[0]["intensity_contrast-gray [count]"]) == 41


def test_pieces_of_a_class_are_rows_of_their_own(case: Path) -> None:
    """A binary mask has all its objects in one value."""
    assert measured(case, "--regions", "components", "--pixel-size-um", "0.5") == 0
    rows = rows_of(case)
    assert [(row["label"], row["class"]) for row in rows] == [
        ("1", "1"),
        ("2", "2"),
        ("3", "7"),
        ("4", "7"),
    ]
    assert {row["area_um2"] for row in rows} == {"16"}


def test_several_images_share_a_table(case: Path) -> None:
    """Each with its mask, in the same order."""
    Image.fromarray(np.full((40, 50), 9, np.uint8)).save(case / "b.png")
    words = ["measure", str(case / "a.png"), str(case / "b.png"), "--modality", "gray"]
    words += ["--mask", str(case / "mask.png"), "--out", str(case / "t.csv")]
    assert run(words) == 2
    assert run([*words, "--mask", str(case / "mask.png")]) == 0
    assert [row["image"] for row in rows_of(case)] == ["a"] * 3 + ["b"] * 3


def test_only_the_picked_channels_are_measured(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name or number, in their order; others are refused."""
    pixels = np.full((40, 50, 3), (10, 20, 30), np.uint8)
    Image.fromarray(pixels).save(case / "rgb.png")

    def means(picked: str) -> dict[str, str]:
        words = ["measure", str(case / "rgb.png"), "--mask", str(case / "mask.png")]
        words += ["--modality", "rgb", "--out", str(case / "t.csv")]
        assert run([*words, "--channels", picked]) == 0
        row = rows_of(case)[0]
        return {key: row[key] for key in row if key.startswith("intensity_mean-")}

    assert means("blue,red") == {
        "intensity_mean-blue [count]": "30",
        "intensity_mean-red [count]": "10",
    }
    assert means("1") == {"intensity_mean-green [count]": "20"}
    with pytest.raises(AssertionError):
        means("bogus")
    assert "no channel 'bogus'" in capsys.readouterr().err


def test_bad_input_is_one_error_and_no_file(
    case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half-written, whatever is wrong."""
    Image.fromarray(np.ones((40, 51), np.uint8)).save(case / "wide.png")
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(case / "empty.png")
    (case / "damaged.png").write_bytes(b"not an image")
    cases = [
        ({"mask": "wide.png"}, "51x40"),
        ({"mask": "empty.png"}, "no object"),
        ({"mask": "damaged.png"}, "damaged.png"),
        ({"mask": "missing.png"}, "missing.png"),
        ({"image": "damaged.png"}, "damaged.png"),
    ]
    for files, word in cases:
        assert measured(case, **files) == 2
        error = capsys.readouterr().err
        assert word in error
        assert "Traceback" not in error
    monkeypatch.setattr(instances, "MAX_OBJECTS", 2)
    for regions in ("instances", "components"):
        assert measured(case, "--regions", regions) == 2
        assert "more than 2 objects" in capsys.readouterr().err
    assert not (case / "t.csv").exists()
    assert not [path for path in case.iterdir() if path.name.startswith(".")]


def test_another_file_is_not_replaced(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier table is, as by predict."""
    assert measured(case) == 0
    assert measured(case) == 0
    (case / "t.csv").write_text("mine\n", encoding="utf-8")
    assert measured(case) == 2
    assert "t.csv" in capsys.readouterr().err
    assert (case / "t.csv").read_text(encoding="utf-8") == "mine\n"


def test_the_card_of_a_data_set_says_what_the_files_mean(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An alignment or a nodata value is stated once, for training and for measuring."""
    assert measured(case, "--data", str(case)) == 2
    assert "card.toml" in capsys.readouterr().err
    (case / "card.toml").write_text('regions = "instances"\nnodata = 102\n')
    assert measured(case, "--data", str(case)) == 0
    assert [row[MEAN] for row in rows_of(case)] == ["101", "", "107"]
