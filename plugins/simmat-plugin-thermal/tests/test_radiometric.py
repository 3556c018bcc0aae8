"""Radiometric JPEGs: the measurement beside the picture."""

from __future__ import annotations

import io
import math
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from simmat_plugin_thermal.adapter import COUNTS, MODALITIES, TEMPERATURE

from simmat.cli import group
from simmat.errors import ConfigError, DataError
from simmat.types import SensorImage

Write = Callable[..., None]
RAW = np.linspace(13000, 20000, 12 * 16).reshape(12, 16).astype(np.uint16)
SHARED = Path(
    os.environ.get("SIMMAT_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data")
)
REAL = SHARED / "radiometric-jpeg"
real_files = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"no radiometric JPEGs at {REAL}; set SIMMAT_SHARED_DATA"
)


def load(path: Path) -> SensorImage:
    return MODALITIES[0].load({"thermal": path})


def test_stats_say_what_counts_look_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else would tell that the counts are temperatures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    for name, raw in (("a", RAW + 4000), ("b", RAW + 4100)):
        write_dji_jpeg(tmp_path / f"set/{name}.jpg", raw)
    given = ["data", "stats", "set", "--modality", "thermal"]
    group.main(args=given, prog_name="simmat", standalone_mode=False)
    assert re.search(
        r"warning: .*kelvin times 64.* 47\.\d °C.*unit=K64", capsys.readouterr().err
    )
    group.main(
        args=[*given, "--modality-option", "unit=K64"],
        prog_name="simmat",
        standalone_mode=False,
    )
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("png", [False, True])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_radiometric_jpeg_gives_the_temperatures_of_its_records(
    tmp_path: Path,
    write_flir_jpeg: Write,
    kelvin_of: Callable[[np.ndarray], np.ndarray],
    order: str,
    png: bool,
    pieces: int,
) -> None:
    """Its picture is 8 bits of automatic gain; the records hold the measurement, at its own size, in many layouts."""
    write_flir_jpeg(tmp_path / "a.jpg", RAW, order=order, png=png, pieces=pieces)
    image = load(tmp_path / "a.jpg")
    assert image.channels == (TEMPERATURE,)
    np.testing.assert_allclose(image.data[0], kelvin_of(RAW), rtol=1e-5)
    assert image.preview_hw == (24, 32)
    assert "16x12" in image.size_note
    assert MODALITIES[1].load({"thermal": tmp_path / "a.jpg"}).preview_hw == (24, 32)


def test_what_air_window_and_surroundings_add_is_taken_away(
    tmp_path: Path,
    write_flir_jpeg: Write,
    kelvin_of: Callable[[np.ndarray], np.ndarray],
) -> None:
    """A shiny roof far away reads 20 K too cold where it is left in.

    The radiation is followed forward here: object and mirrored surroundings, half of the air, window, half of the air.
    """
    settings = {
        "emissivity": 0.8,
        "distance_m": 50.0,
        "reflected_k": 263.15,
        "air_k": 288.15,
    }
    settings |= {"window_k": 300.0, "window": 0.9}
    celsius = settings["air_k"] - 273.15
    water = math.sqrt(
        0.5
        * math.exp(
            1.5587
            + 0.06939 * celsius
            - 0.00027816 * celsius**2
            + 6.8455e-7 * celsius**3
        )
    )
    path = math.sqrt(settings["distance_m"] / 2)
    half = 1.9 * math.exp(-path * (0.006569 - 0.002276 * water))
    half -= 0.9 * math.exp(-path * (0.01262 - 0.00667 * water))

    def through(radiation: np.ndarray, share: float, kelvin: float) -> np.ndarray:
        return share * radiation + (1 - share) * raw_of(np.asarray(kelvin))

    def raw_of(kelvin: np.ndarray) -> np.ndarray:
        return 16000.0 / (0.0125 * (np.exp(1430.0 / kelvin) - 1.0)) + 7000

    truth = np.linspace(290, 340, RAW.size).reshape(RAW.shape)
    seen = through(raw_of(truth), settings["emissivity"], settings["reflected_k"])
    seen = through(seen, half, settings["air_k"])
    seen = through(seen, settings["window"], settings["window_k"])
    seen = through(seen, half, settings["air_k"])
    write_flir_jpeg(tmp_path / "a.jpg", np.rint(seen).astype(np.uint16), **settings)
    # a count is 0.01 K
    np.testing.assert_allclose(load(tmp_path / "a.jpg").data[0], truth, atol=0.02)


def test_records_without_a_calibration_are_counts(
    tmp_path: Path, write_flir_jpeg: Write
) -> None:
    """Kelvin from constants that are not there would be invented."""
    write_flir_jpeg(tmp_path / "a.jpg", RAW, emissivity=0.0)
    image = load(tmp_path / "a.jpg")
    assert image.channels == (COUNTS,)
    np.testing.assert_array_equal(image.data[0], RAW)


@pytest.mark.parametrize(("marker", "times"), [(0xE3, 1), (0xE4, 1), (0xE3, 2)])
def test_raw_numbers_in_app3_or_app4_segments_are_counts(
    tmp_path: Path, marker: int, times: int
) -> None:
    """DJI keeps them so, and documents no way to kelvin; the picture beside them has 8 bits of automatic gain.

    It may be larger than the raw image, and is not read, so that a cut one does no harm.
    """
    write_dji_jpeg(tmp_path / "a.jpg", RAW, marker=marker, times=times)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[:-200])
    image = load(tmp_path / "a.jpg")
    assert image.channels == (COUNTS,)
    np.testing.assert_array_equal(image.data[0], RAW)
    assert image.preview_hw == (12 * times, 16 * times)


def test_counts_become_kelvin_where_the_user_states_the_unit(
    tmp_path: Path, write_flir_jpeg: Write
) -> None:
    """The counts of many DJI cameras are kelvin times 64, but not of all; so it is not guessed."""
    in_k64 = MODALITIES[0].with_options({"thermal": {"unit": "K64"}})
    write_dji_jpeg(tmp_path / "a.jpg", RAW)
    image = in_k64.load({"thermal": tmp_path / "a.jpg"})
    assert image.channels == (TEMPERATURE,)
    np.testing.assert_allclose(image.data[0], RAW / 64)
    write_dji_jpeg(tmp_path / "b.jpg", RAW // 4)  # 51 to 78 K
    write_flir_jpeg(tmp_path / "c.jpg", RAW)
    Image.new("L", (16, 12), 128).save(tmp_path / "d.jpg")
    for name, words in (
        ("b", "150 to 2500"),
        ("c", "temperatures in kelvin"),
        ("d", "no temperatures"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.jpg: .*{words}.*unit"):
            in_k64.load({"thermal": tmp_path / f"{name}.jpg"})


def test_app3_segments_of_another_program_are_not_a_raw_image(tmp_path: Path) -> None:
    """Stereo cameras write there too; what does not fill the picture is not one."""
    write_dji_jpeg(tmp_path / "a.jpg", RAW, cut=2)
    assert load(tmp_path / "a.jpg").data.max() == 128


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("count", [2**32 - 1, 9_000])
def test_a_directory_larger_than_its_file_is_refused(
    tmp_path: Path, write_flir_jpeg: Write, order: str, count: int
) -> None:
    """A count of 4 billion records in 899 bytes kept a reader at work for hours."""
    write_flir_jpeg(tmp_path / "a.jpg", RAW, order=order)
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    struct.pack_into(f"{order}I", content, content.index(b"FFF\0") + 28, count)
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg: .*directory is larger"):
        load(tmp_path / "a.jpg")


@real_files
@pytest.mark.parametrize("name", ["FLIR_E40", "FLIR_T640", "DJI_XT2"])
def test_a_real_camera_s_constants_are_those_that_exiftool_reads(name: str) -> None:
    """A constant read from the wrong place gives temperatures that look right."""
    from simmat_plugin_thermal.radiometric import (
        flir_parameters,
        flir_records,
        jpeg_segments,
    )

    content = (REAL / f"{name}.jpg").read_bytes()
    records = b"".join(
        p[8:]
        for kind, p in jpeg_segments(content)
        if kind == 0xE1 and p.startswith(b"FLIR\0")
    )
    found = flir_parameters(flir_records(REAL / name, records)[32])
    assert found is not None
    lines = (REAL / f"{name}.txt").read_text(encoding="utf-16").splitlines()
    said = {
        k.strip(): v.split()[0]
        for k, _, v in (line.partition(":") for line in lines)
        if v.strip()
    }
    expected = {
        "Emissivity": found.emissivity,
        "Object Distance": found.distance_m,
        "Reflected Apparent Temperature": found.reflected_k - 273.15,
        "Atmospheric Temperature": found.air_k - 273.15,
        "IR Window Temperature": found.window_k - 273.15,
        "IR Window Transmission": found.window,
        "Relative Humidity": found.humidity * 100,
        "Planck R1": found.r1,
        "Planck B": found.b,
        "Planck F": found.f,
        "Planck O": found.o,
        "Planck R2": found.r2,
        "Atmospheric Trans Alpha 1": found.alpha[0],
        "Atmospheric Trans Beta 2": found.beta[1],
        "Atmospheric Trans X": found.x,
    }
    for label, value in expected.items():
        assert value == pytest.approx(float(said[label]), rel=1e-4, abs=0.051), label
    height, width = load(REAL / f"{name}.jpg").size_hw
    assert (str(height), str(width)) == (
        said["Raw Thermal Image Height"],
        said["Raw Thermal Image Width"],
    )


@real_files
@pytest.mark.parametrize(
    ("name", "unit", "low", "high"),
    [
        ("FLIR_E40.jpg", "K", 291.0, 297.9),
        ("FLIR_T640.jpg", "K", 298.6, 371.1),
        ("DJI_XT2.jpg", "K", 294.6, 356.1),
        ("H20T_DJI_0001_R.JPG", "count", 13537, 20670),
        ("M2EA_DJI_0001_R.JPG", "count", 17228, 20036),
        ("M3T_DJI_0001_R.JPG", "count", 19112, 20364),
        ("M30T_DJI_0001_R.JPG", "count", 18452, 18988),
        ("XTS_DJI_0004_R.JPG", "count", 3648, 5411),
    ],
)
def test_a_real_camera_s_file_is_read(
    name: str, unit: str, low: float, high: float
) -> None:
    """Of E40 and T640 another program, flyr 5.1, gives the same kelvin to 0.0001 K."""
    image = load(REAL / name)
    assert image.channels[0].unit == unit
    assert image.valid.all()
    assert low <= image.data.min() <= image.data.max() <= high


def write_dji_jpeg(
    path: Path, raw: np.ndarray, *, cut: int = 0, marker: int = 0xE3, times: int = 1
) -> None:
    """Write a JPEG of `times` the raw image's sides with its little-endian numbers in two segments, APP3 by default."""
    picture = io.BytesIO()
    Image.new("L", (raw.shape[1] * times, raw.shape[0] * times), 128).save(
        picture, "JPEG"
    )
    content = raw.astype("<u2").tobytes()[: 2 * raw.size - cut]
    parts = content[: len(content) // 2], content[len(content) // 2 :]
    segments = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(part) + 2) + part
        for part in parts
    )
    path.write_bytes(picture.getvalue()[:2] + segments + picture.getvalue()[2:])


SETTINGS = {"emissivity": 0.85, "distance_m": 40.0, "reflected_c": -5.0}


def test_options_replace_what_the_camera_assumed(
    tmp_path: Path, write_flir_jpeg: Write
) -> None:
    """Cameras store 0.95 for everything; the result is that of a camera with the right settings."""
    write_flir_jpeg(tmp_path / "a.jpg", RAW, emissivity=0.95, distance_m=1.0)
    right = {"emissivity": 0.85, "distance_m": 40.0, "reflected_k": 268.15}
    write_flir_jpeg(tmp_path / "b.jpg", RAW, **right)
    corrected = MODALITIES[0].with_options({"thermal": SETTINGS})
    found = corrected.load({"thermal": tmp_path / "a.jpg"}).data
    np.testing.assert_allclose(found, load(tmp_path / "b.jpg").data, rtol=1e-6)
    assert np.abs(found - load(tmp_path / "a.jpg").data).max() > 5


@pytest.mark.parametrize("option", SETTINGS)
def test_a_file_without_constants_cannot_be_corrected(
    tmp_path: Path, option: str
) -> None:
    """The values would stay as they are in silence."""
    sensor = MODALITIES[0].with_options({"thermal": {option: SETTINGS[option]}})
    write_dji_jpeg(tmp_path / "a.jpg", RAW)
    Image.fromarray(RAW).save(tmp_path / "b.png")
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "c.jpg")
    for name in ("a.jpg", "b.png", "c.jpg"):
        with pytest.raises(DataError, match="only FLIR's radiometric files"):
            sensor.load({"thermal": tmp_path / name})


def test_settings_that_leave_no_temperature_are_named(
    tmp_path: Path, write_flir_jpeg: Write
) -> None:
    """Such as surroundings hotter than all that is seen."""
    write_flir_jpeg(tmp_path / "a.jpg", RAW)
    hot = {"emissivity": 0.1, "reflected_c": 900.0}
    sensor = MODALITIES[0].with_options({"thermal": hot})
    with pytest.raises(DataError, match=r"emissivity=0\.1, reflected_c=900"):
        sensor.load({"thermal": tmp_path / "a.jpg"})


@pytest.mark.parametrize(
    ("option", "value"),
    [("emissivity", 0), ("emissivity", 95), ("distance_m", -1), ("reflected_c", -300)],
)
def test_impossible_settings_are_refused(option: str, value: float) -> None:
    """An emissivity of 95 is meant in percent."""
    with pytest.raises(ConfigError, match=option):
        MODALITIES[0].with_options({"thermal": {option: value}})
