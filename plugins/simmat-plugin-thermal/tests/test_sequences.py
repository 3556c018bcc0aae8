"""FLIR's sequences: frames in kelvin, corrected like single images; files that are cut short are refused.

The files are made by hand, after the layout of single images; no file of a camera was at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from simmat_plugin_thermal.adapter import COUNTS, TEMPERATURE, Thermal

from simmat import FrameSequence
from simmat.errors import DataError
from simmat.io.frames import open_stack

Block = Callable[..., bytes]
RAW = np.linspace(13000, 20000, 3 * 12 * 16).reshape(3, 12, 16).astype(np.uint16)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("jpeg_ls", [False, True])
@pytest.mark.parametrize("between", [b"", bytes(7)])
def test_frames_have_the_temperatures_of_their_records(
    tmp_path: Path,
    flir_block: Block,
    kelvin_of: Callable[[np.ndarray], np.ndarray],
    order: str,
    jpeg_ls: bool,
    between: bytes,
) -> None:
    """Uncompressed in .seq, JPEG-LS in .csq, with and without bytes between them."""
    path = tmp_path / ("a.csq" if jpeg_ls else "a.seq")
    blocks = [flir_block(raw, order=order, jpeg_ls=jpeg_ls) for raw in RAW]
    path.write_bytes(between.join(blocks))
    frames = FrameSequence(path, Thermal())
    assert len(frames) == 3
    for frame, raw in zip(frames, RAW, strict=True):
        assert frame.channels == (TEMPERATURE,)
        np.testing.assert_allclose(frame.data[0], kelvin_of(raw), rtol=1e-5)
    np.testing.assert_array_equal(open_stack(path).read(2, False).planes[0], RAW[2])


def test_options_correct_the_frames(
    tmp_path: Path, flir_block: Block, write_flir_jpeg: Callable[..., None]
) -> None:
    """As they correct a single image."""
    (tmp_path / "a.seq").write_bytes(b"".join(map(flir_block, RAW)))
    write_flir_jpeg(tmp_path / "a.jpg", RAW[1])
    options = {"emissivity": 0.8, "distance_m": 30.0, "reflected_c": 5.0}
    frames = FrameSequence(tmp_path / "a.seq", Thermal(), modality_options=options)
    single = Thermal().with_options({"thermal": options})
    expected = single.load({"thermal": tmp_path / "a.jpg"}).data
    np.testing.assert_array_equal(frames[1].data, expected)


def test_without_constants_frames_are_counts(tmp_path: Path, flir_block: Block) -> None:
    """Another sensor reads them, too."""
    blocks = [flir_block(raw, emissivity=-1.0) for raw in RAW]
    (tmp_path / "a.seq").write_bytes(b"".join(blocks))
    frames = FrameSequence(tmp_path / "a.seq", Thermal())
    assert frames[0].channels == (COUNTS,)
    np.testing.assert_array_equal(frames[0].data[0], RAW[0])
    grey = FrameSequence(tmp_path / "a.seq", "gray")
    np.testing.assert_array_equal(grey[2].data[0], RAW[2])


def test_frames_of_two_sizes_are_refused(tmp_path: Path, flir_block: Block) -> None:
    """One of them is damaged."""
    blocks = [flir_block(RAW[0]), flir_block(RAW[0, :8]), flir_block(RAW[0])]
    (tmp_path / "a.seq").write_bytes(b"".join(blocks))
    frames = FrameSequence(tmp_path / "a.seq", Thermal())
    with pytest.raises(DataError, match="frame 1 differs in size"):
        frames[1]
    (tmp_path / "b.seq").write_bytes(b"".join(blocks[:2]))
    with pytest.raises(DataError, match="differ in size"):
        open_stack(tmp_path / "b.seq")


def test_a_jpeg_ls_of_another_size_is_refused(
    tmp_path: Path, flir_block: Block
) -> None:
    """It says itself how much it decodes to."""
    block = flir_block(RAW[0], jpeg_ls=True)
    at = block.index(b"\xff\xf7\x00\x0b") + 5
    path = tmp_path / "a.csq"
    path.write_bytes(block[:at] + b"\x7f\xff" + block[at + 2 :])
    with pytest.raises(DataError, match="holds one of 16x32767"):
        FrameSequence(path, Thermal())[0]
