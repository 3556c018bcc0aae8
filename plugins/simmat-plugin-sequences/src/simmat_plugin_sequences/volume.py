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
from simmat.types import ImageFile

_AXES = {"x": (0, 2, 1), "y": (1, 2, 0), "z": (2, 1, 0)}
"""Axis along which slices lie -> its number, and those of their rows and columns."""
_BLOCK = 8
"""Cuts along x or y that are read at once, since each needs all planes."""


def library(module: str, extra: str) -> Any:
    """Return a module; ConfigError if it is not installed says which extra of this package brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{extra} files need {module}: pip install simmat-plugin-sequences[{extra}] ({error})"
        ) from error


class Volume(ABC):
    """Voxels (X, Y, Z): a slice along z is (Y, X), along y (Z, X), along x (Z, Y); as `simmat.io.images.Stack`."""

    spacing_mm: tuple[float, float, float] | None = None
    affine: npt.NDArray[np.float64] | None = None

    def __init__(self, path: Path, axis: str, shape_xyz: Sequence[int]) -> None:
        """Take the axis "x", "y" or "z" along which the slices lie."""
        self.path = path
        self._shape = shape_xyz
        self._along, self._rows, self._columns = _AXES[axis]
        self.size_hw = shape_xyz[self._rows], shape_xyz[self._columns]
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
        block = index // _BLOCK
        if self._cut_block != (block, labels):
            part = slice(block * _BLOCK, (block + 1) * _BLOCK)
            where = (part, slice(None)) if self._along == 1 else (slice(None), part)
            # a view would keep a plane
            planes = [
                self.plane(z, labels)[where].copy() for z in range(self._shape[2])
            ]
            self._cuts = np.stack(planes)  # (Z, block, X) or (Z, Y, block)
            self._cut_block = block, labels
        of_block: npt.NDArray[Any] = np.take(
            self._cuts, index % _BLOCK, axis=2 - self._along
        )
        return of_block

    def set_spacing(self, mm_xyz: Sequence[float]) -> None:
        """Set the spacing of the voxels along x, y and z."""
        self.spacing_mm = mm_xyz[self._along], mm_xyz[self._rows], mm_xyz[self._columns]

    @abstractmethod
    def plane(self, index: int, labels: bool) -> npt.NDArray[Any]:
        """Read the plane (Y, X) at a place of z; NaN where nothing was measured."""
