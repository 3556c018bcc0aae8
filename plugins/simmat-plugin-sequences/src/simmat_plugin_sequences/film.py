"""Pictures as a film: mp4 through PyAV where it is installed, else a GIF."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simmat.drawing.display import PictureArray
from simmat.io.files import atomic_path

_MAX_SIDE = {".mp4": 1280, ".gif": 640}
"""Longest side in pixels by the ending."""
_MIN_SIDE = 256
"""A picture whose longer side is shorter is enlarged by a whole factor."""
_MAX_GIF_FRAMES = 200
"""Most pictures of a GIF, which are in memory together; of more, every second, third, … is taken."""
_CODECS = ("libx264", "mpeg4")


def write_film(stem: Path, pictures: Iterator[PictureArray], count: int, rate: int) -> Path:
    """Write pictures as STEM.mp4 or STEM.gif, remove an earlier film of the other kind, and return the file.

    Args:
        stem: the file without the ending.
        pictures: `count` of (H, W, 3), all of one size; at least one.
        count: how many there are.
        rate: pictures in a second.
    """
    ending = ".mp4" if find_spec("av") is not None else ".gif"
    file = stem.with_name(stem.name + ending)
    scaled = (_scaled(picture, _MAX_SIDE[ending]) for picture in pictures)
    with atomic_path(file) as temporary:
        if ending == ".mp4":
            _write_mp4(temporary, scaled, rate)
        else:
            step = -(-count // _MAX_GIF_FRAMES)
            first, *others = (picture for number, picture in enumerate(scaled) if number % step == 0)
            first.save(temporary, save_all=True, append_images=others, duration=1000 * step // rate, loop=0)
    for other in set(_MAX_SIDE) - {ending}:
        stem.with_name(stem.name + other).unlink(missing_ok=True)
    return file


def _scaled(picture: PictureArray, longest: int) -> Image.Image:
    """Return a picture with even sides, as video needs them."""
    image, side = Image.fromarray(picture), max(picture.shape[:2])
    factor = longest / side if side > longest else max(_MIN_SIDE // side, 1)
    width, height = (max(2 * round(length * factor / 2), 2) for length in image.size)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST)


def _write_mp4(file: Path, pictures: Iterator[Image.Image], rate: int) -> None:
    av: Any = import_module("av")
    codec = next(name for name in _CODECS if name in av.codecs_available or name == _CODECS[-1])
    first = next(pictures)
    with av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = first.size
        stream.pix_fmt = "yuv420p"
        for picture in chain([first], pictures):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode())
