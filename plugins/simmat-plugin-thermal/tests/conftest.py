"""A radiometric FLIR JPEG built by hand, after the record layout that ExifTool documents (Image::ExifTool::FLIR)."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PLANCK = {"r1": 16000.0, "r2": 0.0125, "b": 1430.0, "f": 1.0, "o": -7000}
_RAW, _CAMERA = 1, 32


@pytest.fixture
def write_flir_jpeg() -> Callable[[Path, np.ndarray], None]:
    """Return the function that writes raw counts as a radiometric JPEG."""
    return _write_flir_jpeg


@pytest.fixture
def kelvin_of() -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that gives the temperatures of raw counts."""
    return _kelvin_of


def _write_flir_jpeg(path: Path, raw: np.ndarray) -> None:
    """Write a JPEG whose APP1 segment holds `raw` (H, W) uint16 and a camera with emissivity 1 at distance 0."""
    picture = io.BytesIO()
    Image.fromarray(np.full((24, 32), 128, dtype=np.uint8)).save(picture, "JPEG")
    payload = b"FLIR\0\x01\x00\x00" + _records(raw)
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    path.write_bytes(picture.getvalue()[:2] + segment + picture.getvalue()[2:])


def _kelvin_of(raw: np.ndarray) -> np.ndarray:
    """Return the temperature of raw counts: T = B / ln(R1 / (R2 (S + O)) + F), FLIR's form of Planck's law."""
    return PLANCK["b"] / np.log(PLANCK["r1"] / (PLANCK["r2"] * (raw.astype(float) + PLANCK["o"])) + PLANCK["f"])


def _records(raw: np.ndarray) -> bytes:
    height, width = raw.shape
    raw_record = b"\x02\x00" + struct.pack("<HH", width, height) + bytes(26) + raw.astype("<u2").tobytes()
    camera = bytearray(1000)
    struct.pack_into("<6f", camera, 32, 1.0, 0.0, 293.15, 293.15, 293.15, 1.0)
    struct.pack_into("<f", camera, 60, 0.5)
    struct.pack_into("<3f", camera, 88, PLANCK["r1"], PLANCK["b"], PLANCK["f"])
    struct.pack_into("<5f", camera, 112, 0.006569, 0.01262, -0.002276, -0.00667, 1.9)
    struct.pack_into("<i", camera, 776, PLANCK["o"])
    struct.pack_into("<f", camera, 780, PLANCK["r2"])
    count, start = 6, 64  # cameras leave blank entries at the end of the directory
    first = start + 32 * count
    entries = [(_RAW, first, len(raw_record)), (_CAMERA, first + len(raw_record), len(camera))]
    directory = b"".join(struct.pack(">HHIIII12x", kind, 2, 100, 1, offset, size) for kind, offset, size in entries)
    header = b"FFF\0" + b"SIMMAT".ljust(16, b"\0") + struct.pack(">III", 100, start, count)
    blob = header.ljust(start, b"\0") + directory.ljust(32 * count, b"\0")
    return blob + raw_record + bytes(camera)
