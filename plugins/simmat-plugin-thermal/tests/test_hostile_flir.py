"""Radiometric JPEGs that a stranger made."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from simmat.errors import DataError
from simmat.plugins import load_plugins

pytest.importorskip("flyr", reason="comes with the extra 'flir'")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("count", [2**32 - 1, 5])
def test_a_directory_larger_than_its_file_is_refused(tmp_path: Path, order: str, count: int) -> None:
    """A count of 4 billion records in 899 bytes kept the reader at work for hours."""
    header = bytearray(64)
    header[:4] = b"FFF\0"
    struct.pack_into(f"{order}II", header, 24, 64, count)
    payload = b"FLIR\0\x01\0\0" + bytes(header) + bytes(64)
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + segment + b"\xff\xd9")
    adapter = load_plugins().modality("thermal")
    with pytest.raises(DataError, match=r"a\.jpg: damaged.*directory"):
        adapter.load({"thermal": tmp_path / "a.jpg"})
