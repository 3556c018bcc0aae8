"""`simmat modalities guess`: which sensor reads the files of a folder, and what is asked of the user."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simmat.cli import run
from simmat.io.images import write_image
from simmat.plugins.loader import load_plugins
from simmat.sensors.adapter import with_data_card
from simmat.sensors.options import parse_nodata
from simmat.sensors.sensor_toml import read_sensor

pytestmark = pytest.mark.plugins("simmat-plugin-guess")


def guess(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["modalities", "guess", str(folder), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["modalities", "guess", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert "Traceback" not in said
    return said


def noise(seed: int, planes: int = 1, high: int = 256) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, high, (planes, 24, 32))
    return values.astype(np.uint8 if high <= 256 else np.uint16)


def test_a_colour_picture_is_rgb_and_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A false-colour picture of other bands looks the same in a file."""
    for number in range(3):
        write_image(tmp_path / f"{number}.png", noise(number, 3))
    (group,) = guess(tmp_path, capsys)["groups"]
    assert (group["modality"], group["files"]) == ("rgb", 3)
    assert any("red, green and blue" in text for text in group["questions"])
    assert group["sensor_toml"] is None


def test_a_gray_picture_is_counts_and_the_unit_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """8 bits of a thermal camera are no temperatures."""
    write_image(tmp_path / "a.png", noise(0))
    (group,) = guess(tmp_path, capsys)["groups"]
    assert group["modality"] == "gray"
    assert [one["unit"] for one in group["best"]["channels"]] == ["count"]
    assert "no unit" in group["best"]["unit_evidence"]
    assert any("unit" in text for text in group["questions"])


def test_the_draft_of_a_sensor_reads_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A draft that is refused helps nobody."""
    folder = tmp_path / "files"
    folder.mkdir()
    write_image(folder / "a.tif", noise(0, 5, 4000))
    (group,) = guess(folder, capsys)["groups"]
    assert group["modality"] == "raster"
    (tmp_path / "sensor.toml").write_text(group["sensor_toml"])
    sensor = read_sensor(tmp_path / "sensor.toml")
    image = sensor.load({sensor.sources[0].name: folder / "a.tif"})
    assert [channel.unit for channel in image.channels] == ["count"] * 5


def test_three_equal_planes_are_no_colour_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of colour would learn from a radar image stored as a picture."""
    write_image(tmp_path / "a.png", np.repeat(noise(0), 3, axis=0))
    (group,) = guess(tmp_path, capsys)["groups"]
    assert group["modality"] != "rgb"
    assert any("equal in every pixel" in text for text in group["evidence"])


def test_zeros_and_fill_values_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether 0 is dark or no measurement, only the user knows."""
    planes = np.random.default_rng(0).normal(5, 1, (1, 24, 32)).astype(np.float32)
    planes[:, :4] = 0
    planes[:, 4:6] = -9999
    np.save(tmp_path / "a.npy", planes)
    (group,) = guess(tmp_path, capsys)["groups"]
    asked = " ".join(group["questions"])
    assert "--nodata gray=0" in asked
    assert "--nodata gray=-9999" in asked


def test_the_names_of_subfolders_make_a_composition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set of several sources has a folder for each."""
    for name, planes in (("rgb", 3), ("gray", 1)):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(2):
            write_image(folder / f"{number}.png", noise(number, planes))
    found = guess(tmp_path, capsys)
    assert found["composition"] == "gray+rgb"
    assert {group["modality"] for group in found["groups"]} == {"rgb", "gray"}


@pytest.mark.parametrize("modality", ["gray", "rgb+gray"])
def test_advice_holds_alone_and_in_a_composition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], modality: str
) -> None:
    """One number for all sensors is refused, as it may be a measurement of some."""
    dark = noise(0)
    dark[:, :8] = 0
    for name, planes in (("rgb", noise(1, 3)), ("gray", dark)):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", planes)
    found = guess(tmp_path, capsys)
    (nodata,) = re.findall(r"--nodata (\S+)", json.dumps(found))
    card = {"nodata": parse_nodata(nodata.rstrip('",]'))}
    sensor = with_data_card(load_plugins().modality(modality), card)
    assert sensor.sensors()[-1].nodata("gray") == 0
    assert sensor.sensors()[0].nodata("rgb") is None


def test_kinds_that_are_mixed_are_answered_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A camera writes a picture beside its measurement."""
    for number in range(3):
        write_image(tmp_path / f"{number}.tif", noise(number, 1, 60000))
        Image.fromarray(noise(number, 3).transpose(1, 2, 0)).save(
            tmp_path / f"{number}.jpg"
        )
    groups = guess(tmp_path, capsys)["groups"]
    assert {(one["format"], one["modality"]) for one in groups} == {
        ("tiff", "gray"),
        ("jpeg", "rgb"),
    }


def test_unreadable_files_are_counted_beside_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One damaged file must not hide what the others are."""
    write_image(tmp_path / "a.png", noise(0))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    found = guess(tmp_path, capsys)
    assert len(found["unreadable"]) == 1
    assert "b.png" in found["unreadable"][0]
    assert [group["modality"] for group in found["groups"]] == ["gray"]
    assert run(["modalities", "guess", str(tmp_path)]) == 0
    assert "Files that cannot be read: 1" in capsys.readouterr().out


def masks(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number in range(3):
        plane = np.zeros((64, 64), np.uint8)
        plane[10:30, 10:40] = number + 1
        Image.fromarray(plane).save(folder / f"{number}.png")
    return folder


def test_what_holds_no_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear error each, which says what is there."""
    assert "no such folder" in refused(tmp_path / "none", capsys)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty" in refused(empty, capsys)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("a")
    assert "it holds a.txt" in refused(texts, capsys)
    assert "label images only" in refused(masks(tmp_path / "masks"), capsys)
    assert "empty, texts" in refused(tmp_path, capsys).replace("masks, ", "")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "a.tif").write_bytes(b"II*\0")
    assert "none of its images can be read" in refused(damaged, capsys)


def test_masks_beside_images_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of images and their masks is often one folder."""
    masks(tmp_path / "files")
    for number in range(3):
        Image.fromarray(noise(number)[0]).save(tmp_path / f"files/{number}.jpg")
    found = guess(tmp_path / "files", capsys)
    assert [group["format"] for group in found["groups"]] == ["jpeg"]
    assert any("3 files look like label images" in note for note in found["notes"])
