"""NIfTI volumes through nibabel, slice by slice, in the values that the header's scale makes of the stored numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simmat.errors import DataError
from simmat.io.images import ImageFile
from simmat_plugin_volume.libraries import library

_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}


class NiftiStack:
    """The slices of a volume along an axis of its voxel array; a slice along z is (Y, X), y (Z, X), x (Z, Y)."""

    def __init__(self, path: Path, axis: str) -> None:
        self.path, self._axis = path, "xyz".index(axis)
        self._image = library("nibabel", "nifti").load(path, keep_file_open=True)  # so that a .nii.gz goes on
        shape, kind = tuple(map(int, self._image.shape)), self._image.get_data_dtype()
        if len(shape) != 3 or 0 in shape or kind.kind not in "iuf":
            raise DataError(
                f"{path}: must be a volume (X, Y, Z) of real numbers, got shape {shape} of {kind}; save each volume of "
                "a time series, and each plane, in a file of its own"
            )
        columns, rows = (number for number in range(3) if number != self._axis)
        self._count, self.size_hw = shape[self._axis], (shape[rows], shape[columns])
        header = self._image.header
        known = header["sform_code"] or header["qform_code"]
        self.affine = np.asarray(self._image.affine, np.float64) if known else None
        zooms, unit = header.get_zooms(), _MM[header.get_xyzt_units()[0]]
        spacing = tuple(abs(float(zooms[number])) * unit for number in (self._axis, rows, columns))
        self.spacing_mm = (spacing[0], spacing[1], spacing[2]) if all(spacing) else None

    def __len__(self) -> int:
        """Return the number of slices."""
        return self._count

    def read(self, index: int, labels: bool) -> ImageFile:
        """Read one slice."""
        place: list[slice | int] = [slice(None)] * 3
        place[self._axis] = index
        plane = np.asarray(self._image.dataobj[tuple(place)]).T  # (H, W)
        return ImageFile(np.ascontiguousarray(plane)[None], "nifti", "gray", self.path)
