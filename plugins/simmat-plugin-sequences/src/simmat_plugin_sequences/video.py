"""Videos through PyAV: 8-bit colours, and grey of any depth as it is stored."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.limits import LIMIT_VARIABLE, decoded_limit
from simmat.types import ImageFile
from simmat_plugin_sequences.volume import library

_DEMUXERS = {".mkv": "matroska", ".webm": "matroska", ".avi": "avi"}
_EVEN = 0.9
"""Least part of equal steps in a video of even times."""
_NEAR = 16
"""Frames to decode without use, rather than to look for a key frame."""
_FLOAT32 = 4
_BOX_HEAD = 8
_COUNTED_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Boxes of an MP4 that say how many frames there are -> bytes between their name and the count."""
_COUNTED = re.compile(b"|".join(_COUNTED_AT))


def _lost(times: npt.NDArray[np.int64], end: float) -> int:
    """Return how many frames of a Matroska file of even times are lost; it does not say how many there are.

    Args:
        times: of the frames, sorted.
        end: time at which the video ends; 0 if it is not known.
    """
    if len(times) < 3:
        return 0
    steps = np.diff(times)
    usual = np.median(steps)
    even = np.abs(steps - usual) <= max(0.1 * usual, 1)
    if even.mean() < _EVEN:
        return 0
    gaps = np.append(steps[~even], end - times[-1])
    return int(np.round(gaps / usual - 1).clip(0).sum())


def _stated_end(stream: Any) -> float:
    """Return when a video ends by its tag, which ffmpeg and mkvmerge write, in the unit of its times; 0 without it."""
    stated = re.fullmatch(
        r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")
    )
    if stated is None:
        return 0.0
    hours, minutes, seconds = map(float, stated.groups())
    return (3600 * hours + 60 * minutes + seconds) / float(stream.time_base)


class VideoStack:
    """The frames of the first video of a file; reading on is fastest, going back decodes from a key frame."""

    spacing_mm = affine = None

    def __init__(self, path: Path, axis: str) -> None:
        self.path = path
        # By name, so that a file cannot be a list of other files and addresses.
        demuxer = _DEMUXERS.get(path.suffix.lower(), "mov")
        if demuxer == "mov":
            _check_counts(path)
        max_pixels = decoded_limit() // _FLOAT32
        limits = {"max_pixels": str(max_pixels)}
        self._file: Any = library("av", "video").open(
            str(path), format=demuxer, options=limits
        )
        if not self._file.streams.video:
            raise DataError(f"{path}: holds no video")
        self._stream = self._file.streams.video[0]
        if self._stream.codec_context is None:
            raise DataError(
                f"{path}: its codec is not known here; convert it: ffmpeg -i IN -c:v ffv1 OUT.mkv"
            )
        if not self._stream.height or not self._stream.width:
            raise DataError(
                f"{path}: the size of its frames is not known, or more than {max_pixels} pixels; the file may be "
                f"damaged. If it is right, raise the limit: simmat --max-image-gib N … (or {LIMIT_VARIABLE})"
            )
        # rather than to paint over what is damaged
        self._stream.codec_context.options = {"err_detect": "explode", **limits}
        packets = [
            (packet.pts, packet.is_discard)
            for packet in self._file.demux(self._stream)
            if packet.size
        ]
        self._times = _sorted_times(
            path, [time for time, is_discarded in packets if not is_discarded]
        )
        claimed = self._stream.frames
        if demuxer == "matroska":
            claimed = len(packets) + _lost(self._times, _stated_end(self._stream))
        if claimed > len(packets):
            raise DataError(
                f"{path}: has {len(packets)} frames of {claimed}; it is cut short or damaged. If it is whole, give its "
                "frames even times: ffmpeg -i IN -fps_mode cfr -c:v ffv1 OUT.mkv"
            )
        self.size_hw = int(self._stream.height), int(self._stream.width)
        self._decoded: Iterator[Any] = iter(())
        self._next = len(self._times)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._times)

    def read(self, index: int, labels: bool) -> ImageFile:
        """Read one frame."""
        if labels:
            raise DataError(
                f"{self.path}: a video cannot be a mask, because its colours are not label numbers; save masks as TIFF"
            )
        frame = self._decode(index)
        if (frame.height, frame.width) != self.size_hw:
            raise DataError(
                f"{self.path}: frame {index} is {frame.width}x{frame.height}, unlike the first one"
            )
        if frame.format.name.startswith("gray"):
            return ImageFile(frame.to_ndarray()[None], "video", "gray", self.path)
        bits = max(part.bits for part in frame.format.components)
        if bits > 8:
            raise DataError(
                f"{self.path}: colours of {bits} bits would be cut to 8; convert it to 8 bits, or to grey of 16: "
                "ffmpeg -i IN -pix_fmt gray16le -c:v ffv1 OUT.mkv"
            )
        colours = frame.to_ndarray(format="rgb24")  # (H, W, 3)
        return ImageFile(np.moveaxis(colours, 2, 0), "video", "rgb", self.path)

    def _decode(self, index: int) -> Any:
        """Return PyAV's frame: decode on from the last one, or from a key frame before it."""
        time = self._times[index]
        if not self._next <= index < self._next + _NEAR:
            self._file.seek(int(time), stream=self._stream, backward=True)
            self._decoded = iter(self._file.decode(self._stream))
        self._next = len(self._times)  # where decoding fails
        for frame in self._decoded:
            if frame.pts == time:
                self._next = index + 1
                return frame
        raise DataError(
            f"{self.path}: frame {index} cannot be found by its time; the file is damaged, or needs to be converted: "
            "ffmpeg -i IN -c:v ffv1 OUT.mkv"
        )


def _check_counts(path: Path) -> None:
    """Raise DataError for an MP4 that claims more frames than it has bytes: libav makes a table of them all.

    The counts are looked for in all bytes but the content, since libav reads them wherever they stand.
    """
    claimed = 0
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with content:
        length = len(content)
        for start, end in _heads(content):
            if content.find(b"cmov", start, end) >= 0:
                raise DataError(
                    f"{path}: its header is compressed; convert it: ffmpeg -i IN -c copy OUT.mp4"
                )
            for found in _COUNTED.finditer(content, start, end):
                at = found.end() + _COUNTED_AT[found[0]]
                claimed += int.from_bytes(content[at : at + 4], "big")
    if claimed > length:
        raise DataError(
            f"{path}: damaged: it claims {claimed} frames, but has {length} bytes"
        )


def _heads(content: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield start and end of the boxes of an MP4 but those of the pixels and sounds (mdat)."""
    length = len(content)
    start = 0
    while start < length:
        size = int.from_bytes(content[start : start + 4], "big")
        if size == 1:  # the size has 64 bits
            size = int.from_bytes(content[start + 8 : start + 16], "big")
        if size < _BOX_HEAD:
            size = length - start
        end = min(start + size, length)
        if content[start + 4 : start + 8] != b"mdat":
            yield start, end
        start = end


def _sorted_times(path: Path, times: list[int | None]) -> npt.NDArray[np.int64]:
    """Return the times of frames in order; DataError if there are none, or two are the same."""
    if not times or None in times or len(set(times)) < len(times):
        raise DataError(
            f"{path}: the order of its frames is not known, because they have no times, or two have the same "
            "time; convert it: "
            "ffmpeg -i IN -c:v ffv1 OUT.mkv"
        )
    return np.sort(np.array(times, np.int64))
