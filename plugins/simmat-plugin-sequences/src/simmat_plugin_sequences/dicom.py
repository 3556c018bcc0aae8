"""DICOM series through pydicom: a folder with a file for each slice, in values by the rescale slope and intercept."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError
from simmat.io.limits import LIMIT_VARIABLE, decoded_limit, decoding_errors
from simmat.io.paths import require_file
from simmat_plugin_sequences.volume import Volume, library

_TAGS = [
    "SeriesInstanceUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
]
_DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax of a data set that is compressed as a whole."""
_CHUNK = 2**20
"""Bytes that are inflated at once."""
_UNEQUAL = 0.02
"""Part of the distance of slices by which one that differs is refused."""
_ROUNDED_MM = 0.02
"""What positions that are rounded to 0.01 mm add to it."""


class DicomStack(Volume):
    """The slices of a series; along z they are its files, in the order of their positions."""

    def __init__(self, path: Path, axis: str) -> None:
        """Read the heads of the files, and check that they are one stack."""
        self._pydicom = library("pydicom", "dicom")
        self._pixels = library("pydicom.pixels", "dicom")
        files = sorted(
            file for file in path.iterdir() if file.name.lower().endswith(".dcm")
        )
        heads = [
            self._read(file, stop_before_pixels=True, specific_tags=_TAGS)
            for file in files
        ]
        _check_heads(path, files, heads)
        self._check_decoder(files[0], heads[0])
        super().__init__(
            path, axis, (int(heads[0].Columns), int(heads[0].Rows), len(files))
        )
        along, down = _numbers(heads[0], "ImageOrientationPatient", 6).reshape(2, 3)
        # (Z, 3)
        places = np.array([_numbers(head, "ImagePositionPatient", 3) for head in heads])
        heights = places @ np.cross(along, down)
        order = np.argsort(heights, kind="stable")
        places = places[order]
        self._files = [files[number] for number in order.tolist()]
        distance = _distance(path, self._files, heights[order])
        if distance and heads[0].get("PixelSpacing"):
            row, column = _numbers(heads[0], "PixelSpacing", 2).tolist()
            self.set_spacing((column, row, distance))
            # oblique where the gantry was tilted
            step = (places[-1] - places[0]) / (len(files) - 1)
            # (3, 4), LPS
            towards = np.column_stack([along * column, down * row, step, places[0]])
            self.set_affine(
                np.vstack([np.diag([-1.0, -1.0, 1.0]) @ towards, [0, 0, 0, 1]])
            )

    def plane(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Read (Y, X), scaled; padding is NaN, in a mask a number."""
        file = self._files[index]
        found = self._read(file)
        with decoding_errors(file, "dicom"):
            return self._values(file, found, labels)

    def _values(self, file: Path, found: Any, labels: bool) -> npt.NDArray[Any]:
        """Return the pixels of a file that was read."""
        stored = found.pixel_array
        if stored.shape != (self._shape[1], self._shape[0]):
            raise DataError(
                f"{file}: damaged: its pixels are {stored.shape}, not {self._shape[1]} rows of {self._shape[0]}"
            )
        values: npt.NDArray[Any] = self._pixels.apply_modality_lut(stored, found)
        padding = found.get("PixelPaddingValue")
        if labels or padding is None:
            return values
        limit = found.get("PixelPaddingRangeLimit", padding)
        # as some write it unsigned
        low, high = sorted(np.array([padding, limit]).astype(stored.dtype).tolist())
        return np.where((stored >= low) & (stored <= high), np.nan, values)

    def _read(self, file: Path, **options: Any) -> Any:
        """Return pydicom's data set of a file.

        Raises:
            DataError: it is damaged, a pipe, or takes more memory than a decoded image may.
        """
        require_file(file, "DICOM file")
        with decoding_errors(file, "dicom"):
            self._check_length(file)
            return self._pydicom.dcmread(file, **options)

    def _check_length(self, file: Path) -> None:
        """Raise DataError for a file that is too large for one slice; pydicom inflates a deflated one as a whole."""
        limit = decoded_limit()
        reader = library("pydicom.filereader", "dicom")
        with file.open("rb") as stream:
            length = file.stat().st_size
            reader.read_preamble(stream, False)
            meta = reader._read_file_meta_info(stream)  # as `dcmread` reads it
            if meta.get("TransferSyntaxUID") == _DEFLATED:
                # it is in memory twice, and its pixels once more
                limit = limit // 4
                length = _inflated_length(stream, limit)
        if length > limit:
            raise DataError(
                f"{file}: is larger than {limit / 2**30:.3g} GiB, too large for one slice; the file may be damaged. If "
                f"it is right, raise the limit: simmat --max-image-gib N … (or {LIMIT_VARIABLE})"
            )

    def _check_decoder(self, file: Path, head: Any) -> None:
        """Raise ConfigError if what decodes the pixels is not installed."""
        with decoding_errors(file, "dicom"):
            syntax = head.file_meta.TransferSyntaxUID
            decoder = self._pixels.get_decoder(syntax)
        if not decoder.is_available:
            needed = "; or ".join(decoder.missing_dependencies)
            raise ConfigError(
                f"{file}: to decode its {syntax.name}, install one of: {needed}"
            )


def _inflated_length(stream: BinaryIO, limit: int) -> int:
    """Return how many bytes the rest of a stream inflates to, or a number above `limit`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    length = 0
    while length <= limit and not inflater.eof:
        pending = inflater.unconsumed_tail or stream.read(_CHUNK)
        if not pending:
            break
        length += len(inflater.decompress(pending, _CHUNK))
    return length


def _check_heads(path: Path, files: list[Path], heads: list[Any]) -> None:
    """Raise DataError unless files hold the slices of one series, each one plane of grey."""
    series = []
    turns = []
    for file, head in zip(files, heads, strict=True):
        with decoding_errors(file, "dicom"):
            _check_head(file, head)
            series.append(str(head.get("SeriesInstanceUID")))
            turn = np.round(_numbers(head, "ImageOrientationPatient", 6), 4) + 0.0
            turns.append(str(turn.tolist()))
    _check_equal(files, "series", series)
    _check_equal(files, "size", [f"{head.Columns}x{head.Rows}" for head in heads])
    _check_equal(files, "orientation", turns)


def _check_head(file: Path, head: Any) -> None:
    """Raise DataError unless a file holds one slice of grey at a known place; other errors if it is damaged."""
    if not head.get("ImagePositionPatient") or not head.get("ImageOrientationPatient"):
        raise DataError(
            f"{file}: lacks Image Position or Image Orientation (Patient), so the order of its slices is not known"
        )
    _numbers(head, "ImagePositionPatient", 3)
    if head.get("PixelSpacing"):
        _numbers(head, "PixelSpacing", 2)
    for name in ("Rows", "Columns"):
        if type(head.get(name)) is not int or head.get(name) < 1:
            raise ValueError(f"{name} is {head.get(name)}")
    is_one_slice = int(head.get("NumberOfFrames") or 1) <= 1
    is_grey = str(head.get("PhotometricInterpretation")).startswith("MONOCHROME")
    if not is_one_slice or head.get("SamplesPerPixel") != 1 or not is_grey:
        raise DataError(
            f"{file}: every file must hold one slice of one plane of grey; save it as NIfTI"
        )


def _numbers(head: Any, name: str, count: int) -> npt.NDArray[np.float64]:
    """Return the numbers of an element; ValueError if they are not `count` finite ones."""
    found = np.array(head.get(name), np.float64)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ValueError(f"{name} is {head.get(name)}, not {count} numbers")
    return found


def _check_equal(files: list[Path], what: str, values: list[str]) -> None:
    for file, value in zip(files, values, strict=True):
        if value != values[0]:
            raise DataError(
                f"{file.parent}: all files must be of one {what}, but {files[0].name} has {values[0]} and {file.name} "
                f"{value}; put them into two folders"
            )


def _distance(path: Path, files: list[Path], heights: npt.NDArray[np.float64]) -> float:
    """Return the distance of slices in mm; 0 for one slice. DataError if it is not the same for all."""
    if len(files) < 2:
        return 0.0
    steps = np.diff(heights)
    middle = float(np.median(steps))
    is_equal = np.isclose(
        steps, middle, rtol=_UNEQUAL, atol=min(_ROUNDED_MM, middle / 10)
    )
    for number, step in enumerate(steps.tolist()):
        if not is_equal[number] or step <= 0:
            raise DataError(
                f"{path}: {files[number].name} and {files[number + 1].name} are {step:.4g} mm apart, other slices "
                f"{middle:.4g} mm; a stack needs equal spacing: add the missing slices, or remove slices of "
                "another series"
            )
    return middle
