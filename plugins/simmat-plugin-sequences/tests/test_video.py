"""Frames of videos have the stored numbers, in any order of reading."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import simmat
from simmat.errors import DataError
from simmat.io.images import read_image
from simmat.io.limits import LIMIT_VARIABLE

av = pytest.importorskip("av")

# (T, H, W)
GREY = (
    np.arange(40)[:, None, None] * 1500 + np.arange(48 * 64).reshape(48, 64)
).astype(np.uint16)


def save(path: Path, frames: np.ndarray, form: str, codec: str) -> None:
    """Write a video; `form` is the layout of the given arrays and of the stored pixels."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = form
        for frame in frames:
            made = av.VideoFrame.from_ndarray(
                frame, format="rgb24" if frame.ndim == 3 else form
            )
            file.mux(stream.encode(made))
        file.mux(stream.encode())


def test_grey_of_16_bits_is_read_as_stored(tmp_path: Path) -> None:
    """A radiometric thermal video keeps its numbers, forwards, backwards and in leaps."""
    save(tmp_path / "a.mkv", GREY, "gray16le", "ffv1")
    frames = simmat.FrameSequence(tmp_path / "a.mkv", "gray")
    assert len(frames) == 40
    for index in [*range(40), 3, 39, 0, 38, 2]:
        np.testing.assert_array_equal(frames[index].data[0], GREY[index])


def test_colours_are_read_from_between_key_frames(tmp_path: Path) -> None:
    """A frame that is looked up is the one that playing the video shows."""
    colours = np.stack([GREY >> 8, GREY >> 9, GREY >> 10], axis=-1).astype(np.uint8)
    save(tmp_path / "a.mp4", colours, "yuv420p", "mpeg4")
    frames = simmat.FrameSequence(tmp_path / "a.mp4", "rgb")
    played = [image.data for image in frames]
    for index in (30, 29, 12, 0):
        np.testing.assert_array_equal(
            simmat.FrameSequence(tmp_path / "a.mp4", "rgb")[index].data, played[index]
        )


def test_colours_keep_their_order(tmp_path: Path) -> None:
    """However the codec stores them: here blue first, without loss."""
    colours = np.stack([GREY >> 8, GREY >> 2, GREY], axis=-1).astype(np.uint8)
    save(tmp_path / "a.mkv", colours, "bgr0", "ffv1")
    np.testing.assert_array_equal(
        simmat.FrameSequence(tmp_path / "a.mkv", "rgb")[3].data,
        np.moveaxis(colours[3], 2, 0),
    )


def test_a_cut_video_is_refused(tmp_path: Path) -> None:
    """By name; its last frames would be missing."""
    save(
        tmp_path / "a.mp4",
        GREY.astype(np.uint8)[..., None].repeat(3, -1),
        "yuv420p",
        "mpeg4",
    )
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.mp4"):
        list(simmat.FrameSequence(tmp_path / "a.mp4", "rgb"))


def test_a_cut_matroska_video_is_refused(tmp_path: Path) -> None:
    """Its frames are not counted in the file; by its duration the last ones are missing."""
    save(
        tmp_path / "a.mkv",
        np.random.default_rng(0).integers(0, 2**16, GREY.shape).astype(np.uint16),
        "gray16le",
        "ffv1",
    )
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DataError, match=r"a\.mkv: has \d+ frames of 40; it is cut short"
    ):
        simmat.FrameSequence(tmp_path / "a.mkv", "gray")


def test_what_a_decoder_would_paint_over_is_refused(tmp_path: Path) -> None:
    """Players hide damage behind pixels of other frames; measurements are not made up. The next key frame is read."""
    noise = np.random.default_rng(0).integers(0, 2**8, (48, 64, 3)).astype(np.uint8)
    moving = np.stack([np.roll(noise, step, axis=1) for step in range(40)])
    save(tmp_path / "a.mp4", moving, "yuv420p", "mpeg4")
    frames = simmat.FrameSequence(tmp_path / "a.mp4", "rgb")
    with av.open(str(tmp_path / "a.mp4")) as file:
        packets = [
            (one.pos, one.size, one.is_keyframe)
            for one in file.demux(video=0)
            if one.size
        ]
    last = frames[39].data
    damaged = next(
        number for number, (*_, is_key) in enumerate(packets) if number and not is_key
    )
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    start = packets[damaged][0] + packets[damaged][1] // 2
    content[start : start + 200] = bytes(200)
    (tmp_path / "a.mp4").write_bytes(content)
    again = simmat.FrameSequence(tmp_path / "a.mp4", "rgb")
    with pytest.raises(DataError, match=f"a.mp4/{damaged}: damaged"):
        _ = again[damaged]
    np.testing.assert_array_equal(again[39].data, last)


def save_coloured(path: Path) -> bytes:
    """Write a small MP4, and return its content."""
    colours = np.stack([GREY >> 8, GREY >> 9, GREY >> 10], axis=-1).astype(np.uint8)
    save(path, colours, "yuv420p", "mpeg4")
    return path.read_bytes()


def test_a_video_with_more_frames_than_bytes_is_refused(tmp_path: Path) -> None:
    """A file of 30 KB would take 0.8 GB when it is opened."""
    content = save_coloured(tmp_path / "a.mp4")
    at = content.index(b"stsz")
    # version and flags, one size for all, number of frames
    table = bytes(4) + (100).to_bytes(4, "big") + (1 << 26).to_bytes(4, "big")
    (tmp_path / "a.mp4").write_bytes(content[: at + 4] + table + content[at + 16 :])
    with pytest.raises(DataError, match=r"a\.mp4: damaged: it claims 67108\d* frames"):
        simmat.FrameSequence(tmp_path / "a.mp4", "rgb")


def test_a_part_of_a_video_with_more_frames_than_bytes_is_refused(
    tmp_path: Path,
) -> None:
    """A file of 8 KB in parts would take 2.2 GB when it is opened."""
    content = save_coloured(tmp_path / "a.mp4")
    part = b"\0\0\0\x18moof\0\0\0\x10trun" + bytes(4) + (1 << 26).to_bytes(4, "big")
    (tmp_path / "a.mp4").write_bytes(content + part)
    with pytest.raises(DataError, match=r"a\.mp4: damaged: it claims 67108\d* frames"):
        simmat.FrameSequence(tmp_path / "a.mp4", "rgb")


def test_content_that_looks_like_a_table_is_read(tmp_path: Path) -> None:
    """Pixels may have any bytes."""
    content = save_coloured(tmp_path / "a.mp4")
    box = b"\0\0\0\x1cmdatstsz" + b"\xff" * 16
    (tmp_path / "a.mp4").write_bytes(content + box)
    assert len(simmat.FrameSequence(tmp_path / "a.mp4", "rgb")) == 40


def test_frames_above_the_limit_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libav decodes one when a file is opened."""
    save_coloured(tmp_path / "a.mp4")
    monkeypatch.setenv(LIMIT_VARIABLE, str(48 * 64 * 4 / 2**30))
    assert len(simmat.FrameSequence(tmp_path / "a.mp4", "rgb")) == 40
    os.utime(tmp_path / "a.mp4", ns=(0, 0))  # opened files are kept
    monkeypatch.setenv(LIMIT_VARIABLE, str(32 * 32 * 4 / 2**30))
    with pytest.raises(DataError, match=r"a\.mp4: .*more than 1024 pixels"):
        simmat.FrameSequence(tmp_path / "a.mp4", "rgb")


def test_an_unknown_codec_is_named_as_one(tmp_path: Path) -> None:
    save(tmp_path / "a.mov", np.zeros((3, 48, 64, 3), np.uint8), "rgb24", "png")
    content = (tmp_path / "a.mov").read_bytes()
    (tmp_path / "a.mov").write_bytes(content.replace(b"png ", b"zzzz"))
    with pytest.raises(DataError, match=r"a\.mov: its codec is not known"):
        simmat.FrameSequence(tmp_path / "a.mov", "rgb")


def test_a_playlist_by_another_name_is_not_followed(tmp_path: Path) -> None:
    """It would open other files and addresses."""
    (tmp_path / "a.mp4").write_text("#EXTM3U\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(DataError, match="damaged"):
        simmat.FrameSequence(tmp_path / "a.mp4", "rgb")


def test_deep_colours_are_not_cut_to_eight_bits(tmp_path: Path) -> None:
    """A plane keeps its bits or is refused."""
    save(tmp_path / "a.mkv", np.zeros((3, 48, 64, 3), np.uint8), "yuv420p10le", "ffv1")
    with pytest.raises(DataError, match="10 bits"):
        read_image(tmp_path / "a.mkv/0")


def test_a_compressed_head_of_a_video_is_refused(tmp_path: Path) -> None:
    """What it says of its frames could not be checked before libav reads it."""
    content = save_coloured(tmp_path / "a.mp4")
    box = b"\0\0\0\x10moov\0\0\0\x08cmov"
    (tmp_path / "a.mp4").write_bytes(content + box)
    with pytest.raises(DataError, match=r"a\.mp4: .*compressed"):
        simmat.FrameSequence(tmp_path / "a.mp4", "rgb")
