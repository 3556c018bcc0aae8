"""Read depth from OpenEXR files, with the library OpenEXR of the extra `exr`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simmat.errors import DataError, SimMATError
from simmat.io.images import ImageFile, check_size
from simmat.io.reading import require_file


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
            channels = {name: np.array(channel.pixels) for name, channel in opened.channels().items()}
    except SimMATError:
        raise
    except Exception as error:  # the library raises various classes for damaged files
        raise DataError(f"{path}: damaged or truncated, it cannot be read as EXR ({error})") from error
    if not whole:
        raise DataError(f"{path}: an EXR with only a window of its image; store the whole image")
    planes = _pick(path, channels)[None]
    return ImageFile(planes, "exr", "gray", path, nodata=() if nodata is None else (nodata,))


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
        raise DataError(f"{path}: the depth channel is not clear among {sorted(channels)}; store one, named Z")
    values = channels[picked[0]]
    if values.ndim != 2 or values.dtype.kind != "f":
        raise DataError(f"{path}: channel {picked[0]} is {values.dtype} of shape {values.shape}, not one float plane")
    return values
