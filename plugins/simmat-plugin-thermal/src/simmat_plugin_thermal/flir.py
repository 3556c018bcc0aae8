"""Radiometric FLIR JPEG through flyr, a library that is installed with the extra `flir`."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np

from simmat.errors import DataError
from simmat.files import read_bytes
from simmat.types import FloatArray

_MOST_BYTES = 2**28
_SEGMENT_HEAD = 8  # "FLIR", 0, 1, number of the segment, number of the last one
_DIRECTORY, _ENTRY = slice(24, 32), 32  # offset and count of the records, in the FFF header; bytes of an entry


def read_flir(path: Path) -> FloatArray:
    """Return the (H, W) temperatures in kelvin that the camera's own settings give (emissivity, distance, air).

    Raises:
        DataError: flyr is not installed, or it cannot read the records.
    """
    try:
        import flyr
    except ImportError:
        raise DataError(
            f"{path}: a radiometric FLIR JPEG; to read its temperatures: pip install 'simmat-plugin-thermal[flir]'. "
            "To use the picture it shows instead: --modality gray, rgb or raster"
        ) from None
    content = read_bytes(path, "FLIR JPEG", limit=_MOST_BYTES)
    _check_directory(path, flir_records(content))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about the size of the picture, which is not decoded here
            kelvin = np.asarray(flyr.unpack(io.BytesIO(content)).kelvin, dtype=np.float32)
    except Exception as error:  # flyr has no error tree: damaged records end in whatever Python raises
        raise DataError(f"{path}: flyr cannot read its FLIR records ({type(error).__name__}: {error})") from error
    if kelvin.ndim != 2 or 0 in kelvin.shape:
        raise DataError(f"{path}: its FLIR records hold no image, got shape {kelvin.shape}")
    return kelvin


def is_flir_jpeg(path: Path) -> bool:
    """True where a JPEG carries FLIR's radiometric records.

    Raises:
        DataError: it is no file, or cannot be read.
    """
    return bool(flir_records(read_bytes(path, "JPEG", limit=_MOST_BYTES)))


def flir_records(content: bytes) -> bytes:
    """Return FLIR's records of a JPEG: the APP1 segments that begin with "FLIR", joined; empty where there are none."""
    found, place = [], 2
    while content[:2] == b"\xff\xd8" and len(head := content[place : place + 4]) == 4:
        length = int.from_bytes(head[2:], "big")
        if head[0] != 0xFF or head[1] == 0xDA or length < 2:  # the scan begins: no more headers
            break
        payload = content[place + 4 : place + 2 + length]
        if head[1] == 0xE1 and payload.startswith(b"FLIR\0"):
            found.append(payload[_SEGMENT_HEAD:])
        place += 2 + length
    return b"".join(found)


def _check_directory(path: Path, records: bytes) -> None:
    """Refuse a directory of more records than the file has room for; flyr would read on for hours."""
    directory = records[_DIRECTORY]
    for order in "<>":
        offset, count = struct.unpack(f"{order}II", directory) if len(directory) == 8 else (0, len(records))
        if offset + count * _ENTRY <= len(records):
            return
    raise DataError(f"{path}: damaged, its FLIR records claim a directory larger than their {len(records)} bytes")
