"""Write planes so that `read_image` gives the same numbers back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError
from simmat.io.files import atomic_path

_TIFF = (".tif", ".tiff")


def write_image(path: Path | str, planes: npt.NDArray[Any], *, description: str = "") -> None:
    """Write planes to a PNG, TIFF or npy file, by the path's ending, without loss.

    Args:
        path: PNG takes one or three planes of uint8, or one of uint16; TIFF and npy take any.
        planes: (P, H, W).
        description: TIFF ImageDescription; other formats keep none and refuse one.

    Raises:
        ConfigError: the format cannot hold these planes or the description.
        OutputError: the file cannot be written.
    """
    file, ending = Path(path), Path(path).suffix.lower()
    if ending == ".png":
        _check_png(file, planes)
    elif ending not in (*_TIFF, ".npy"):
        raise ConfigError(
            f"{file}: planes are written without loss to .png, .tif or .npy, not {ending or 'no ending'!r}"
        )
    if description and ending not in _TIFF:
        raise ConfigError(f"{file}: only a TIFF keeps the description {description!r}; use .tif")
    with atomic_path(file) as temporary:
        if ending == ".npy":
            np.save(temporary, planes[0] if len(planes) == 1 else planes, allow_pickle=False)
        elif ending == ".png":
            from PIL import Image

            interleaved = planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, 2)  # (H, W) or (H, W, 3)
            Image.fromarray(np.ascontiguousarray(interleaved)).save(temporary)
        else:
            _write_tiff(temporary, planes, description)


def _check_png(path: Path, planes: npt.NDArray[Any]) -> None:
    kinds = {(1, "uint8"), (1, "uint16"), (3, "uint8")}
    if (len(planes), str(planes.dtype)) not in kinds:
        raise ConfigError(
            f"{path}: a PNG holds one plane of uint8 or uint16 or three of uint8, got {len(planes)} of {planes.dtype}; "
            "use .tif"
        )


def _write_tiff(path: Path, planes: npt.NDArray[Any], description: str) -> None:
    """Write one page, deflate-compressed; without a date, so that equal planes give equal bytes."""
    import tifffile

    plane = planes[0] if len(planes) == 1 else planes
    tifffile.imwrite(
        path,
        plane,
        photometric="minisblack",
        planarconfig=None if len(planes) == 1 else "separate",
        compression="zlib",
        predictor=planes.dtype.kind in "ui",
        description=description or None,
        metadata=None,
        software=False,
    )
