"""Bring the image of one sensor onto the pixel grid of another, by a matrix between their pixels.

In all coordinates here, the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from simmat.documents import FromLists, StrictModel, parse
from simmat.errors import ConfigError, DataError
from simmat.io.reading import parse_json, read_bytes
from simmat.types import BoolArray, FloatArray, SensorImage, Window

EACH_FILE = "alignment.json"
"""Matrices of single images, in the folder of the source's files."""
_SINGULAR = 1e-9
"""Least determinant of a matrix, relative to that of a matrix without shear and perspective."""
_ROWS_AT_ONCE = 256

Matrix = npt.NDArray[np.float64]
Row = tuple[float, float, float]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


def _regular(rows: tuple[Row, Row, Row]) -> tuple[Row, Row, Row]:
    """Refuse a matrix that maps the plane to a line or a point, or the first pixel to infinity."""
    matrix = np.asarray(rows, np.float64)
    size = np.linalg.norm(matrix[:2, :2])
    if matrix[2, 2] == 0:
        raise ValueError("must have a last number other than 0")
    matrix, size = matrix / matrix[2, 2], size / abs(matrix[2, 2])
    if not abs(np.linalg.det(matrix)) > _SINGULAR * max(size, _SINGULAR) ** 2:
        raise ValueError("must be a matrix that can be inverted")
    return rows


MatrixField = FromLists[Annotated[tuple[Row, Row, Row], AfterValidator(_regular)],]
"""A field of a card or file: three rows of three finite numbers, which can be inverted."""


class Alignment(StrictModel):
    """Where a source lies on the pixel grid of another, its reference.

    Attributes:
        reference: name of the source that has the grid.
        matrix: 3 x 3, from homogeneous xy pixels of the reference to those of this source; the centre of the top-left
            pixel is (0, 0). None if each image has its own, in a file `alignment.json` beside the source's files.
        reference_size: (width, height) of the images of the reference that the matrix is for; None if any.
        size: (width, height) of the images of this source that the matrix is for; None if any.
        version: changes with the matrices of single images.
    """

    reference: str = Field(min_length=1)
    matrix: MatrixField | None = None
    reference_size: FromLists[Size] | None = None
    size: FromLists[Size] | None = None
    version: str = ""

    def matrix_of(self, file: Path) -> Matrix:
        """Return the (3, 3) matrix of an image; DataError if each has its own, and the one of this image is missing."""
        if self.matrix is not None:
            return np.asarray(self.matrix, np.float64)
        beside = file.parent / EACH_FILE
        hint = "estimate where its images lie by `simmat align FOLDER --each`"
        try:
            changed_ns = beside.stat().st_mtime_ns
        except OSError:
            raise DataError(
                f"{file}: each image of its source has its own alignment, but {beside} is missing; {hint}"
            ) from None
        found = _each(beside, changed_ns).matrices.get(file.name)
        if found is None:
            raise DataError(f"{file}: {beside} holds no alignment of it; {hint}")
        return np.asarray(found, np.float64)


class EachAlignment(StrictModel):
    """The content of `alignment.json`: file name -> matrix, as in `Alignment`."""

    format: int = Field(default=1, ge=1, le=1)
    matrices: dict[str, MatrixField]


@lru_cache(maxsize=8)
def _each(path: Path, _changed_ns: int) -> EachAlignment:
    content = read_bytes(path, "alignment", limit=2**28)
    try:
        return parse(EachAlignment, parse_json(content), str(path))
    except (ConfigError, ValueError) as error:
        raise DataError(f"{path}: not an alignment: {error}") from None


class Warp:
    """The way from the pixels of a grid to those of a sensor's image.

    Attributes:
        matrix: (3, 3), from homogeneous xy of the grid to those of the image.
        image_hw: (height, width) of the whole image.
        step: pixels of the image between two of the grid, rounded down; that many are averaged along each axis.
    """

    def __init__(self, matrix: Matrix, image_hw: tuple[int, int]) -> None:
        self.matrix = matrix / matrix[2, 2]
        self.image_hw = image_hw
        area = abs(float(np.linalg.det(self.matrix)))  # of a grid's pixel at 0, 0
        self.step = max(int(np.sqrt(area) + 1e-6), 1)

    def source_window(self, window: Window) -> Window:
        """Return the part of the image that a window of the grid needs; its first pixel if it lies outside."""
        height, width = self.image_hw
        edges = np.asarray(
            [
                (x, y)
                for x in (window.x0 - 0.5, window.x1 - 0.5)
                for y in (window.y0 - 0.5, window.y1 - 0.5)
            ]
        )
        x, y, ahead = self._mapped(edges[:, 0], edges[:, 1])
        if not ahead.all():
            return Window(0, 0, height, width)
        margin = 2 * self.step + 1
        needed = Window(
            int(np.clip(np.floor(y.min()) - margin, 0, height)),
            int(np.clip(np.floor(x.min()) - margin, 0, width)),
            int(np.clip(np.ceil(y.max()) + margin + 1, 0, height)),
            int(np.clip(np.ceil(x.max()) + margin + 1, 0, width)),
        )
        if needed.y0 >= needed.y1 or needed.x0 >= needed.x1:
            return Window(0, 0, 1, 1)
        y0, x0 = (start - start % self.step for start in needed[:2])
        return Window(y0, x0, needed.y1, needed.x1)

    def __call__(
        self,
        image: SensorImage,
        window: Window,
        part: Window,
        averaged: Sequence[bool],
    ) -> SensorImage:
        """Return the image in a window of the grid: (C, h, w).

        A value is interpolated linearly between its four neighbours and invalid if one of them is invalid or outside.

        Args:
            image: the `part` of the image, such as `source_window` gives.
            averaged: whether the values of each channel may be averaged; those of others are of the nearest pixel.
        """
        channels = len(image.channels)
        data = np.zeros((channels, *window.size_hw), np.float32)
        valid = np.zeros(data.shape, np.bool_)
        smooth = [number for number in range(channels) if averaged[number]]
        exact = [number for number in range(channels) if not averaged[number]]
        values, where = _averaged(image.data[smooth], image.valid[smooth], self.step)
        columns = np.arange(window.x0, window.x1, dtype=np.float64)
        for start in range(window.y0, window.y1, _ROWS_AT_ONCE):
            end = min(start + _ROWS_AT_ONCE, window.y1)
            rows = np.arange(start, end, dtype=np.float64)[:, None]
            x, y, ahead = self._mapped(columns, rows)
            own = slice(start - window.y0, end - window.y0)
            if smooth:
                middle = (self.step - 1) / 2
                found, good = _linear(
                    values,
                    where,
                    (x - middle) / self.step - part.x0 // self.step,
                    (y - middle) / self.step - part.y0 // self.step,
                )
                data[smooth, own] = found
                valid[smooth, own] = good & ahead
            if exact:
                nearest, good = _nearest(
                    image.data[exact], image.valid[exact], x - part.x0, y - part.y0
                )
                data[exact, own] = nearest
                valid[exact, own] = good & ahead
        data[~valid] = 0
        return SensorImage(data, valid, image.channels, image.origin)

    def _mapped(self, x: Matrix, y: Matrix) -> tuple[Matrix, Matrix, BoolArray]:
        """Return x and y in the image, and where they are in front of the camera."""
        (a, b, c), (d, e, f), (g, h, i) = self.matrix
        depth = g * x + h * y + i
        ahead = np.asarray(depth > 0)
        depth = np.where(ahead, depth, 1.0)
        return (a * x + b * y + c) / depth, (d * x + e * y + f) / depth, ahead


def _averaged(
    data: FloatArray, valid: BoolArray, step: int
) -> tuple[FloatArray, BoolArray]:
    """Return the means of blocks of step x step pixels, valid where all are."""
    if step == 1:
        return data, valid
    channels, height, width = data.shape
    rows, columns = height // step, width // step
    shape = (channels, rows, step, columns, step)
    cut = (slice(None), slice(rows * step), slice(columns * step))
    means = np.where(valid, data, 0)[cut].reshape(shape).mean((2, 4), np.float64)
    every = np.asarray(valid[cut].reshape(shape).all((2, 4)))
    return means.astype(np.float32), every


def _linear(
    data: FloatArray, valid: BoolArray, x: Matrix, y: Matrix
) -> tuple[Matrix, BoolArray]:
    """Return the values between pixels, and whether all neighbours that count are valid."""
    height, width = data.shape[1:]
    left, top = np.floor(x), np.floor(y)
    to_right, to_bottom = x - left, y - top
    inside = (left >= 0) & (top >= 0)
    inside &= (left + (to_right > 0) < width) & (top + (to_bottom > 0) < height)
    x0 = np.where(inside, left, 0).astype(np.intp)
    y0 = np.where(inside, top, 0).astype(np.intp)
    x1 = np.minimum(x0 + (to_right > 0), max(width - 1, 0))
    y1 = np.minimum(y0 + (to_bottom > 0), max(height - 1, 0))
    shape = (len(data), *x.shape)
    if 0 in data.shape:
        return np.zeros(shape), np.zeros(shape, np.bool_)
    known = np.where(valid, data, np.float32(0))
    total = np.zeros(shape)
    good = np.broadcast_to(inside, shape).copy()
    for rows, of_row in ((y0, 1 - to_bottom), (y1, to_bottom)):
        for columns, of_column in ((x0, 1 - to_right), (x1, to_right)):
            total += known[:, rows, columns] * (of_row * of_column)
            good &= valid[:, rows, columns]
    return total, good


def _nearest(
    data: FloatArray, valid: BoolArray, x: Matrix, y: Matrix
) -> tuple[FloatArray, BoolArray]:
    """Return the values of the nearest pixels, and whether they are valid."""
    height, width = data.shape[1:]
    column, row = np.floor(x + 0.5), np.floor(y + 0.5)
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    columns = np.where(inside, column, 0).astype(np.intp)
    rows = np.where(inside, row, 0).astype(np.intp)
    return data[:, rows, columns], valid[:, rows, columns] & inside


def alignments_of(card: Mapping[str, Any]) -> dict[str, Alignment]:
    """Return what a data card states: source -> alignment; ConfigError if one is invalid, or they do not fit."""
    found = {}
    for source, values in (card.get("alignment") or {}).items():
        found[source] = parse(Alignment, values, f"the data card: alignment.{source}")
    for problem in problems_of_alignments(found):
        raise ConfigError(f"the data card: {problem}")
    return found


def problems_of_alignments(found: Mapping[str, Alignment]) -> Iterator[str]:
    """Yield contradictions between the alignments of a data card."""
    references = sorted({one.reference for one in found.values()})
    if len(references) > 1:
        yield f"the alignments must have one reference, got {', '.join(references)}"
    for source, one in found.items():
        if source == one.reference:
            yield f"alignment.{source}: a source cannot be its own reference; remove it"
