"""The table of objects that `simmat predict --measure` writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image

from simmat.cli import run
from simmat.errors import DataError
from simmat.inference.table import write_table
from simmat.model_spec import DenseSpec

PROMPTS = ("--point", "20,20", "--format", "labels,coco")
"""Objects that are written together."""
MEAN = "intensity_mean-gray [count]"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both heads, as it is before training; its input has 32 pixels a side."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return tiny_bundle(
        tmp_path_factory.mktemp("table") / "bundle", dense=dense, image_size=32
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = rng.integers(0, 200, (40, 56), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def predict(bundle: Path, images: Path, out: Path, *options: str) -> int:
    return run(
        ["predict", str(bundle), str(images), "--measure", *options, "--out", str(out)]
    )


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def gray(images: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(images / f"{name}.png")).astype(float)


def test_each_object_of_each_image_is_a_row(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    """One table of a folder is what people open; json and COCO hold the same numbers."""
    out = tmp_path / "out"
    assert predict(bundle, images, out, *PROMPTS) == 0
    rows = rows_of(out / "objects.csv")
    for name in ("a", "b"):
        record = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        mine = [row for row in rows if row["image"] == name]
        assert len(mine) == len(record["objects"]) > 0
        labels = np.asarray(Image.open(out / f"{name}_objects.png"))
        pixels = gray(images, name)
        for row, one in zip(mine, record["objects"], strict=True):
            is_mine = labels == int(row["label"])
            if is_mine.sum() != one["area"]:  # another object is in front
                continue
            assert float(row[MEAN]) == pytest.approx(pixels[is_mine].mean())
            assert one["measurements"][MEAN] == pytest.approx(pixels[is_mine].mean())
            assert row["area"] == str(one["area"])
    coco = json.loads((out / "coco.json").read_text(encoding="utf-8"))
    means = [one["attributes"][MEAN] for one in coco["annotations"]]
    assert [f"{mean:.10g}" for mean in means] == [row[MEAN] for row in rows]


def test_a_repeated_command_replaces_its_table_only(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of the user with this name would be lost."""
    out = tmp_path / "out"
    assert predict(bundle, images, out, "--everything") == 0
    before = (out / "objects.csv").read_bytes()
    assert predict(bundle, images, out, "--everything") == 0
    assert "2 of 2 images were done" in capsys.readouterr().err
    assert (out / "objects.csv").read_bytes() == before
    (out / "objects.csv").write_text("mine\n", encoding="utf-8")
    assert predict(bundle, images, out, "--everything") == 2
    assert "objects.csv" in capsys.readouterr().err
    assert (out / "objects.csv").read_text(encoding="utf-8") == "mine\n"


def test_images_without_measurements_are_done_again(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    """An earlier call without --measure has no numbers to give."""
    out = tmp_path / "out"
    words = ["predict", str(bundle), str(images), *PROMPTS, "--out", str(out)]
    assert run(words) == 0
    assert "measurements" not in (out / "a.json").read_text(encoding="utf-8")
    assert predict(bundle, images, out, *PROMPTS) == 0
    assert rows_of(out / "objects.csv")[0][MEAN]
    assert predict(bundle, images, out, *PROMPTS, "--pixel-size-um", "2") == 0
    row = rows_of(out / "objects.csv")[0]
    assert float(row["area_um2"]) == 4 * float(row["area"])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--semantic", "--measure"], "--measure"),
        (["--everything", "--pixel-size-um", "1"], "--pixel-size-um"),
        (["--everything", "--measure", "--pixel-size-um", "0"], "--pixel-size-um"),
        (["--everything", "--measure", "--pixel-size-um", "nan"], "pixel"),
        (["--everything", "--measure", "--pixel-size-um", "inf"], "pixel"),
    ],
)
def test_options_that_measure_nothing_are_refused(
    bundle: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    word: str,
) -> None:
    """Before any work, and without an empty folder."""
    out = tmp_path / "out"
    assert run(["predict", str(bundle), str(images), *options, "--out", str(out)]) == 2
    assert word in capsys.readouterr().err
    assert not out.exists()


def test_images_of_other_units_share_no_table(tmp_path: Path) -> None:
    """A column of kelvin and counts would be averaged by somebody; nothing is left half-written."""
    file = tmp_path / "t.csv"
    head: dict[str, Any] = {"image": "a", "label": 1}
    rows = [{**head, "mean-t [K]": 1.0}, {**head, "image": "b", "mean-t [count]": 2.0}]
    with pytest.raises(DataError, match=r"a has mean-t \[K\]") as caught:
        write_table(file, rows)
    assert "b has mean-t [count]" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
