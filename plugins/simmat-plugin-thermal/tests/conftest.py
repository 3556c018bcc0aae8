"""A radiometric FLIR JPEG built by hand, after the record layout that ExifTool documents (Image::ExifTool::FLIR)."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

PLANCK = {"r1": 16000.0, "r2": 0.0125, "b": 1430.0, "f": 1.0, "o": -7000}
_RAW, _CAMERA = 1, 32


@pytest.fixture
def write_flir_jpeg() -> Callable[..., None]:
    """Return the function that writes raw counts as a radiometric JPEG."""
    return _write_flir_jpeg


@pytest.fixture
def flir_block() -> Callable[..., bytes]:
    """Return the function that gives the records of raw counts, as one frame of a sequence."""
    return _flir_block


def _flir_block(
    raw: np.ndarray, *, order: str = ">", jpeg_ls: bool = False, **settings: float
) -> bytes:
    return _records(raw, order, png=False, settings=settings, jpeg_ls=jpeg_ls)


@pytest.fixture
def kelvin_of() -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that gives the temperatures of raw counts."""
    return _kelvin_of


def _write_flir_jpeg(
    path: Path,
    raw: np.ndarray,
    *,
    order: str = ">",
    png: bool = False,
    pieces: int = 1,
    **settings: float,
) -> None:
    """Write a JPEG whose APP1 segments hold raw counts and the settings of a camera.

    Args:
        path: the file.
        raw: (H, W) uint16.
        order: of the bytes of the directory, as `struct` has it.
        png: whether the raw image is a PNG, whose bytes FLIR swaps.
        pieces: number of segments.
        settings: emissivity, distance_m, reflected_k, air_k, window_k and window; without them emissivity is 1 at
            distance 0.
    """
    picture = io.BytesIO()
    Image.fromarray(np.full((24, 32), 128, dtype=np.uint8)).save(picture, "JPEG")
    records = _records(raw, order, png=png, settings=settings)
    length = -(-len(records) // pieces)
    segments = b""
    for number in range(pieces):
        payload = (
            b"FLIR\0\x01"
            + bytes([number, pieces - 1])
            + records[number * length : (number + 1) * length]
        )
        segments += b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    path.write_bytes(picture.getvalue()[:2] + segments + picture.getvalue()[2:])


def _kelvin_of(raw: np.ndarray) -> np.ndarray:
    """Return the temperature of raw counts: T = B / ln(R1 / (R2 (S + O)) + F), FLIR's form of Planck's law."""
    return PLANCK["b"] / np.log(
        PLANCK["r1"] / (PLANCK["r2"] * (raw.astype(float) + PLANCK["o"])) + PLANCK["f"]
    )


def _records(
    raw: np.ndarray,
    order: str,
    *,
    png: bool,
    settings: Mapping[str, float],
    jpeg_ls: bool = False,
) -> bytes:
    height, width = raw.shape
    pixels = raw.astype("<u2").tobytes()
    if png:
        stored = io.BytesIO()
        Image.fromarray(raw.byteswap()).save(stored, "PNG")
        pixels = stored.getvalue()
    if jpeg_ls:
        pixels = bytes(imagecodecs.jpegls_encode(raw))
    raw_record = b"\x02\x00" + struct.pack("<HH", width, height) + bytes(26) + pixels
    values = {
        "emissivity": 1.0,
        "distance_m": 0.0,
        "reflected_k": 293.15,
        "air_k": 293.15,
        "window_k": 293.15,
    }
    values |= {"window": 1.0} | dict(settings)
    camera = bytearray(1000)
    struct.pack_into("<H", camera, 0, 2)
    struct.pack_into("<6f", camera, 32, *values.values())
    struct.pack_into("<f", camera, 60, 0.5)
    struct.pack_into("<3f", camera, 88, PLANCK["r1"], PLANCK["b"], PLANCK["f"])
    struct.pack_into("<5f", camera, 112, 0.006569, 0.01262, -0.002276, -0.00667, 1.9)
    struct.pack_into("<i", camera, 776, PLANCK["o"])
    struct.pack_into("<f", camera, 780, PLANCK["r2"])
    count, start = 6, 64  # cameras leave blank entries at the end of the directory
    first = start + 32 * count
    entries = [
        (_RAW, first, len(raw_record)),
        (_CAMERA, first + len(raw_record), len(camera)),
    ]
    directory = b"".join(
        struct.pack(f"{order}HHIIII12x", kind, 2, 100, 1, place, size)
        for kind, place, size in entries
    )
    header = (
        b"FFF\0"
        + b"SIMMAT".ljust(16, b"\0")
        + struct.pack(f"{order}III", 100, start, count)
    )
    blob = header.ljust(start, b"\0") + directory.ljust(32 * count, b"\0")
    return blob + raw_record + bytes(camera)
