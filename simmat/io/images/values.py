"""The numbers stored in an image file: how many bits they have, and what the full scale is."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.files import parse_json

Colour = Literal["gray", "rgb", "planes"]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What one file holds.

    Attributes:
        planes: (P, H, W) in the file's own dtype (bool, integers to 32 bits, floats), native byte order.
        format: "png", "jpeg", "tiff" or "npy".
        colour: "gray" (one plane), "rgb" (the file says red, green, blue; a 4th plane is alpha),
            "planes" (no meaning stated).
        path: where it was read.
        description: TIFF ImageDescription or PNG text "Description"; empty where there is none.
        nodata: the value that the file itself says means "no measurement" (GDAL_NODATA tag), or None.
        scales: of each plane, factor and offset from stored numbers to values that the file states (GDAL_METADATA
            tag), (1, 0) where it states none; not applied. Empty where its format has no such tag.
        alpha: True where the file says that its last plane is alpha, how opaque a pixel is; it measures nothing.
        stated: (P, H, W) False where the user says so (`--nodata`); None where nothing is said.
    """

    planes: npt.NDArray[Any]
    format: str
    colour: Colour
    path: Path
    description: str = ""
    nodata: float | None = None
    scales: tuple[tuple[float, float], ...] = ()
    alpha: bool = False
    stated: npt.NDArray[np.bool_] | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """Factor and offset of the first plane of which the file states some; (1, 0) where it states none."""
        return next((stated for stated in self.scales if stated != (1.0, 0.0)), (1.0, 0.0))

    @property
    def valid(self) -> npt.NDArray[np.bool_] | None:
        """(P, H, W) False where the file's own nodata value or the user's takes a pixel out; None where none is."""
        if self.nodata is None:
            return self.stated
        with np.errstate(over="ignore"):  # a value that float32 cannot hold is in no plane of it
            own = np.asarray(self.planes != self.nodata)
        return own if self.stated is None else own & self.stated

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """(P, H, W) True where a number is finite and nobody calls it missing; for channels computed from several."""
        finite = np.isfinite(self.planes)
        return np.asarray(finite) if self.valid is None else finite & self.valid


def checked(found: ImageFile, *, bits: int = 32) -> ImageFile:
    """Refuse types that are not supported; put the bytes in native order.

    Args:
        found: what a reader gave.
        bits: most bits of an integer.

    Raises:
        DataError: the type is not supported, or there are no pixels.
    """
    planes, path = found.planes, found.path
    kind, has = planes.dtype.kind, planes.dtype.itemsize * 8
    if kind not in "buif" or (kind in "iu" and has > bits) or has > 64:
        raise DataError(
            f"{path}: values of type {planes.dtype} are not supported; store them as float32 or integers of at most "
            f"{bits} bits"
        )
    if planes.ndim != 3 or 0 in planes.shape:
        raise DataError(f"{path}: holds no pixels, its shape is {planes.shape}")
    if planes.dtype.byteorder not in "=|":
        found = replace(found, planes=planes.astype(planes.dtype.newbyteorder("=")))
    return found


def require_unscaled(image: ImageFile, modality: str) -> None:
    """Raise DataError where a file says that its values are others than the numbers stored in it."""
    factor, offset = image.scale
    if (factor, offset) != (1.0, 0.0):
        raise DataError(
            f"{image.path}: states that its values are its numbers times {factor:g} plus {offset:g}, which modality "
            f"{modality!r} does not apply; store the values themselves (gdal_translate -unscale -ot Float32)"
        )


def require_no_alpha(image: ImageFile, modality: str) -> None:
    """Raise DataError where a file says that its last plane is alpha; for sensors that count planes."""
    if image.alpha:
        raise DataError(
            f"{image.path}: modality {modality!r} needs measurements, but the last of {len(image.planes)} planes is "
            "alpha (how opaque a pixel is); save the file without alpha, or if that plane was measured after all, save "
            "the planes as npy or as TIFF without alpha (tifffile: photometric='minisblack')"
        )


def require_one_plane(image: ImageFile, modality: str) -> None:
    """Raise DataError where a file holds several planes; equal ones are named, for they are grey in disguise."""
    planes = image.planes
    if len(planes) == 1:
        return
    if len(planes) == 3 and (planes == planes[:1]).all():
        advice = "all three are equal, so take the first: --modality raster --channels 0"
    elif image.colour == "rgb" and len(planes) == 3:
        advice = "it is a colour picture: use --modality rgb, or --modality raster --channels 0 for its first plane"
    elif image.alpha and len(planes) == 2:
        advice = "the second is alpha: save the file without transparency, or use --modality raster --channels 0"
    else:
        advice = "use --modality raster, and --channels to pick planes"
    raise DataError(
        f"{image.path}: modality {modality!r} needs one plane, got {len(planes)} of {planes.dtype}; {advice}"
    )


_LARGEST_16_BITS = 65535.0
_SHIFTED_12_BITS = 65520.0  # 4095 in the upper 12 of 16 bits


def largest_count(image: ImageFile) -> float:
    """Return the largest number that a file's pixels can have.

    A TIFF's ImageDescription may state the bits of the counts as json `{"bits": 12}`, also of counts stored as floats;
    else it is that of the file's type, infinite for floats.

    Raises:
        DataError: the stated bits are no number of bits of the file's type.
    """
    dtype = image.planes.dtype
    if (bits := stated_bits(image)) is not None:
        return float(2**bits - 1)
    if dtype.kind == "f":
        return float("inf")
    return 1.0 if dtype.kind == "b" else float(np.iinfo(dtype).max)


def full_scale(largest: float) -> float:
    """Return the count from which on a pixel is full.

    Args:
        largest: see `largest_count`. In 16 bits it is never reached by a 12-bit count shifted up, which cameras write
            too, so that 65520 is full as well.
    """
    return _SHIFTED_12_BITS if largest == _LARGEST_16_BITS else largest


def describe_bits(bits: int) -> str:
    """Return the text that `largest_count` reads back, for `write_image(description=)`."""
    return json.dumps({"bits": bits})


def stated_bits(image: ImageFile) -> int | None:
    """Return the bits of its counts that a TIFF's ImageDescription states; None where it states none.

    Raises:
        DataError: they are no number of bits of the file's type.
    """
    try:
        values = parse_json(image.description)
    except ValueError:
        return None
    if not isinstance(values, dict) or "bits" not in values:
        return None
    bits, most = values["bits"], image.planes.dtype.itemsize * 8
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= most:
        raise DataError(f"{image.path}: its description states {bits!r} bits; 1 to {most} are possible")
    return bits
