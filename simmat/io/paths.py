"""What a path stands for: a file, a folder, a URL, a frame of a sequence, or an image that is a folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from simmat.errors import ConfigError, DataError, SimMATError

_URL = re.compile(r"(?:/vsicurl/)?(https?|s3|gs):/+(.+)", re.IGNORECASE)
"""URLs that are read."""
AXES = ("x", "y", "z")
"""Axes of a volume: a slice along z has rows along y and columns along x, along y z and x, along x z and y."""
IMAGE_FOLDERS = (".zarr", ".safe")
"""Endings of folders that are one image each."""


def url_of(path: Path) -> str | None:
    """Return the URL that a path stands for, in which `Path` made one slash of two; None for other paths.

    A folder from someone else may hold a folder "https:"; its files are no URLs.
    """
    match = _URL.fullmatch(path.as_posix())
    if match is None or path.exists():
        return None
    return f"{match[1].lower()}://{match[2]}"


def missing(path: Path, what: str) -> str:
    """Say that there is no file or folder at a path, and for a URL which ones are read."""
    match = _URL.search(path.as_posix())  # a relative path may have become absolute
    if path.is_symlink():
        return f"{path}: a link to {os.readlink(path)}, which is missing; restore that {what}, or remove the link"
    if match is None:
        return f"{path}: no such {what}"
    url = f"{match[1]}://{match[2]}".partition("?")[0]
    return (
        f"{url}: no such {what}; only GeoTIFFs are read by URL (http, https, s3, gs), by `simmat predict` and "
        "`Predictor`; download other files first"
    )


def shown_url(path: Path) -> str:
    """Return a path, or the URL that it stands for without a query, which may hold a secret."""
    url = url_of(path)
    if url is None:
        return str(path)
    return url.partition("?")[0]


def stem_of(path: Path) -> str:
    """Return the name of a file without its ending, also of a URL with a query.

    Raises:
        DataError: a URL is not valid.
    """
    url = url_of(path)
    if url is None:
        return path.stem
    try:
        return Path(urlsplit(url).path or "remote").stem
    except ValueError as error:
        raise DataError(
            f"{shown_url(path)}: not a valid address ({error}); give that of a GeoTIFF"
        ) from None


def with_home(path: Path | str) -> Path:
    """Return a path with a leading `~` or `~name` replaced; raise ConfigError if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path} begins with a home folder that does not exist; give the whole path"
        ) from error


def is_image_folder(path: Path) -> bool:
    """Return whether a path is a folder that is one image, as its name says: a Zarr store, a Sentinel product."""
    return path.name.lower().endswith(IMAGE_FOLDERS) and path.is_dir()


def check_links(folder: Path) -> None:
    """Refuse a link in a folder that is one image and leads out of it: any file would be read as pixels.

    Raises:
        DataError: there is one.
    """
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise DataError(
                f"{path}: a link out of {folder.name}, which is not followed; put the file itself there"
            )


class FrameAddress(NamedTuple):
    """The parts of a frame's path; `axis` is "" for files that are no volume."""

    file: Path
    axis: str
    number: int


def frame_of(path: Path) -> FrameAddress | None:
    """Return the file, axis and number of the path of a frame; None for any other path."""
    if not (path.name.isascii() and path.name.isdigit() and len(path.name) < 10):
        return None
    axis = (
        path.parent.name
        if path.parent.name in AXES and not path.parent.exists()
        else ""
    )
    file = path.parent.parent if axis else path.parent
    if file.exists() if axis else file.is_file() or is_image_folder(file):
        return FrameAddress(file, axis, int(path.name))
    return None


def require_file(
    path: Path,
    what: str = "file",
    *,
    error: type[SimMATError] = DataError,
    hint: str = "",
) -> None:
    """Check that `path` is a regular file, without opening it; links are followed.

    Opening a FIFO would wait for a writer, and reading a device may never end.

    Args:
        what: what it should be, for messages ("image", "config file").
        hint: what to do if the file does not exist.

    Raises:
        SimMATError: of class `error`; the path is missing, a folder, a FIFO, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise error(missing(path, "file") + (f"; {hint}" if hint else "")) from None
    except (OSError, ValueError) as cause:
        raise error(
            f"{path}: cannot be read: {getattr(cause, 'strerror', None) or cause}"
        ) from cause
    if not stat.S_ISREG(mode):
        found = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise error(f"{path}: a {found}, not a file; give the path of a file ({what})")


def require_folder(path: Path, hint: str) -> None:
    """Raise DataError if `path` is no folder; `hint` says which one to give."""
    if path.is_dir():
        return
    if path.exists():
        raise DataError(f"{path}: a file, not a folder; {hint}")
    raise DataError(f"{missing(path, 'folder')}; {hint}")
