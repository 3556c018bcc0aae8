"""Where FLIR's thermal image lies in the picture of the visible lens."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from simmat_plugin_thermal.adapter import Thermal

PLACE = struct.pack("<f2h", 2.0, -20, 10) + bytes(24)
PICTURE = struct.pack("<3H", 3, 640, 480) + bytes(26)


def write_flir(path: Path, records: dict[int, bytes]) -> Path:
    """Write a JPEG with records of FLIR."""
    start = 64 + 32 * len(records)
    entries = b""
    for kind, record in records.items():
        entries += struct.pack(">H10xII8x", kind, start, len(record)) + bytes(4)
        start += len(record)
    count = struct.pack(">III", 101, 64, len(records))
    top = b"FFF\0" + bytes(16) + count + bytes(32)
    payload = b"FLIR\0\1\0\0" + top + entries + b"".join(records.values())
    stream = io.BytesIO()
    Image.new("RGB", (320, 240)).save(stream, "JPEG")
    content = stream.getvalue()
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    path.write_bytes(content[:2] + segment + content[2:])
    return path


def test_the_thermal_image_lies_in_the_picture(tmp_path: Path) -> None:
    """The ratio of the views and the offset of the centres are in pixels of the embedded picture."""
    file = write_flir(tmp_path / "a.jpg", {42: PLACE, 14: PICTURE})
    found = Thermal().stated_place({"thermal": file}, (240, 320), (480, 640))
    assert found is not None
    assert found[0] == "Real2IR, OffsetX, OffsetY"
    middle = found[1] @ [(320 - 1) / 2, (240 - 1) / 2, 1.0]
    np.testing.assert_allclose(middle[:2], [(640 - 1) / 2 - 20, (480 - 1) / 2 + 10])
    np.testing.assert_allclose(np.diag(found[1]), [1, 1, 1])


@pytest.mark.parametrize(
    "records",
    [
        {},
        {42: PLACE},
        {14: PICTURE},
        {42: PLACE[:6], 14: PICTURE},
        {42: struct.pack("<f2h", 0.0, 0, 0), 14: PICTURE},
        {42: PLACE, 14: bytes(32)},
    ],
)
def test_records_that_state_no_place_are_left_out(
    tmp_path: Path, records: dict[int, bytes]
) -> None:
    """An alignment needs no tags."""
    file = write_flir(tmp_path / "a.jpg", records)
    sizes = (240, 320), (480, 640)
    assert Thermal().stated_place({"thermal": file}, *sizes) is None
    assert Thermal().stated_place({"thermal": tmp_path / "b.jpg"}, *sizes) is None
    assert Thermal().stated_place({"thermal": tmp_path / "b.tif"}, *sizes) is None
