"""Frames of files that hold many: TIFF, npy (T, C, H, W), and the videos and volumes that plugins read.

The path of a frame looks as if its file were a folder: `scan.tif/0012`, or with the axis of a volume
`scan.nii.gz/z/0012`. It is given, stored and read like the path of any image file. One frame is read at a time.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol, cast
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError, PluginError
from simmat.io.limits import check_size, check_window, decoding_errors
from simmat.io.paths import FrameAddress, is_image_folder, require_file
from simmat.io.states import FileState, content_states
from simmat.io.tiff import TiffImage, open_tiff, open_tifffile
from simmat.plugin_specs import API_VERSION
from simmat.types import ImageFile, Window


@dataclass(frozen=True, slots=True)
class StackFormat:
    """A file format that holds many frames of one size, as data.

    Attributes:
        endings: of its files, in lower case with the dot.
        open: "package.module:function"; called as `function(path, axis)`, returns a `Stack`.
        has_axes: True for a volume, whose slices lie along `axis` "x", "y" or "z"; "" for others.
        is_folder: True if a folder of such files is one stack.
        write_labels: "package.module:function"; called as `function(file, planes, stack, axis)`, writes the (H, W)
            uint16 labels of all slices of an open stack to a .nii.gz on the same grid; "" for none.
    """

    name: str
    description: str
    endings: tuple[str, ...]
    open: str
    has_axes: bool = False
    is_folder: bool = False
    write_labels: str = ""
    api_version: int = API_VERSION


MAX_FRAMES = 2**20
"""Most frames of a file, each of which has a path."""
MIN_SPACING_MM = 1e-9
MAX_SPACING_MM = 1e9
"""Least and largest distance of frames, rows or columns: 1 pm and 1000 km."""
_OF_PLUGIN = (
    ".nii",
    ".nii.gz",
    ".dcm",
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
)
_BUILTIN = (
    StackFormat(
        "tiff",
        "one page, or the planes of one time, a frame",
        (".tif", ".tiff"),
        f"{__name__}:TiffStack",
    ),
    StackFormat(
        "npy",
        "an array (T, C, H, W), of masks (T, H, W)",
        (".npy",),
        f"{__name__}:NpyStack",
    ),
)
_MM = {
    "mm": 1.0,
    "cm": 10.0,
    "micron": 1e-3,
    "um": 1e-3,
    "µm": 1e-3,
    "\\u00B5m": 1e-3,
    "nm": 1e-6,
}

plugin_formats: Callable[[], Sequence[StackFormat]] = tuple
"""Returns the formats of the installed plugins; `simmat.plugins.loader` sets it."""


class Stack(Protocol):
    """An open file of frames; it is used in one thread of one process.

    Attributes:
        size_hw: (H, W) of every frame in pixels.
        spacing_mm: from frame to frame, row to row and column to column; None if the file does not say.
        affine: (4, 4) from the voxel (x, y, z, 1) of a volume to mm towards right, front and top; None likewise.
    """

    size_hw: tuple[int, int]
    spacing_mm: tuple[float, float, float] | None
    affine: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        """Return the number of frames."""

    def read(self, index: int, labels: bool) -> ImageFile:
        """Read the planes (P, H, W) of one frame; `labels` asks for the stored numbers, as of a mask."""


def stack_format(path: Path) -> StackFormat | None:
    """Return the format of a file or folder of frames by its ending, for a folder by those in it; None without one."""
    formats = [*_BUILTIN, *plugin_formats()]
    name = path.name.lower()
    if not path.is_dir() or is_image_folder(path):
        return next((one for one in formats if name.endswith(one.endings)), None)
    names: list[str] = []
    with suppress(OSError):  # who lists the folder says what is wrong with it
        names = [name.lower() for name in os.listdir(path)]
    for one in formats:
        if one.is_folder and any(name.endswith(one.endings) for name in names):
            return one
    return None


def stack_endings() -> tuple[str, ...]:
    """Return the endings of files that always hold frames: those of plugins, and those that a plugin might read."""
    return tuple(
        dict.fromkeys(
            (
                *(ending for one in plugin_formats() for ending in one.endings),
                *_OF_PLUGIN,
            )
        )
    )


def frame_paths(file: Path, axis: str) -> list[Path]:
    """Return the paths of the frames of a file, in order; `axis` is that of volumes.

    Raises:
        DataError: the file is damaged, or nothing installed reads it.
    """
    kind = stack_format(file)
    along = axis if kind is not None and kind.has_axes else ""
    count = len(open_stack(file, along))
    width = max(len(str(count - 1)), 4)
    return [file / along / f"{number:0{width}}" for number in range(count)]


def open_stack(file: Path, axis: str = "") -> Stack:
    """Open a file of frames; the last few stay open, until they change.

    Raises:
        DataError: the file is missing or damaged, its frames differ, or nothing installed reads it.
    """
    try:
        states = content_states(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    # an open file has one position
    return _opened(file, axis, states, os.getpid(), threading.get_ident())


@lru_cache(maxsize=8)
def _opened(
    file: Path,
    axis: str,
    _states: tuple[FileState, ...],
    _process: int,
    _thread: int,
) -> Stack:
    kind = stack_format(file)
    if kind is None:
        raise DataError(
            f"{file}: no installed package reads its frames; SimMAT reads TIFF and npy, and a plugin reads "
            "NIfTI, DICOM and videos, see SimMAT's README"
        )
    if not file.is_dir():
        require_file(file, f"{kind.name} file")  # a pipe would wait for a writer
    if kind.is_folder and not file.is_dir():
        raise DataError(
            f"{file}: one of the files of a {kind.name} series; give their folder"
        )
    if bool(axis) != kind.has_axes:
        where = "FILE/z/NUMBER (or x, y)" if kind.has_axes else "FILE/NUMBER"
        raise DataError(f"{file}: a frame of a {kind.name} file is named {where}")
    try:
        open_frames = resolve_name(kind.open)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"cannot import {kind.open!r}, which reads {kind.name} files: {error}"
        ) from error
    with decoding_errors(file, kind.name):
        found = cast(Stack, open_frames(file, axis))
        if not 0 < len(found) <= MAX_FRAMES:
            raise DataError(
                f"{file}: claims {len(found)} frames; 1 to {MAX_FRAMES} are read, so it may be damaged"
            )
        if found.spacing_mm is not None:
            _check_spacing(file, found.spacing_mm)
    return found


def _check_spacing(file: Path, spacing_mm: tuple[float, float, float]) -> None:
    """Raise DataError for a spacing that is no length: volumes in cm³ would be none."""
    for step in spacing_mm:
        if not MIN_SPACING_MM <= step < MAX_SPACING_MM:
            raise DataError(
                f"{file}: states {step:g} mm from frame to frame, row to row or column to column; correct the spacing "
                "in the file, or save it without one"
            )


def read_frame(
    frame: FrameAddress, *, labels: bool = False, window: Window | None = None
) -> ImageFile:
    """Read a frame, or the part of it in a window; see `read_image` and `read_labels`."""
    stack = _stack_with(frame)
    path = frame.file / frame.axis / str(frame.number)
    with decoding_errors(path, "image"):
        check_size(path, *stack.size_hw)
        if isinstance(stack, TiffStack | NpyStack):
            found = stack.read(frame.number, labels, window)
        else:
            found = stack.read(frame.number, labels)
            if window is not None:
                check_window(path, window, stack.size_hw)
                found = replace(found, planes=found.planes[:, *window.slices])
    return replace(found, path=path)


def frame_size(frame: FrameAddress) -> tuple[int, int]:
    """Return the (height, width) of a frame."""
    return _stack_with(frame).size_hw


def _stack_with(frame: FrameAddress) -> Stack:
    stack = open_stack(frame.file, frame.axis)
    if frame.number >= len(stack):
        raise DataError(
            f"{frame.file}: has the frames 0 to {len(stack) - 1}, no frame {frame.number}"
        )
    return stack


class TiffStack:
    """A TIFF whose pages are frames, or with the axis C in its description (ImageJ, tifffile) planes of frames."""

    affine = None

    def __init__(self, path: Path, axis: str = "") -> None:
        self.path = path
        with open_tifffile(path) as tiff:
            pages: list[int] = []
            kinds: dict[str, tuple[int, Any]] = {}
            # one at a time: the tags of all take memory
            for number in range(len(tiff.pages)):
                page = tiff.pages[number].aspage()
                if not page.subfiletype & 1:  # a reduced copy
                    pages.append(int(page.offset))
                    kinds.setdefault(f"{page.shape} {page.dtype}", (number, page))
            if not kinds:
                raise DataError(
                    f"{path}: all its pages are marked as reduced copies of others; save the whole ones"
                )
            if len(kinds) > 1:
                found = ", ".join(
                    f"page {number} is {kind}" for kind, (number, _) in kinds.items()
                )
                raise DataError(
                    f"{path}: its pages differ: {found}; all frames must have one size and type"
                )
            ((_, page),) = kinds.values()
            self.size_hw = int(page.imagelength), int(page.imagewidth)
            text = str(tiff.pages[0].aspage().description)
            if text.rstrip().endswith("OME>"):
                axes, self.spacing_mm = _ome_axes(text, page.samplesperpixel)
            else:
                named = zip(tiff.series[0].axes, tiff.series[0].shape, strict=True)
                axes = {name: count for name, count in named if name not in "YXS"}
                self.spacing_mm = _imagej_spacing(tiff, page)
        # (T, P) where the pages of each frame start
        self._frames = _frames_of(path, pages, axes)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    def read(self, index: int, labels: bool, window: Window | None = None) -> ImageFile:
        """Read one frame, or a window of it."""
        open_one = TiffImage if window is None else open_tiff
        return open_one(
            self.path, labels=labels, offsets=tuple(self._frames[index].tolist())
        ).read(window)


def _frames_of(
    path: Path, pages: Sequence[int], axes: Mapping[str, int]
) -> npt.NDArray[np.int64]:
    """Return (T, P) the pages of each frame, of series whose pages have axes of these lengths, the last one fastest."""
    count = math.prod(axes.values())
    if len(pages) < count:
        raise DataError(
            f"{path}: has {len(pages)} of the {count} pages that its axes {dict(axes)} need; it is cut short, or the "
            "rest is in other files (OME-TIFF), has no pages (ImageJ's above 4 GiB), or is planes of one page: save "
            "all in one file, a page each (tifffile: photometric='minisblack')"
        )
    lengths = [length for name, length in axes.items() if name != "C"] + [
        len(pages) // count
    ]
    if len(pages) % count or sum(length > 1 for length in lengths) > 1:
        raise DataError(
            f"{path}: which of its {len(pages)} pages is which frame is not known from its axes {dict(axes)}; save one "
            "axis of frames (tifffile: metadata={'axes': 'TCYX'})"
        )
    order = np.reshape(np.asarray(pages, np.int64), (-1, *axes.values()))
    if "C" in axes:
        order = np.moveaxis(order, 1 + list(axes).index("C"), -1)
    return order.reshape(-1, axes.get("C", 1))


def _ome_axes(
    text: str, samples: int
) -> tuple[dict[str, int], tuple[float, float, float] | None]:
    """Return the axes of the pages that OME-XML states, and the spacing; tifffile would open other files it names."""
    items = ElementTree.fromstring(text).iter()
    found = next(item for item in items if item.tag.endswith("Pixels")).attrib
    axes = {}
    for name in reversed(found["DimensionOrder"]):
        if name not in "XY":
            axes[name] = int(found[f"Size{name}"])
    axes["C"] //= samples
    steps = []
    for name in "ZYX":
        steps.append(
            (
                found.get(f"PhysicalSize{name}"),
                found.get(f"PhysicalSize{name}Unit", "µm"),
            )
        )
    mm = [float(step) * _MM[unit] for step, unit in steps if step and unit in _MM]
    return axes, (mm[0], mm[1], mm[2]) if len(mm) == 3 and all(mm) else None


def _imagej_spacing(tiff: Any, page: Any) -> tuple[float, float, float] | None:
    """Return the spacing that ImageJ writes: between slices in its description, of pixels in the resolution."""
    stated = tiff.imagej_metadata or {}
    tags = page.tags
    unit = _MM.get(str(stated.get("unit", "")))
    if (
        unit is None
        or not stated.get("spacing")
        or not {"XResolution", "YResolution"} <= {tag.name for tag in tags}
    ):
        return None
    rows, columns = (
        tags[name].value[1] / tags[name].value[0]
        for name in ("YResolution", "XResolution")
    )
    return unit * abs(float(stated["spacing"])), unit * rows, unit * columns


class NpyStack:
    """An npy array of frames (T, C, H, W), of masks (T, H, W); each is read from the file when it is asked for."""

    spacing_mm = affine = None

    def __init__(self, path: Path, axis: str = "") -> None:
        self.path = path
        shape = map_npy(self.path).shape
        if len(shape) not in (3, 4) or 0 in shape:
            raise DataError(
                f"{path}: an array of frames must be (T, C, H, W), of masks (T, H, W), got shape {shape}"
            )
        if len(shape) == 4 and shape[1] > 64 and shape[3] <= 16:
            raise DataError(
                f"{path}: an array of frames is (T, C, H, W), but shape {shape} looks like (T, H, W, C); save "
                "array.transpose(0, 3, 1, 2)"
            )
        self._count = int(shape[0])
        self.size_hw = (int(shape[-2]), int(shape[-1]))

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._count

    def read(self, index: int, labels: bool, window: Window | None = None) -> ImageFile:
        """Read one frame, or a window of it."""
        array = map_npy(self.path)
        if array.ndim == 3 and not labels:
            raise DataError(
                f"{self.path}: an array of frames must be (T, C, H, W), got shape {array.shape}; for one plane save "
                "array[:, None]"
            )
        planes = array[index] if array.ndim == 4 else array[index][None]  # (P, H, W)
        return npy_image(self.path, planes, window)


def npy_image(
    path: Path, mapped: npt.NDArray[Any], window: Window | None, *, itemsize: int = 4
) -> ImageFile:
    """Read the planes (P, H, W) of a mapped array, or a window of them; `itemsize` is that of a decoded value."""
    if window is not None:
        height, width = mapped.shape[1:]
        check_window(path, window, (height, width))
        mapped = mapped[:, *window.slices]
    count, height, width = mapped.shape
    check_size(path, height, width, count, itemsize=max(itemsize, mapped.itemsize))
    return ImageFile(np.array(mapped), "npy", "gray" if count == 1 else "planes", path)


def map_npy(path: Path) -> npt.NDArray[Any]:
    """Map an npy file to memory; DataError if it holds Python objects."""
    try:
        # of a cut file it raises at once
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        if "Python objects" in str(error):
            raise DataError(
                f"{path}: holds Python objects, which could run code and are not loaded; save numbers: "
                "np.save(path, array.astype('float32'))"
            ) from error
        raise
