"""DICOM series through pydicom: a folder with a file for each slice, in values by the rescale slope and intercept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError
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
_UNEQUAL = 0.02
"""Part of the distance of slices by which one that differs is refused."""
_ROUNDED_MM = 0.02
"""What positions that are rounded to 0.01 mm add to it."""


class DicomStack(Volume):
    """The slices of a series; along z they are its files, in the order of their positions."""

    def __init__(self, path: Path, axis: str) -> None:
        self._pydicom = library("pydicom", "dicom")
        self._pixels = library("pydicom.pixels", "dicom")
        files = sorted(file for file in path.iterdir() if file.name.lower().endswith(".dcm"))
        heads = [self._pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS) for file in files]
        if any(not head.get("ImagePositionPatient") or not head.get("ImageOrientationPatient") for head in heads):
            raise DataError(f"{path}: the order of its slices is not known, without Image Position (Patient) in each")
        turns = [np.round(np.asarray(head.ImageOrientationPatient, np.float64), 4) + 0.0 for head in heads]
        _check_equal(files, "series", [str(head.get("SeriesInstanceUID")) for head in heads])
        _check_equal(files, "size", [f"{head.get('Columns')}x{head.get('Rows')}" for head in heads])
        _check_equal(files, "orientation", [str(turn.tolist()) for turn in turns])
        if any(
            int(head.get("NumberOfFrames") or 1) > 1
            or head.get("SamplesPerPixel") != 1
            or not str(head.get("PhotometricInterpretation")).startswith("MONOCHROME")
            for head in heads
        ):
            raise DataError(f"{path}: every file must hold one slice of one plane of grey; save it as NIfTI")
        decoder = self._pixels.get_decoder(syntax := heads[0].file_meta.TransferSyntaxUID)
        if not decoder.is_available:
            needed = "; or ".join(decoder.missing_dependencies)
            raise ConfigError(f"{files[0]}: to decode its {syntax.name}, install one of: {needed}")
        super().__init__(path, axis, (int(heads[0].Columns), int(heads[0].Rows), len(files)))
        along, down = np.reshape(np.asarray(heads[0].ImageOrientationPatient, np.float64), (2, 3))
        places = np.array([np.asarray(head.ImagePositionPatient, np.float64) for head in heads])  # (Z, 3)
        heights = places @ np.cross(along, down)
        order = np.argsort(heights, kind="stable")
        self._files, places, heights = [files[number] for number in order.tolist()], places[order], heights[order]
        distance = self._distance(heights)
        if distance and (pixel := heads[0].get("PixelSpacing")):
            row, column = float(pixel[0]), float(pixel[1])
            self.set_spacing((column, row, distance))
            step = (places[-1] - places[0]) / (len(files) - 1)  # oblique where the gantry was tilted
            towards = np.column_stack([along * column, down * row, step, places[0]])  # (3, 4), LPS
            self.affine = np.vstack([np.diag([-1.0, -1.0, 1.0]) @ towards, [0, 0, 0, 1]])

    def plane(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Read (Y, X), scaled; padding is NaN, in a mask a number."""
        found = self._pydicom.dcmread(self._files[index])
        stored = found.pixel_array
        values: npt.NDArray[Any] = self._pixels.apply_modality_lut(stored, found)
        if labels or (padding := found.get("PixelPaddingValue")) is None:
            return values
        limit = found.get("PixelPaddingRangeLimit", padding)
        low, high = sorted(np.array([padding, limit]).astype(stored.dtype).tolist())  # as some write it unsigned
        return np.where((stored >= low) & (stored <= high), np.nan, values)

    def _distance(self, heights: npt.NDArray[np.float64]) -> float:
        """Return the distance of slices in mm; 0 for one slice."""
        steps = np.diff(heights)
        middle = float(np.median(steps)) if len(steps) else 0.0
        wrong = ~np.isclose(steps, middle, rtol=_UNEQUAL, atol=min(_ROUNDED_MM, middle / 10)) | (steps <= 0)
        for number in np.flatnonzero(wrong).tolist():
            first, second = self._files[number].name, self._files[number + 1].name
            raise DataError(
                f"{self.path}: {first} and {second} are {steps[number]:.4g} mm apart, other slices {middle:.4g} mm; a "
                "stack has equal spacing: add the missing slices, or take out those of another series"
            )
        return middle


def _check_equal(files: list[Path], what: str, values: list[str]) -> None:
    for file, value in zip(files, values, strict=True):
        if value != values[0]:
            raise DataError(
                f"{file.parent}: all files must be of one {what}, but {files[0].name} has {values[0]} and {file.name} "
                f"{value}; put them into two folders"
            )
