"""`simmat modalities guess`: which sensor reads the files of a folder, also of a file per band, and what is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

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


XMP = 700
"""Tag of a TIFF."""


def write_band(file: Path, seed: int, tags: str = "") -> None:
    """Write a plane of 16 bits, with XMP tags if some are given."""
    values = np.random.default_rng(seed).integers(0, 60000, (24, 32))
    more = TiffImagePlugin.ImageFileDirectory_v2()
    if tags:
        packet = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
            'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
            f'xmlns:Camera="http://pix4d.com/camera/1.0/">{tags}</rdf:Description>'
            "</rdf:RDF></x:xmpmeta>"
        )
        more[XMP] = packet.encode()
        more.tagtype[XMP] = 1
    Image.fromarray(values.astype(np.uint16)).save(file, "TIFF", tiffinfo=more)


def named(name: str, wavelength_nm: str) -> str:
    return (
        f"<Camera:BandName>{name}</Camera:BandName>"
        f"<Camera:CentralWavelength><rdf:Seq><rdf:li>{wavelength_nm}</rdf:li></rdf:Seq></Camera:CentralWavelength>"
    )


def test_tags_name_the_bands_of_a_draft_that_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wavelength that nobody has to look up is worth a line of evidence."""
    folder = tmp_path / "images"
    folder.mkdir()
    tags = {"1": named("Blue", "475"), "2": named("Red edge", "717")}
    for capture in ("IMG_0001", "IMG_0002"):
        for end, text in tags.items():
            write_band(folder / f"{capture}_{end}.tif", int(end), text)
    found = guess(folder, capsys)
    (bands,) = found["band_files"]
    assert [one["name"] for one in bands["bands"]] == ["blue", "red-edge"]
    assert "CentralWavelength of IMG_0001_2.tif: 717 nm" in bands["sensor_toml"]
    assert [group["sensor_toml"] for group in found["groups"]] == [None]
    (tmp_path / "sensor.toml").write_text(bands["sensor_toml"])
    sensor = read_sensor(tmp_path / "sensor.toml")
    files = {"blue": "IMG_0001_1.tif", "red-edge": "IMG_0001_2.tif"}
    image = sensor.load({name: folder / file for name, file in files.items()})
    assert [one.wavelength_um for one in image.channels] == [0.475, 0.717]
    assert [one.unit for one in image.channels] == ["count", "count"]


def test_without_tags_the_ends_of_the_names_are_the_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No wavelength is guessed from a letter; a capture without all bands is named."""
    for capture in range(5):
        for band in ("G", "R", "NIR"):
            write_band(tmp_path / f"DJI_{capture}_MS_{band}.TIF", capture)
    (tmp_path / "DJI_4_MS_NIR.TIF").unlink()
    (bands,) = guess(tmp_path, capsys)["band_files"]
    assert {one["name"] for one in bands["bands"]} == {"g", "r", "nir"}
    assert {one["wavelength_um"] for one in bands["bands"]} == {None}
    assert bands["incomplete"] == ["DJI_4_MS"]
    assert run(["modalities", "guess", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert 'files = "*_NIR.TIF"' in said
    assert "simmat align DIR --modality ./sensor.toml" in said


def test_numbers_in_names_are_no_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most cameras count their images."""
    for number in (1, 2, 3):
        write_band(tmp_path / f"IMG_{number}.tif", number)
    assert guess(tmp_path, capsys)["band_files"] == []


def test_one_capture_is_enough_if_tags_name_the_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user looks at one image first; masks beside it are no band."""
    write_band(tmp_path / "IMG_1.tif", 0, named("Blue", "475"))
    write_band(tmp_path / "IMG_2.tif", 1, named("NIR\n\n", "not a number"))
    mask = np.zeros((1, 24, 32), np.uint8)
    mask[:, 5:9, 5:9] = 1
    write_image(tmp_path / "IMG_mask.tif", mask)
    (bands,) = guess(tmp_path, capsys)["band_files"]
    assert [one["name"] for one in bands["bands"]] == ["blue", "nir"]
    assert [one["wavelength_um"] for one in bands["bands"]] == [0.475, None]


def test_equal_names_in_tags_do_not_name_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sensor.toml with two sources of one name is refused."""
    for capture in ("a", "b"):
        for end in ("1", "2"):
            write_band(tmp_path / f"{capture}_{end}.tif", 0, named("Pan", "600"))
    (bands,) = guess(tmp_path, capsys)["band_files"]
    assert [one["name"] for one in bands["bands"]] == ["band1", "band2"]
