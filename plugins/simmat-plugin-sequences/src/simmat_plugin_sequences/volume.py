"""The slices of a volume along any axis of its voxels, from its planes along z."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError
from simmat.io.limits import check_size, decoded_limit
from simmat.types import ImageFile

_AXES = {"x": (0, 2, 1), "y": (1, 2, 0), "z": (2, 1, 0)}
"""Axis along which slices lie -> its number, and those of their rows and columns."""
_BLOCK = 8
"""Cuts along x or y, at most, that are read at once, since each needs all planes."""
_BLOCK_SHARE = 8
"""The cuts that are read at once take at most an eighth of what one decoded image may take, or are one."""
_FLOAT64 = 8


def library(module: str, extra: str) -> Any:
    """Return a module; ConfigError if it is not installed says which extra of this package brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{extra} files need {module}: pip install simmat-plugin-sequences[{extra}] ({error})"
        ) from error


class Volume(ABC):
    """Voxels (X, Y, Z): a slice along z is (Y, X), along y (Z, X), along x (Z, Y); as `simmat.io.frames.Stack`."""

    spacing_mm: tuple[float, float, float] | None = None
    affine: npt.NDArray[np.float64] | None = None

    def __init__(self, path: Path, axis: str, shape_xyz: Sequence[int]) -> None:
        """Take the axis "x", "y" or "z" along which the slices lie."""
        self.path = path
        self._shape = shape_xyz
        self._along, self._rows, self._columns = _AXES[axis]
        self.size_hw = shape_xyz[self._rows], shape_xyz[self._columns]
        bytes_of_cut = _FLOAT64 * self.size_hw[0] * self.size_hw[1]
        fitting = decoded_limit() // _BLOCK_SHARE // max(bytes_of_cut, 1)
        self._block_size = min(max(fitting, 1), _BLOCK)
        self._cut_block: tuple[int, bool] | None = None
        self._cuts: npt.NDArray[Any] = np.empty(0)

    def __len__(self) -> int:
        """Return the number of slices."""
        return self._shape[self._along]

    def read(self, index: int, labels: bool) -> ImageFile:
        """Read one slice."""
        if self._along == 2:
            found = self.plane(index, labels)
        else:
            found = self._cut(index, labels)
        return ImageFile(np.ascontiguousarray(found)[None], "volume", "gray", self.path)

    def _cut(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Return a slice along y (Z, X) or x (Z, Y); the last block of them is kept, never the volume."""
        block = index // self._block_size
        if self._cut_block != (block, labels):
            self._cut_block = None
            self._cuts = np.empty(0)  # frees the last block
            self._cuts = self._read_block(block * self._block_size, labels)
            self._cut_block = block, labels
        place = index % self._block_size
        if self._along == 1:
            return self._cuts[:, place]
        return self._cuts[:, :, place]

    def _read_block(self, first: int, labels: bool) -> npt.NDArray[Any]:
        """Read cuts from one on: (Z, block, X) along y, (Z, Y, block) along x."""
        width, height, depth = self._shape
        check_size(self.path, height, width)
        part = slice(first, first + self._block_size)
        where = (part, slice(None)) if self._along == 1 else (slice(None), part)
        plane = self.plane(0, labels)[where]
        check_size(self.path, *self.size_hw, itemsize=plane.itemsize)
        cuts = np.empty((depth, *plane.shape), plane.dtype)
        cuts[0] = plane
        for z in range(1, depth):
            plane = self.plane(z, labels)[where]
            kind = np.result_type(cuts, plane)  # slices may be scaled each its own way
            cuts = cuts.astype(kind, copy=False)
            cuts[z] = plane
        return cuts

    def set_affine(self, affine: npt.NDArray[np.float64]) -> None:
        """Set the (4, 4) affine; DataError if it is not one of a volume in space, as a file of masks needs it."""
        with np.errstate(over="ignore"):
            stored = affine.astype(np.float32)  # as NIfTI stores it
        if not np.isfinite(stored).all() or np.linalg.matrix_rank(stored) < 4:
            raise DataError(
                f"{self.path}: the position of its voxels in space is not known, because its affine is "
                f"{affine[:3].tolist()}; "
                "correct it, or save the volume without one (NIfTI: sform_code = qform_code = 0)"
            )
        self.affine = affine

    def set_spacing(self, mm_xyz: Sequence[float]) -> None:
        """Set the spacing of the voxels along x, y and z."""
        self.spacing_mm = mm_xyz[self._along], mm_xyz[self._rows], mm_xyz[self._columns]

    @abstractmethod
    def plane(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Read the plane (Y, X) at a place of z; NaN where nothing was measured."""
