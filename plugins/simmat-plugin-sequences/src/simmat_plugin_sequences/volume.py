"""The slices of a volume along any axis of its voxels, from its planes along z."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError
from simmat.io.images import ImageFile


def library(module: str, extra: str) -> Any:
    """Return a module; ConfigError where it is not installed says which extra of this package brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{extra} files need {module}: pip install simmat-plugin-sequences[{extra}] ({error})"
        ) from error


_BLOCK = 8
"""Cuts along x or y that are read at once, since each needs all planes."""


class Volume(ABC):
    """Voxels (X, Y, Z): a slice along z is (Y, X), along y (Z, X), along x (Z, Y); as `simmat.io.images.Stack`."""

    spacing_mm: tuple[float, float, float] | None = None
    affine: npt.NDArray[np.float64] | None = None

    def __init__(self, path: Path, axis: str, shape_xyz: Sequence[int]) -> None:
        self.path, self._shape = path, shape_xyz
        along = "xyz".index(axis)
        columns, rows = (number for number in range(3) if number != along)
        self._axes = along, rows, columns
        self.size_hw = shape_xyz[rows], shape_xyz[columns]
        self._cuts: tuple[tuple[int, bool] | None, npt.NDArray[Any]] = None, np.empty(0)

    def __len__(self) -> int:
        """Return the number of slices."""
        return self._shape[self._axes[0]]

    def read(self, index: int, labels: bool) -> ImageFile:
        """Read one slice."""
        found = self.plane(index, labels) if self._axes[0] == 2 else self._cut(index, labels)
        return ImageFile(np.ascontiguousarray(found)[None], "volume", "gray", self.path)

    def _cut(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Return a slice along y (Z, X) or x (Z, Y); the last block of them is kept, never the volume."""
        block = index // _BLOCK, labels
        if self._cuts[0] != block:
            part = slice(block[0] * _BLOCK, (block[0] + 1) * _BLOCK)
            where = (part, slice(None)) if self._axes[0] == 1 else (slice(None), part)
            planes = [self.plane(z, labels)[where].copy() for z in range(self._shape[2])]  # a view would keep a plane
            self._cuts = block, np.stack(planes)  # (Z, block, X) or (Z, Y, block)
        of_block: npt.NDArray[Any] = np.take(self._cuts[1], index % _BLOCK, axis=2 - self._axes[0])
        return of_block

    def set_spacing(self, mm_xyz: Sequence[float]) -> None:
        """Set the spacing of the voxels along x, y and z."""
        along, rows, columns = self._axes
        self.spacing_mm = mm_xyz[along], mm_xyz[rows], mm_xyz[columns]

    @abstractmethod
    def plane(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Read the plane (Y, X) at a place of z; NaN where nothing was measured."""
