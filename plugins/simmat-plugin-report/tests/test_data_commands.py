"""`simmat data`: a data set is looked at before training."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from data_sets import folder_of, save_mask
from PIL import Image

from simmat.cli import run

pytestmark = pytest.mark.plugins("simmat-plugin-report")

RASTER = ["--modality", "raster"]


def test_a_data_set_with_a_problem_ends_with_2_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that trains afterwards must stop here."""
    root = folder_of(tmp_path / "set", 4)
    save_mask(root / "masks" / "s2.png", [[0] * 5] * 5)
    assert run(["data", "check", str(root), *RASTER, "--regions", "instances"]) == 2
    captured = capsys.readouterr()
    assert "Problems (1)" in captured.out
    assert "s2" in captured.out


def test_the_options_say_how_the_files_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is checked is what will be trained on: the picked planes, without the small regions."""
    root = folder_of(tmp_path / "set", 4, channels=3)
    options = [
        "--regions",
        "instances",
        "--channels",
        "2,0",
        "--min-region",
        "10",
        "--json",
    ]
    assert run(["data", "check", str(root), *RASTER, *options]) == 2
    report = json.loads(capsys.readouterr().out)
    assert [channel["name"] for channel in report["splits"][0]["channels"]] == [
        "band2",
        "band0",
    ]
    assert all(split["regions"] == 0 for split in report["splits"])


def test_a_card_with_a_persons_notes_is_not_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Comments say why; a card that says all already stays as it is, another is kept beside."""
    root = folder_of(tmp_path / "set", 4)
    text = '# asked Ann: ids, not classes\nregions = "instances"\n'
    (root / "card.toml").write_text(text)
    command = ["data", "check", str(root), *RASTER, "--write-card"]
    assert run(command) == 0
    assert "card.toml" in capsys.readouterr().err
    assert (root / "card.toml").read_text() == text
    assert run([*command, "--ignore", "9"]) == 0
    assert "card.toml.old" in capsys.readouterr().err
    assert (root / "card.toml.old").read_text() == text
    assert tomllib.loads((root / "card.toml").read_text()) == {
        "format": 1,
        "regions": "instances",
        "ignore": 9,
    }


@pytest.mark.parametrize("empty", [True, False])
def test_images_without_masks_are_checked_alone(
    empty: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anybody labels, a damaged file or a wrong unit is cheapest to find."""
    root = folder_of(tmp_path / "set", 4)
    for mask in (root / "masks").iterdir():
        mask.unlink()
    if not empty:
        (root / "masks").rmdir()
    assert run(["data", "check", str(root), *RASTER]) == 0
    said = capsys.readouterr().out
    assert "images: 4 samples" in said
    assert "no image has a mask" in said
    (root / "images/s2.npy").write_bytes(b"cut")
    assert run(["data", "check", str(root), *RASTER]) == 2
    assert "images/s2.npy" in capsys.readouterr().out


def test_sequences_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred frames of one video are not a hundred images."""
    for name in "abc":
        for number in range(4):
            (tmp_path / f"frames/{name}").mkdir(parents=True, exist_ok=True)
            values = np.full((8, 8), 10 * number + ord(name), np.uint8)
            values[:4] += 5
            Image.fromarray(values).save(tmp_path / f"frames/{name}/{number}.png")
            mask = 3 * (values == values.max()).astype(np.uint8)
            mask[7] = number // 2 + 4  # another object after two frames
            save_mask(tmp_path / f"masks/{name}/{number}.png", mask)
    assert (
        run(
            [
                "data",
                "check",
                str(tmp_path),
                *RASTER,
                "--regions",
                "instances",
                "--quick",
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "train: 4 frames of 1 sequence, 8 regions" in text
    assert "3 in 4 frames" in text
    assert run(["data", "stats", str(tmp_path), *RASTER, "--regions", "instances"]) == 0
    assert "12 frames of 3 sequences" in capsys.readouterr().out


def test_the_card_keeps_the_options_of_the_sensor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are said once, too, and a second check finds the card up to date."""
    root = folder_of(tmp_path / "set", 4)
    command = ["data", "check", str(root), *RASTER, "--regions", "instances"]
    command += ["--modality-option", "nodata=0", "--write-card"]
    assert run(command) == 0
    card = tomllib.loads((root / "card.toml").read_text())
    assert card["modality_options"] == {"raster": {"nodata": 0}}
    capsys.readouterr()
    assert run(command) == 0
    assert "up to date" in capsys.readouterr().err
    assert run(["data", "check", str(root), *RASTER]) == 0
