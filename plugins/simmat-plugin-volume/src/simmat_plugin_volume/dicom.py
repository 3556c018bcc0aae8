"""DICOM series through pydicom: a folder with a file for each slice, in values by the rescale slope and intercept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.images import ImageFile
from simmat_plugin_volume.libraries import library

_TAGS = [
    "SeriesInstanceUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
]
_UNEQUAL = 0.02
"""Least part of the distance of slices by which one that differs is refused; positions are rounded to 0.01 mm."""


class DicomStack:
    """The slices of a series; along z they are its files, in the order of their positions, along y and x cuts of them.

    A cut along y or x reads all files.
    """

    def __init__(self, path: Path, axis: str) -> None:
        self.path, self._axis = path, axis
        self._read = library("pydicom", "dicom").dcmread
        files = sorted(file for file in path.iterdir() if file.name.lower().endswith(".dcm"))
        heads = [self._read(file, stop_before_pixels=True, specific_tags=_TAGS) for file in files]
        names = [file.name for file in files]
        self._check_equal(names, "one series", [str(head.get("SeriesInstanceUID")) for head in heads])
        self._check_equal(names, "one size", [f"{head.get('Columns')}x{head.get('Rows')}" for head in heads])
        self._check_equal(names, "one orientation", [str(head.get("ImageOrientationPatient")) for head in heads])
        if any(int(head.get("NumberOfFrames") or 1) > 1 or head.get("SamplesPerPixel") != 1 for head in heads):
            raise DataError(f"{path}: every file must hold one slice of one plane; save it as NIfTI")
        if any(not head.get("ImagePositionPatient") or not head.get("ImageOrientationPatient") for head in heads):
            raise DataError(f"{path}: the order of its slices is not known, without Image Position (Patient) in each")
        along, down = np.reshape([float(number) for number in heads[0].ImageOrientationPatient], (2, 3))
        normal = np.cross(along, down)
        places = np.array([[float(number) for number in head.ImagePositionPatient] for head in heads]) @ normal
        order = np.argsort(places, kind="stable")
        self._files = [files[number] for number in order.tolist()]
        distance = self._distance(places[order])
        depth, height, width = len(files), int(heads[0].Rows), int(heads[0].Columns)
        self._count = {"z": depth, "y": height, "x": width}[axis]
        self.size_hw = {"z": (height, width), "y": (depth, width), "x": (depth, height)}[axis]
        self.spacing_mm = self.affine = None
        if (pixel := heads[0].get("PixelSpacing")) and distance is not None:
            row, column = float(pixel[0]), float(pixel[1])
            spacings = {"z": (distance, row, column), "y": (row, distance, column), "x": (column, distance, row)}
            self.spacing_mm = spacings[axis]
            first = [float(number) for number in heads[order[0]].ImagePositionPatient]
            towards = np.column_stack([along * column, down * row, normal * distance, first])  # (3, 4), LPS
            self.affine = np.vstack([np.diag([-1.0, -1.0, 1.0]) @ towards, [0, 0, 0, 1]])

    def __len__(self) -> int:
        """Return the number of slices."""
        return self._count

    def read(self, index: int, labels: bool) -> ImageFile:
        """Read one slice."""
        if self._axis == "z":
            plane, missing = self._plane(self._files[index])
        else:
            cut = np.s_[index, :] if self._axis == "y" else np.s_[:, index]
            read = [self._plane(file) for file in self._files]
            plane, missing = np.stack([one[cut] for one, _ in read]), read[0][1]
        return ImageFile(plane[None], "dicom", "gray", self.path, nodata=() if labels else missing)

    def _plane(self, file: Path) -> tuple[npt.NDArray[Any], tuple[float, ...]]:
        """Return the (H, W) values of a file, and the one that pads the image."""
        found = self._read(file)
        slope, intercept = float(found.get("RescaleSlope", 1)), float(found.get("RescaleIntercept", 0))
        plane = found.pixel_array
        if (slope, intercept) != (1.0, 0.0):
            whole = slope.is_integer() and intercept.is_integer()
            plane = plane.astype(np.int32 if whole else np.float32) * (int(slope) if whole else slope)
            plane = plane + (int(intercept) if whole else intercept)
        padding = found.get("PixelPaddingValue")
        return plane, () if padding is None else (slope * float(padding) + intercept,)

    def _check_equal(self, names: list[str], what: str, values: list[str]) -> None:
        for name, value in zip(names, values, strict=True):
            if value != values[0]:
                raise DataError(
                    f"{self.path}: all files must be of {what}, but {names[0]} has {values[0]} and {name} {value}; put "
                    "them into two folders"
                )

    def _distance(self, places: npt.NDArray[np.float64]) -> float | None:
        """Return the distance of slices in mm; None for one slice."""
        steps = np.diff(places)
        if not len(steps):
            return None
        middle = float(np.median(steps))
        for number in np.flatnonzero(np.abs(steps - middle) > _UNEQUAL * middle).tolist() if middle else [0]:
            first, second = self._files[number].name, self._files[number + 1].name
            raise DataError(
                f"{self.path}: {first} and {second} are {steps[number]:.4g} mm apart, other slices {middle:.4g} mm; a "
                "stack has equal spacing: add the missing slices, or take out those of another series"
            )
        return middle
