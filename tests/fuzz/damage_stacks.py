"""Damage to what DICOM and NIfTI files say of themselves."""

from __future__ import annotations

import gzip
import io
import random
from typing import Any

import numpy as np

from fuzz.damage import EDGES, mutate_bytes

# DICOM: an element is (its value representation, texts or numbers that it may have)
_COUNTS = (0, 1, 2, 3, 7, 8, 12, 16, 32, 64, 255, 4096, 32_767, 65_535)
_REAL_TEXTS = ("0", "-1", "1", "nan", "inf", "-inf", "1e400", "1e308", "1e-300", "abc", "", "9" * 400,
               "1e-9")  # fmt: skip
_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
             "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57",
             "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.100",
             "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.8.1", "1.2.3", "", "x")  # fmt: skip
_FIELDS: dict[str, tuple[str, tuple[Any, ...]]] = {
    **dict.fromkeys(
        (
            "Rows",
            "Columns",
            "SamplesPerPixel",
            "BitsAllocated",
            "BitsStored",
            "HighBit",
            "PixelRepresentation",
            "PlanarConfiguration",
            "PixelPaddingValue",
            "PixelPaddingRangeLimit",
        ),
        ("US", (*_COUNTS, [6, 5], "")),
    ),
    "NumberOfFrames": ("IS", ("0", "1", "2", "-1", str(2**31), "x", "1e3", "", "9" * 5000)),
    **dict.fromkeys(
        ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"),
        ("DS", _REAL_TEXTS),
    ),
    "PhotometricInterpretation": (
        "CS",
        ("MONOCHROME1", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "", "MONOCHROME", "x" * 5000),
    ),
    "SeriesInstanceUID": ("UI", ("1.2.4", "", "x")),
    "SpecificCharacterSet": ("CS", ("ISO_IR 192", "x", "\\\\", "ISO 2022 IR 87")),
    "RescaleType": ("LO", ("HU", "x" * 70_000)),
}  # fmt: skip
_LENGTHS = {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}
_DEEP = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
"""The start of a sequence without a length, and of an item in it."""


def mutate_dicom(content: bytes, rng: random.Random) -> bytes:
    """Return a DICOM file with 1 to 3 elements changed, other pixels or another syntax, or with changed bytes."""
    if rng.random() < 0.35:
        return mutate_bytes(content, rng)
    from pydicom import config, dcmread

    modes = config.settings.reading_validation_mode, config.settings.writing_validation_mode  # fmt: skip
    config.settings.reading_validation_mode = config.IGNORE
    config.settings.writing_validation_mode = config.IGNORE
    try:
        head = dcmread(io.BytesIO(content))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            _change_element(head, rng)
        stream = io.BytesIO()
        head.save_as(stream, enforce_file_format=False)
        return stream.getvalue()
    # what pydicom does not write
    except Exception:
        return mutate_bytes(content, rng)
    finally:
        config.settings.reading_validation_mode = modes[0]
        config.settings.writing_validation_mode = modes[1]


def _change_element(head: Any, rng: random.Random) -> None:
    kind = rng.randrange(10)
    if kind < 6:
        name = rng.choice(list(_FIELDS))
        representation, values = _FIELDS[name]
        value = rng.choice(values)
        if name in _LENGTHS and rng.random() < 0.9:
            value = _some_changed(head, name, rng)
        head.add_new(name, representation, value)
    elif kind == 6:
        del head[rng.choice(list(head.keys()))]
    elif kind == 7:
        head.file_meta.TransferSyntaxUID = rng.choice(_SYNTAXES)
    elif kind == 8:
        head.PixelData = mutate_bytes(bytes(head.get("PixelData") or b""), rng)
    else:
        head.add_new(0x00091010, "UN", _DEEP * rng.choice((1, 400, 3000)))


def _some_changed(head: Any, name: str, rng: random.Random) -> list[str]:
    """Return numbers of an element, some of them strange, perhaps of another count."""
    values = [str(value) for value in head.get(name) or ["1"] * _LENGTHS[name]]
    for _ in range(rng.choice((1, 1, len(values)))):
        values[rng.randrange(len(values))] = rng.choice(_REAL_TEXTS)
    if rng.random() < 0.2:
        values = values[: rng.randrange(len(values))]
    return values


_REALS = (float("nan"), float("inf"), 0.0, -1.0, 1e-30, 1e-9, 1e30, 5.0, 0.5)


def mutate_nifti(content: bytes, rng: random.Random) -> bytes:
    """Return a NIfTI file, plain or packed, with 1 to 3 fields of its head changed, or with changed bytes."""
    is_packed = content[:2] == b"\x1f\x8b"
    if rng.random() < 0.25:
        return mutate_bytes(content, rng)
    data = gzip.decompress(content) if is_packed else content
    kind = rng.randrange(8)
    if kind == 0:
        data = mutate_bytes(data, rng)
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = _change_field(data, rng)
    return gzip.compress(data, 1, mtime=0) if is_packed else data


_NIFTI_FIELDS = (
    "dim",
    "pixdim",
    "datatype",
    "vox_offset",
    "scl_slope",
    "sform_code",
    "srow_x",
)
"""Those that decide most."""
_NIFTI_INTEGERS = (*EDGES, -1, 4, 64, 512, 768, 1024, 1280, 1536, 1792, 2048)
"""Edges, and the numbers of types of voxels."""
_TEXT_FIELDS = ("descrip", "aux_file", "data_type", "db_name", "intent_name")


def _change_field(data: bytes, rng: random.Random) -> bytes:
    """Return a volume with one number of its head changed."""
    from nibabel import Nifti1Header, Nifti2Header

    order = "little" if data[0] else "big"
    is_first = int.from_bytes(data[:4], order) == Nifti1Header.sizeof_hdr
    layout = (Nifti1Header if is_first else Nifti2Header).template_dtype
    layout = layout.newbyteorder(order)
    head = np.frombuffer(data[: layout.itemsize], layout)[0].copy()
    names = [name for name in layout.names if name not in _TEXT_FIELDS]
    name = rng.choice((*names, *_NIFTI_FIELDS * 3))
    field = layout.fields[name][0]
    kind = field.base.kind
    value: Any = rng.choice(_REALS)
    if kind == "S":
        value = rng.choice((b"", b"ni1", b"n+1", b"n+2", b"x"))
    elif kind in "iu":
        width = field.base.itemsize
        bits = rng.choice(_NIFTI_INTEGERS) % (1 << 8 * width)
        value = np.array(bits, f"u{width}").view(f"{kind}{width}")
    if field.shape:
        head[name][rng.randrange(field.shape[0])] = value
    else:
        head[name] = value
    return bytes(head.tobytes() + data[layout.itemsize :])
