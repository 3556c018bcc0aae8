"""The numbers stored in an image file, and what they mean: valid or nodata, unit, bits."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.files import parse_json
from simmat.types import BoolArray, SensorImage

Colour = Literal["gray", "rgb", "planes"]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The content of one file.

    Attributes:
        planes: (P, H, W) in the file's own dtype (bool, integers to 32 bits, floats), native byte order.
        format: "png", "jpeg", "tiff", "npy", "bmp", or of a frame "volume" or "video".
        colour: "gray" (one plane), "rgb" (the file says red, green, blue; a 4th plane is alpha), or "planes" (the
            file does not say).
        path: the file.
        description: TIFF ImageDescription or PNG text "Description"; "" if there is none.
        nodata: stored numbers that mean "no measurement": the file's own (GDAL_NODATA tag), and the user's.
        scales: for each plane, factor and offset from stored numbers to values (GDAL_METADATA tag), (1, 0) where the
            file states none; not applied. Empty where the format has no such tag.
        alpha: True if the file says that its last plane is alpha (opacity), which is not a measurement.
    """

    planes: npt.NDArray[Any]
    format: str
    colour: Colour
    path: Path
    description: str = ""
    nodata: tuple[float, ...] = ()
    scales: tuple[tuple[float, float], ...] = ()
    alpha: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Factor and offset of the first plane for which the file states them; (1, 0) where it states none."""
        for stated in self.scales:
            if stated != (1.0, 0.0):
                return stated
        return 1.0, 0.0

    @property
    def valid(self) -> BoolArray | None:
        """(P, H, W) False at `nodata`; None if there is none."""
        return not_nodata(self.planes, *self.nodata)

    @property
    def measured(self) -> BoolArray:
        """(P, H, W) True where a number is finite and valid; for channels computed from several planes."""
        finite = np.asarray(np.isfinite(self.planes))
        valid = self.valid
        if valid is None:
            return finite
        return finite & valid

    def from_description(self, key: str) -> Any:
        """Return a value of the json object in the description, such as `{"unit": "cK"}`; None if it has none."""
        try:
            values = parse_json(self.description)
        except ValueError:
            return None
        if isinstance(values, dict):
            return values.get(key)
        return None


def not_nodata(stored: npt.NDArray[Any], *nodata: float | None) -> BoolArray | None:
    """Return where stored numbers do not mean "no measurement"; None if no number means that."""
    valid: BoolArray | None = None
    for number in nodata:
        if number is None:
            continue
        with np.errstate(over="ignore"):  # a value beyond float32 equals no number of a plane
            differs = np.asarray(stored != number)
        valid = differs if valid is None else valid & differs
    return valid


def checked(found: ImageFile, *, bits: int = 32) -> ImageFile:
    """Refuse images without pixels, other types, and integers of more than `bits`; bring bytes into native order."""
    planes = found.planes
    path = found.path
    kind = planes.dtype.kind
    stored_bits = planes.dtype.itemsize * 8
    if kind not in "buif" or (kind in "iu" and stored_bits > bits) or stored_bits > 64:
        raise DataError(
            f"{path}: values of type {planes.dtype} are not supported; store them as float32 or integers of at most "
            f"{bits} bits"
        )
    if planes.ndim != 3 or 0 in planes.shape:
        raise DataError(f"{path}: holds no pixels, its shape is {planes.shape}")
    return replace(found, planes=planes.astype(planes.dtype.newbyteorder("="), copy=False))


def require_unscaled(image: ImageFile, modality: str) -> None:
    """Raise DataError if a file states a scale or offset from its stored numbers to its values."""
    factor, offset = image.scale
    if (factor, offset) != (1.0, 0.0):
        raise DataError(
            f"{image.path}: states that its values are its numbers times {factor:g} plus {offset:g}, which modality "
            f"{modality!r} does not apply; store the values themselves (gdal_translate -unscale -ot Float32)"
        )


def require_no_alpha(image: ImageFile, modality: str) -> None:
    """Raise DataError if a file says that its last plane is alpha; for sensors that count planes."""
    if image.alpha:
        raise DataError(
            f"{image.path}: modality {modality!r} needs measurements, but the last of {len(image.planes)} planes is "
            "alpha (opacity); save the file without alpha, or if that plane is a measurement, save the planes as npy "
            "or as TIFF without alpha (tifffile: photometric='minisblack')"
        )


def require_one_plane(image: ImageFile, modality: str) -> None:
    """Raise DataError if a file holds several planes; it says which modality reads them."""
    count = len(image.planes)
    if count > 1:
        advice = "--modality rgb for a colour picture, or " if image.colour == "rgb" else ""
        raise DataError(
            f"{image.path}: modality {modality!r} needs one plane, got {count} of {image.planes.dtype}; give the "
            f"sensor's own file or one plane of it, or train with {advice}--modality raster with --channels 0"
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of stored numbers: the physical value is `stored / per + offset`.

    Attributes:
        name: as files state it ("cK", "mm").
        per: how many stored numbers make one physical unit.
        offset: in the physical unit.
    """

    name: str
    per: float = 1.0
    offset: float = 0.0

    def physical(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Return stored numbers in the physical unit; float64 keeps all digits of 16 bits."""
        return np.asarray(stored.astype(np.float64) / self.per + self.offset)

    def describe(self, quantity: str) -> str:
        """Return the description that states this unit, for `write_image(description=)`; see `stated_unit`."""
        return json.dumps({"quantity": quantity, "unit": self.name})


def stated_unit(
    image: ImageFile, known: Mapping[str, Unit], *, option: Unit | None = None, no_unit: Collection[str] = ()
) -> Unit | None:
    """Return the unit that a file's description states as json, `{"unit": "cK"}`, or the user by an option.

    Args:
        known: name -> unit.
        option: the unit that the user states.
        no_unit: names by which a file says that its numbers have none.

    Returns:
        None if neither states one.

    Raises:
        DataError: the file states an unknown unit, or another one than the user.
    """
    name = image.from_description("unit")
    if name is None or name in no_unit:
        return option
    unit = known.get(name) if isinstance(name, str) else None
    if unit is None:
        raise DataError(f"{image.path}: its description states unit {name!r}; known: {', '.join([*known, *no_unit])}")
    if option is not None and unit != option:
        raise DataError(
            f"{image.path}: says its unit is {unit.name}, but the option unit says {option.name}; leave the option out "
            "(--modality-option, card.toml), or correct the file"
        )
    return unit


def require_measured(
    image: SensorImage, values: npt.NDArray[np.floating], advice: str, *, measured: BoolArray | None = None
) -> SensorImage:
    """Return an image of one channel; DataError if most numbers lie outside of its range, as in another unit.

    "Most" means more than nine of ten different numbers: a fill value counts once, however often it occurs. An image
    without a measurement is returned unchanged.

    Args:
        image: (1, H, W), whose channel has a valid range.
        values: numbers of the image before any became invalid.
        advice: what to try, without a full stop.
        measured: (1, H, W) False where the file or the user calls a number missing.
    """
    channel = image.channels[0]
    taken = np.isfinite(values)
    if measured is not None:
        taken = taken & measured
    inside = values[taken & image.valid]
    outside = values[taken & ~image.valid]
    if channel.valid_range is None or inside.size >= outside.size:
        return image  # most images; finding the different numbers takes time
    if inside.size and 9 * np.unique(inside).size >= np.unique(outside).size:
        return image
    low, high = channel.valid_range
    many = "most of its numbers lie outside of" if inside.size else "no pixel lies within"
    raise DataError(
        f"{image.origin}: {many} {low:g} to {high:g} {channel.unit}, got {values[taken].min():.6g} to "
        f"{values[taken].max():.6g} {channel.unit}; is its unit another one? {advice}"
    )


def stated_bits(image: ImageFile) -> int | None:
    """Return the bits of its counts that a file's description states as json, `{"bits": 12}`; None if it does not.

    Raises:
        DataError: the file's type cannot hold that many bits.
    """
    bits = image.from_description("bits")
    if bits is None:
        return None
    most = image.planes.dtype.itemsize * 8
    if type(bits) is not int or not 1 <= bits <= most:
        raise DataError(f"{image.path}: its description states {bits!r} bits; 1 to {most} are possible")
    return bits


def describe_bits(bits: int) -> str:
    """Return the description that `stated_bits` reads, for `write_image(description=)`."""
    return json.dumps({"bits": bits})


def largest_count(image: ImageFile) -> float:
    """Return the largest number that a file's pixels can have: of its stated bits, otherwise of its type.

    It is infinite for floats.

    Raises:
        DataError: as `stated_bits`.
    """
    bits = stated_bits(image)
    if bits is not None:
        return float(2**bits - 1)
    dtype = image.planes.dtype
    if dtype.kind == "f":
        return float("inf")
    if dtype.kind == "b":
        return 1.0
    return float(np.iinfo(dtype).max)


def full_scale(largest: float) -> float:
    """Return the smallest count at which a pixel is saturated, given the `largest_count`.

    In 16 bits that is 65520: cameras also write 12-bit counts in the upper 12 bits, which never reach 65535.
    """
    if largest == 65535:
        return 65520.0
    return largest
