"""Pictures as a film: mp4 through PyAV where it is installed, else a GIF."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simmat.drawing.display import PictureArray
from simmat.drawing.overlay import scaled
from simmat.io.files import atomic_path

_MAX_SIDE = {".mp4": 1280, ".gif": 640}
"""Longest side in pixels by the ending."""
_MIN_SIDE = 256
"""A picture whose longer side is shorter is enlarged by a whole factor."""
_MAX_GIF_FRAMES = 200
"""Most pictures of a GIF, which are in memory together; of more, every second, third, … is taken."""
_CODECS = ("libx264", "mpeg4")


def write_film(
    stem: Path, pictures: Iterator[PictureArray], count: int, rate: int
) -> Path:
    """Write pictures as STEM.mp4 or STEM.gif, remove an earlier film of the other kind, and return the file.

    Args:
        stem: the file without the ending.
        pictures: `count` of (H, W, 3), all of one size; at least one.
        count: how many there are.
        rate: pictures in a second.
    """
    ending = ".mp4" if find_spec("av") is not None else ".gif"
    file = stem.with_name(stem.name + ending)
    with atomic_path(file) as temporary:
        if ending == ".mp4":
            _write_mp4(temporary, pictures, rate)
        else:
            _write_gif(temporary, pictures, count, rate)
    for other in set(_MAX_SIDE) - {ending}:
        stem.with_name(stem.name + other).unlink(missing_ok=True)
    return file


def _write_gif(
    file: Path, pictures: Iterator[PictureArray], count: int, rate: int
) -> None:
    step = -(-count // _MAX_GIF_FRAMES)  # rounded up
    first, *others = (
        _scaled(picture, _MAX_SIDE[".gif"])
        for picture in islice(pictures, 0, None, step)
    )
    first.save(
        file, save_all=True, append_images=others, duration=1000 * step // rate, loop=0
    )


def _write_mp4(file: Path, pictures: Iterator[PictureArray], rate: int) -> None:
    av: Any = import_module("av")
    codec = next(
        name for name in _CODECS if name in av.codecs_available or name == _CODECS[-1]
    )
    shown = (_scaled(picture, _MAX_SIDE[".mp4"]) for picture in pictures)
    first = next(shown)
    with av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = first.width
        stream.height = first.height
        stream.pix_fmt = "yuv420p"
        for picture in chain([first], shown):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _scaled(picture: PictureArray, longest: int) -> Image.Image:
    """Return a picture with even sides, as video needs them."""
    height, width = picture.shape[:2]
    side = max(height, width)
    factor = longest / side
    if side <= longest:
        factor = max(_MIN_SIDE // side, 1)
    return scaled(picture, (_even(width * factor), _even(height * factor)))


def _even(length: float) -> int:
    """Return the nearest even number, at least 2."""
    return max(2 * round(length / 2), 2)
