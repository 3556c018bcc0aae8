"""Files per band are one sensor: `simmat modalities guess` drafts the `sensor.toml` that joins them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from simmat.cli import run
from simmat.io.images import write_image
from simmat.sensors.sensor_toml import read_sensor

XMP = 700
"""Tag of a TIFF."""


def guess(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["modalities", "guess", str(folder), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


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
