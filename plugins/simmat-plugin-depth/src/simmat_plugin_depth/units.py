"""The units of depth files, and EXR files of depth."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from simmat.errors import DataError, SimMATError, what_is_wrong
from simmat.io.images import Unit, stated_unit
from simmat.io.limits import check_size
from simmat.io.paths import require_file
from simmat.types import ImageFile

DepthUnit = Literal["m", "cm", "mm", "tum", "kitti"]

METRE = Unit("m")
CENTIMETRE = Unit("cm", 100.0)
MILLIMETRE = Unit("mm", 1000.0)
TUM = Unit("1/5000 m", 5000.0)
KITTI = Unit("1/256 m", 256.0)
KNOWN = {unit.name: unit for unit in (METRE, CENTIMETRE, MILLIMETRE)}


UNITS: dict[DepthUnit, Unit] = {
    "m": METRE,
    "cm": CENTIMETRE,
    "mm": MILLIMETRE,
    "tum": TUM,
    "kitti": KITTI,
}
"""Values of the option `unit`."""
UNIT_WORDS = (
    "Unit of the files; tum is 1/5000 m (TUM RGB-D data sets), kitti 1/256 m (KITTI depth maps). The default is the "
    "unit in the file, else mm for 16-bit integers and m for floats."
)


def unit_of(image: ImageFile, option: DepthUnit | None = None) -> Unit:
    """Return the unit of a file: given by the user or the file, else metres for floats and mm for 16-bit integers.

    Args:
        image: the file.
        option: the unit given by the user.

    Raises:
        DataError: the unit in the file is unknown or contradicts the option, or its type has no conventional unit.
    """
    stated = stated_unit(image, KNOWN, option=UNITS[option] if option else None)
    if stated is not None:
        return stated
    dtype = image.planes.dtype
    if dtype.kind == "f":
        return METRE
    if dtype in (np.uint16, np.int16):
        return MILLIMETRE
    raise DataError(
        f"{image.path}: {dtype} values have no conventional unit (16-bit integers are millimetres, floats metres); "
        f"if you know it, give it with --modality-option unit={', '.join(UNITS)}; for a depth picture without a "
        "unit, use --modality gray"
    )


def read_exr(path: Path, nodata: float | None = None) -> ImageFile:
    """Read the depth channel of an EXR file: named depth, else Z or V outside a vector, else Y if it is alone.

    Returns:
        (1, H, W) float16 or float32.

    Raises:
        DataError: OpenEXR is not installed, the file is missing or damaged, or the depth channel is not clear.
    """
    require_file(path, "image")
    try:
        import OpenEXR
    except ImportError:
        raise DataError(
            f"{path}: to read EXR: pip install 'simmat-plugin-depth[exr]', or store depth as TIFF or npy"
        ) from None
    try:
        with OpenEXR.File(str(path), header_only=True) as opened:
            low, high = (np.array(corner) for corner in opened.header()["dataWindow"])
            count = len(opened.header()["channels"])
            whole = np.array_equal([low, high], opened.header()["displayWindow"])
        width, height = (int(length) for length in high - low + 1)
        check_size(path, height, width, count)
        with OpenEXR.File(str(path), separate_channels=True) as opened:
            channels = {
                name: np.array(channel.pixels)
                for name, channel in opened.channels().items()
            }
    except SimMATError:
        raise
    except Exception as error:  # the library raises various classes for damaged files
        raise DataError(
            f"{path}: damaged or truncated, it cannot be read as EXR ({what_is_wrong(error)})"
        ) from error
    if not whole:
        raise DataError(
            f"{path}: an EXR with only a window of its image; store the whole image"
        )
    planes = _pick(path, channels)[None]
    return ImageFile(
        planes, "exr", "gray", path, nodata=() if nodata is None else (nodata,)
    )


def _pick(path: Path, channels: dict[str, np.ndarray]) -> np.ndarray:
    layers: dict[str, set[str]] = {}  # a layer's path -> the last parts of its channels
    for name in channels:
        layer, _, last = name.lower().rpartition(".")
        layers.setdefault(layer, set()).add(last)
    named = []
    for name in channels:
        layer, _, last = name.lower().rpartition(".")
        vector = layers[layer] & {"x", "u"}  # of a normal, a position, a texture
        if last == "depth" or (last in ("z", "v") and not vector):
            named.append(name)
    said = [name for name in named if "depth" in name.lower().split(".")]
    picked = said or named or (list(channels) if set(channels) == {"Y"} else [])
    if len(picked) != 1:
        raise DataError(
            f"{path}: the depth channel is not clear among {sorted(channels)}; store one, named Z"
        )
    values = channels[picked[0]]
    if values.ndim != 2 or values.dtype.kind != "f":
        raise DataError(
            f"{path}: channel {picked[0]} is {values.dtype} of shape {values.shape}, not one float plane"
        )
    return values
