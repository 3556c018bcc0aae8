"""Radiometric JPEGs: read the raw image that a thermal camera stores besides the picture, in kelvin if possible.

FLIR's records are in APP1 segments (layout as documented by ExifTool, Image::ExifTool::FLIR), with the calibration
constants of the camera. DJI's R-JPEG has 16-bit raw values in APP3 or APP4 segments, without documented constants.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError, what_is_wrong
from simmat.io.limits import check_size
from simmat.io.reading import read_bytes
from simmat.types import FloatArray

RawArray = npt.NDArray[np.uint16]

MAX_BYTES = 2**28
# markers, ITU T.81 table B.1
_APP1, _RAW_SEGMENTS, _FRAMES, _SCAN = 0xE1, (0xE3, 0xE4), (0xC0, 0xC1, 0xC2), 0xDA
# the picture may have so many times the raw image's sides: twice in M30T
_PICTURE_SCALES = (1, 2, 4)
_SEGMENT_HEAD = 8  # "FLIR", 0, 1, index of the segment, index of the last one
# bytes of the header of the records, and of a directory entry
_FFF_HEAD, _ENTRY = 64, 32
_RAW, _CAMERA = 1, 32  # types of records
_RAW_HEAD, _CAMERA_BYTES = 32, 784
_JPEG_LS_FRAME = 0xF7  # SOF55, ITU T.87
FFF_SIGNATURE = b"FFF\0"
_ZERO_C = 273.15


@dataclass(frozen=True, slots=True)
class FlirParameters:
    """The parameters of a FLIR file that convert raw values to kelvin.

    Attributes:
        emissivity: emissivity of the object, 0..1.
        distance_m: distance of the object.
        reflected_k: apparent temperature of the mirrored surroundings.
        air_k: air temperature.
        window_k: temperature of a window in front of the lens.
        window: transmission of the window, 0..1.
        humidity: relative humidity, 0..1.
        r1: constants of FLIR's form of Planck's law, raw = r1 / (r2 (exp(b / T) - f)) - o.
        b: see `r1`, kelvin.
        f: see `r1`.
        o: see `r1`.
        r2: see `r1`.
        alpha: constants of the transmission of air, see `_air`.
        beta: see `alpha`.
        x: see `alpha`.
    """

    emissivity: float
    distance_m: float
    reflected_k: float
    air_k: float
    window_k: float
    window: float
    humidity: float
    r1: float
    b: float
    f: float
    o: float
    r2: float
    alpha: tuple[float, float]
    beta: tuple[float, float]
    x: float

    def kelvin(self, raw: npt.NDArray[np.generic]) -> FloatArray:
        """Convert raw values (H, W) to the object temperature in kelvin, (H, W) float32; NaN where it is undefined.

        The radiation of object, mirrored surroundings, air and window is separated as in Minkina and Dudzik, Infrared
        Thermography (2009), section 2.3, with half of the air on each side of the window.
        """
        half = self._air()
        passed = half * self.window * half  # object -> air -> window -> air -> camera
        added = passed * (1 - self.emissivity) * self._raw(self.reflected_k)
        added += ((1 - half) * self.window * half + (1 - half)) * self._raw(self.air_k)
        added += (1 - self.window) * half * self._raw(self.window_k)
        with np.errstate(all="ignore"):
            alone = (raw.astype(np.float64) - added) / (passed * self.emissivity)
            kelvin = self.b / np.log(self.r1 / (self.r2 * (alone + self.o)) + self.f)
        return np.where(np.isfinite(kelvin), kelvin, np.nan).astype(np.float32)

    def _raw(self, kelvin: float) -> float:
        return self.r1 / (self.r2 * (math.exp(self.b / kelvin) - self.f)) - self.o

    def _air(self) -> float:
        """Return the transmission of half of the air; Minkina and Dudzik, eq. 2.24."""
        celsius = self.air_k - _ZERO_C
        water = self.humidity * math.exp(
            1.5587 + 0.06939 * celsius - 2.7816e-4 * celsius**2 + 6.8455e-7 * celsius**3
        )
        path, vapour = math.sqrt(self.distance_m / 2), math.sqrt(water)
        first, second = (
            -path * (a + b * vapour) for a, b in zip(self.alpha, self.beta, strict=True)
        )
        return self.x * math.exp(first) + (1 - self.x) * math.exp(second)


class Radiometric(NamedTuple):
    """The measurement in a radiometric JPEG.

    Attributes:
        values: (H, W) float32 kelvin by the settings of the camera (emissivity, distance, air), or uint16 counts if the
            file has no constants.
        is_kelvin: True if the values are kelvin.
        preview_hw: (height, width) of the picture in pixels.
    """

    values: npt.NDArray[np.generic]
    is_kelvin: bool
    preview_hw: tuple[int, int]


def read_radiometric(
    path: Path, settings: Mapping[str, Any] | None = None
) -> Radiometric | None:
    """Read the raw image of a radiometric JPEG; None for an ordinary JPEG.

    Args:
        path: the file.
        settings: fields of `FlirParameters` that replace those of the camera.

    Raises:
        DataError: the file does not exist, or its raw image is damaged.
    """
    content = read_bytes(path, "JPEG", limit=MAX_BYTES)
    segments = list(jpeg_segments(content))
    frame = next(
        (payload for kind, payload in segments if kind in _FRAMES and len(payload) > 4),
        b"\0" * 5,
    )
    size: tuple[int, int] = struct.unpack(">HH", frame[1:5])
    records = flir_content(segments)
    if records:
        try:
            return Radiometric(*read_flir(path, records, settings or {}), size)
        except (
            IndexError,
            OverflowError,
            ValueError,
            ZeroDivisionError,
            struct.error,
        ) as error:
            raise DataError(
                f"{path}: its FLIR records are damaged ({what_is_wrong(error)})"
            ) from error
    for marker in _RAW_SEGMENTS:
        raw = b"".join(payload for kind, payload in segments if kind == marker)
        for times in _PICTURE_SCALES:
            height, width = size[0] // times, size[1] // times
            if (
                raw
                and len(raw) == 2 * height * width
                and size == (height * times, width * times)
            ):
                values = np.frombuffer(raw, "<u2").reshape(height, width)
                return Radiometric(values.astype(np.uint16), False, size)
    return None  # segments of another program, or none


def jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and payload of the segments before the scan of a JPEG; nothing if it is not a JPEG."""
    place = 2
    while content[:2] == b"\xff\xd8" and len(head := content[place : place + 4]) == 4:
        length = int.from_bytes(head[2:], "big")
        if head[0] != 0xFF or head[1] == _SCAN or length < 2:
            return
        yield head[1], content[place + 4 : place + 2 + length]
        place += 2 + length


def flir_content(segments: Sequence[tuple[int, bytes]]) -> bytes:
    """Return FLIR's records of a JPEG, joined from its segments; empty if there are none."""
    parts = []
    for kind, payload in segments:
        is_flir = kind == _APP1 and payload.startswith(b"FLIR\0")
        if is_flir and len(payload) >= _SEGMENT_HEAD:
            parts.append((payload[6], payload[_SEGMENT_HEAD:]))
    parts.sort(key=lambda numbered: numbered[0])
    return b"".join(part for _, part in parts)


def read_flir(
    path: Path, records: bytes, settings: Mapping[str, Any]
) -> tuple[npt.NDArray[np.generic], bool]:
    """Read FLIR's records: return kelvin if they have the calibration constants, else counts; and which of both.

    `settings` replace those of the camera.
    """
    found = flir_records(path, records)
    raw = raw_image(path, found)
    calibration = flir_parameters(found.get(_CAMERA, b""))
    if calibration is None:
        return raw, False
    return replace(calibration, **settings).kelvin(raw), True


def flir_records(path: Path, records: bytes) -> dict[int, bytes]:
    """Return type -> first record; the directory can have either byte order."""
    found: dict[int, bytes] = {}
    for kind, start, length in _directory(path, records, 0):
        if start + length > len(records):
            raise DataError(
                f"{path}: damaged or truncated, a FLIR record ends beyond the file"
            )
        found.setdefault(kind, records[start : start + length])
    return found


def flir_records_end(path: Path, content: Any, start: int) -> int:
    """Return where the records that begin at a place of a file end.

    Raises:
        DataError: they are damaged, or end beyond the file.
    """
    end = start + _FFF_HEAD
    for _, place, length in _directory(path, content, start):
        end = max(end, start + place + length)
    if end > len(content):
        raise DataError(
            f"{path}: damaged or truncated, a FLIR record ends beyond the file"
        )
    return end


def _directory(path: Path, content: Any, begin: int) -> list[tuple[int, int, int]]:
    """Return type, start and length of the records that begin at a place of a file; blank entries are left out."""
    if (
        content[begin : begin + 4] not in (FFF_SIGNATURE, b"AFF\0")
        or len(content) < begin + _FFF_HEAD
    ):
        raise DataError(
            f"{path}: its FLIR records are damaged: they have a wrong signature"
        )
    for order in "><":
        version, offset, count = struct.unpack_from(f"{order}III", content, begin + 20)
        if 100 <= version < 200 and begin + offset + count * _ENTRY <= len(content):
            break
    else:
        raise DataError(
            f"{path}: its FLIR records are damaged, their directory is larger than their {len(content)} bytes"
        )
    found = []
    for entry in range(count):
        kind, start, length = struct.unpack_from(
            f"{order}H10xII", content, begin + offset + entry * _ENTRY
        )
        if length:
            found.append((kind, start, length))
    return found


def _order_of(record: bytes) -> str:
    """Return the byte order of a record, whose first value is 2."""
    return "<" if record[:2] == b"\2\0" else ">"


def raw_size(path: Path, records: Mapping[int, bytes]) -> tuple[int, int]:
    """Return the (height, width) of the raw image in some records."""
    if _RAW not in records:
        raise DataError(
            f"{path}: its FLIR records contain no raw image; to use the picture: --modality gray, rgb or raster"
        )
    record = records[_RAW]
    width, height = struct.unpack_from(f"{_order_of(record)}HH", record, 2)
    return height, width


def raw_image(path: Path, records: Mapping[int, bytes]) -> RawArray:
    """Return the (H, W) raw values, stored as such, as a 16-bit PNG with swapped bytes, or as JPEG-LS."""
    height, width = raw_size(path, records)
    record = records[_RAW]
    check_size(path, height, width)
    body = record[_RAW_HEAD:]
    if body.startswith(b"\x89PNG"):
        return _png_image(path, body, (height, width))
    frames = [part for kind, part in jpeg_segments(body) if kind == _JPEG_LS_FRAME]
    if frames:
        return _jpeg_ls_image(path, body, frames[0], (height, width))
    if len(body) < 2 * width * height:
        raise DataError(
            f"{path}: damaged or truncated, its raw image of {width}x{height} has {len(body)} bytes"
        )
    return (
        np.frombuffer(body, f"{_order_of(record)}u2", width * height)
        .reshape(height, width)
        .astype(np.uint16)
    )


def _jpeg_ls_image(
    path: Path, body: bytes, head: bytes, size_hw: tuple[int, int]
) -> RawArray:
    """Decode JPEG-LS, whose numbers are not swapped; `head` is the segment that says how large it is."""
    import imagecodecs

    bits, height, width = struct.unpack_from(">BHH", head)
    if (height, width) != size_hw or not 8 < bits <= 16:
        raise DataError(
            f"{path}: damaged, its raw image of {size_hw[1]}x{size_hw[0]} holds one of {width}x{height} and {bits} bits"
        )
    try:
        found = np.asarray(imagecodecs.jpegls_decode(body))
    except Exception as error:  # a class of its own
        raise DataError(
            f"{path}: the raw image in its FLIR records is damaged ({what_is_wrong(error)})"
        ) from error
    if found.shape != size_hw or found.dtype != np.uint16:
        raise DataError(
            f"{path}: damaged, its raw image is {found.shape} of {found.dtype}"
        )
    return found


def _png_image(path: Path, body: bytes, size_hw: tuple[int, int]) -> RawArray:
    from PIL.PngImagePlugin import PngImageFile

    try:
        with PngImageFile(io.BytesIO(body)) as image:
            if (image.height, image.width) != size_hw or image.mode not in (
                "I;16",
                "I;16B",
                "I",
            ):
                raise ValueError(
                    f"it is {image.width}x{image.height} of mode {image.mode}"
                )
            return np.asarray(image).astype(np.uint16).byteswap()
    except Exception as error:  # Pillow raises various classes for damaged files
        raise DataError(
            f"{path}: the raw image in its FLIR records is damaged ({what_is_wrong(error)})"
        ) from error


def flir_parameters(record: bytes) -> FlirParameters | None:
    """Return the constants of a camera record; None if they are missing or impossible."""
    if len(record) < _CAMERA_BYTES:
        return None
    order = _order_of(record)
    emissivity, distance, reflected, air, window_k, window, _, humidity = (
        struct.unpack_from(f"{order}8f", record, 32)
    )
    r1, b, f = struct.unpack_from(f"{order}3f", record, 88)
    alpha1, alpha2, beta1, beta2, x = struct.unpack_from(f"{order}5f", record, 112)
    o, r2 = struct.unpack_from(f"{order}if", record, 776)
    numbers = (
        emissivity,
        distance,
        reflected,
        air,
        window_k,
        window,
        humidity,
        r1,
        b,
        f,
        r2,
        alpha1,
        alpha2,
        beta1,
        x,
    )
    positive = (emissivity, reflected, air, window_k, window, r1, b, r2)
    if (
        not all(map(math.isfinite, (*numbers, beta2)))
        or min(positive) <= 0
        or min(distance, humidity) < 0
    ):
        return None
    return FlirParameters(
        emissivity=emissivity,
        distance_m=distance,
        reflected_k=reflected,
        air_k=air,
        window_k=window_k,
        window=window,
        # some cameras write percent
        humidity=humidity / 100 if humidity > 2 else humidity,
        r1=r1,
        b=b,
        f=f,
        o=o,
        r2=r2,
        alpha=(alpha1, alpha2),
        beta=(beta1, beta2),
        x=x,
    )
