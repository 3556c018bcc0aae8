"""NIfTI volumes through nibabel, slice by slice, in the values that the header's scale makes of the stored numbers."""

from __future__ import annotations

import gzip
import math
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
_MAX_OFFSET = 2**62


class NiftiStack(Volume):
    """The slices of a file along an axis of its voxel array."""

    def __init__(self, path: Path, axis: str) -> None:
        """Open a file, and read its head."""
        header = _header(path)
        shape = tuple(map(int, header.get_data_shape()))
        kind = header.get_data_dtype()
        has_more_axes = bool(set(shape[3:]) - {1})
        if len(shape) < 3 or has_more_axes or 0 in shape or kind.kind not in "iuf":
            raise DataError(
                f"{path}: must be a volume (X, Y, Z) of real numbers, got shape {shape} of {kind}; save each volume of "
                "a time series, and each plane, in a file of its own"
            )
        end = int(header["vox_offset"]) + math.prod(shape) * kind.itemsize
        if path.suffix.lower() != ".gz" and end > path.stat().st_size:
            raise DataError(
                f"{path}: damaged or cut short: its header states voxels up to byte {end}, it has "
                f"{path.stat().st_size} bytes; copy or save it again"
            )
        super().__init__(path, axis, shape[:3])
        self._later = (0,) * (len(shape) - 3)
        # kept open, so that a .nii.gz goes on
        proxy = library("nibabel.arrayproxy", "nifti").ArrayProxy
        self._voxels = proxy(str(path), header, keep_file_open=True)
        if header["sform_code"] or header["qform_code"]:
            self.set_affine(np.asarray(header.get_best_affine(), np.float64))
        mm = _MM[header.get_xyzt_units()[0]]
        spacing = [abs(float(zoom)) * mm for zoom in header.get_zooms()[:3]]
        if all(spacing):
            self.set_spacing(spacing)

    def plane(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Read (Y, X), scaled."""
        where = (slice(None), slice(None), index, *self._later)
        return np.asarray(self._voxels[where]).T


def _header(path: Path) -> Any:
    """Return nibabel's header; its extensions, which nibabel would read with it, may be larger than the memory."""
    nibabel = library("nibabel", "nifti")
    kinds = (nibabel.Nifti1Header, nibabel.Nifti2Header)
    with library("nibabel.openers", "nifti").ImageOpener(str(path)) as stream:
        start = stream.read(max(kind.sizeof_hdr for kind in kinds))
    for kind in kinds:
        if kind.may_contain_header(start):
            content = start[: kind.sizeof_hdr]
            header = kind(content, check=False)
            if header["magic"].item() == kind.single_magic:
                _check_offset(path, header)
                return kind(content)
    raise DataError(
        f"{path}: damaged or cut short: it does not start as a NIfTI file of one part"
    )


def _check_offset(path: Path, header: Any) -> None:
    """Raise DataError if the voxels begin inside of the header; nibabel would take it for voxels."""
    offset = float(header["vox_offset"])
    if not (offset.is_integer() and header.single_vox_offset <= offset < _MAX_OFFSET):
        raise DataError(
            f"{path}: damaged: its header states that voxels begin at byte {offset:g} (vox_offset), which must be a "
            f"whole number from {header.single_vox_offset}; save it again"
        )


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
