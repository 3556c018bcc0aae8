"""NIfTI volumes through nibabel, slice by slice, in the values that the header's scale makes of the stored numbers."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.files import atomic_write_bytes
from simmat.io.frames import Stack
from simmat_plugin_sequences.volume import Volume, library

_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}


class NiftiStack(Volume):
    """The slices of a file along an axis of its voxel array."""

    def __init__(self, path: Path, axis: str) -> None:
        """Open a file, and read its head."""
        # so that a .nii.gz goes on
        self._image = library("nibabel", "nifti").load(path, keep_file_open=True)
        shape = tuple(map(int, self._image.shape))
        kind = self._image.get_data_dtype()
        has_more_axes = bool(set(shape[3:]) - {1})
        if len(shape) < 3 or has_more_axes or 0 in shape or kind.kind not in "iuf":
            raise DataError(
                f"{path}: must be a volume (X, Y, Z) of real numbers, got shape {shape} of {kind}; save each volume of "
                "a time series, and each plane, in a file of its own"
            )
        super().__init__(path, axis, shape[:3])
        header = self._image.header
        if header["sform_code"] or header["qform_code"]:
            self.affine = np.asarray(self._image.affine, np.float64)
        mm = _MM[header.get_xyzt_units()[0]]
        spacing = [abs(float(zoom)) * mm for zoom in header.get_zooms()[:3]]
        if all(spacing):
            self.set_spacing(spacing)

    def plane(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Read (Y, X), scaled."""
        later = (0,) * (len(self._image.shape) - 3)
        return np.asarray(
            self._image.dataobj[(slice(None), slice(None), index, *later)]
        ).T


def write_labels(
    file: Path, planes: Iterable[npt.NDArray[np.uint16]], stack: Stack, axis: str
) -> None:
    """Write labels as a .nii.gz on the grid of a volume.

    Args:
        file: the .nii.gz.
        planes: (H, W) of every slice along the axis.
        stack: the volume, whose affine and spacing apply.
        axis: "x", "y" or "z".
    """
    along = "xyz".index(axis)
    volume = np.stack([plane.T for plane in planes], axis=along)  # (X, Y, Z)
    affine = stack.affine
    if affine is None:
        between, row, column = stack.spacing_mm or (1.0, 1.0, 1.0)
        sides = [column, row]
        sides.insert(along, between)
        affine = np.diag([*sides, 1.0])
    nibabel = library("nibabel", "nifti")
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    atomic_write_bytes(file, gzip.compress(image.to_bytes(), mtime=0))
