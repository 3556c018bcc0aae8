"""Image files give the numbers that SimMAT reads, or one message."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from simmat_runtime.files import read_file
from simmat_runtime.manifest import Channel

from simmat.io.images import read_image

COUNTS = (Channel("gray", "count", "counts", None),)
KELVIN = (Channel("thermal", "K", "brightness_temperature", (150.0, 2500.0)),)
NUMBERS = np.random.default_rng(0).integers(0, 60_000, (4, 9, 12)).astype(np.uint16)


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, **options)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "values", "options"),
    [
        ("a.png", NUMBERS[0], {}),
        ("a.png", NUMBERS[0].astype(np.uint8), {}),
        ("a.png", np.moveaxis(NUMBERS[:3], 0, 2).astype(np.uint8).copy(), {}),
        ("a.png", NUMBERS[0] > 9, {}),
        ("a.jpg", np.moveaxis(NUMBERS[:3], 0, 2).astype(np.uint8).copy(), {}),
        (
            "a.tif",
            NUMBERS,
            {"photometric": "minisblack", "planarconfig": "separate", "byteorder": ">"},
        ),
        (
            "a.tif",
            np.moveaxis(NUMBERS, 0, 2),
            {"photometric": "minisblack", "planarconfig": "contig"},
        ),
        (
            "a.tif",
            NUMBERS,
            {"photometric": "minisblack", "compression": "zlib", "predictor": True},
        ),
        ("a.tif", NUMBERS[0].astype(np.float32), {"tile": (16, 16)}),
    ],
)
def test_a_file_gives_the_numbers_that_simmat_reads(
    tmp_path: Path, name: str, values: np.ndarray, options: dict[str, Any]
) -> None:
    """16 bits, planes and their order: another number is another mask."""
    path = write(tmp_path / name, values, **options)
    found, expected = read_file(path, COUNTS), read_image(path).planes
    np.testing.assert_array_equal(found if found.ndim == 3 else found[None], expected)
    assert found.dtype == expected.dtype


def test_the_nodata_of_a_tiff_is_missing(tmp_path: Path) -> None:
    """A number far below all others would look like a very cold pixel."""
    path = write(
        tmp_path / "a.tif",
        np.asarray([[7, 9]], np.int16),
        extratags=[(42113, "s", 0, "7", True)],
    )
    np.testing.assert_array_equal(read_file(path, COUNTS), [[[np.nan, 9]]])


@pytest.mark.parametrize(
    ("name", "values", "options", "words"),
    [
        (
            "a.tif",
            NUMBERS[0],
            {
                "extratags": [
                    (42112, "s", 0, '<Item sample="0" role="scale">2</Item>', True)
                ]
            },
            "scale",
        ),
        ("a.tif", NUMBERS, {"photometric": "miniswhite"}, "photometric"),
        (
            "a.tif",
            np.stack([NUMBERS, NUMBERS]),
            {"photometric": "minisblack", "planarconfig": "separate"},
            "one page",
        ),
        ("a.bmp", NUMBERS[0].astype(np.uint8), {}, "not an npy, PNG"),
    ],
)
def test_numbers_that_would_have_to_be_changed_are_refused(
    tmp_path: Path, name: str, values: np.ndarray, options: dict[str, Any], words: str
) -> None:
    """The runtime knows no sensor, so it scales and guesses nothing."""
    with pytest.raises(ValueError, match=rf"{name} cannot be read .*{words}"):
        read_file(write(tmp_path / name, values, **options), COUNTS)


def test_whole_numbers_are_not_taken_for_kelvin(tmp_path: Path) -> None:
    """A camera's 16 bits are 1/100 K, 1/64 K or counts; only the sensor's reader knows."""
    with pytest.raises(ValueError, match=r"thermal in K.*\.npy"):
        read_file(write(tmp_path / "a.png", NUMBERS[0]), KELVIN)
    kelvin = write(tmp_path / "a.tif", np.full((2, 2), 300, np.float32))
    assert read_file(kelvin, KELVIN).mean() == 300


def test_a_damaged_file_and_a_missing_library_are_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two packages, a device often has none."""
    path = write(tmp_path / "a.tif", NUMBERS[0])
    (tmp_path / "cut.tif").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=r"cut\.tif cannot be read .*pixels are missing"
    ):
        read_file(tmp_path / "cut.tif", COUNTS)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ValueError, match=r"tifffile.*simmat-runtime\[images\]"):
        read_file(path, COUNTS)
