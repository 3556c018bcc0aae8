"""Bring the images of several sensors onto the pixel grid of the first, as `simmat.sensors.warp` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat_runtime.inputs import checked_planes
from simmat_runtime.letterbox import BoolArray, FloatArray
from simmat_runtime.manifest import Channel, Sensor, checked_matrix

Matrix = npt.NDArray[np.float64]
_ROWS_AT_ONCE = 256


def joined(
    images: Mapping[str, npt.NDArray[Any]],
    sensors: Sequence[Sensor],
    channels: Sequence[Channel],
    matrices: Mapping[str, Any] | None = None,
) -> FloatArray:
    """Return the planes of all sensors on the pixel grid of the first: (C, H, W), NaN where missing.

    Args:
        images: name of a sensor -> its image, (C, H, W) or (H, W) for one channel.
        sensors: those of the model.
        channels: of all sensors, in their order.
        matrices: name of a further sensor -> the matrix of this image, in place of that of the model.

    Raises:
        ValueError: a matrix is wrong, or missing where each image has its own; a sensor is missing or unknown, or an
            image has another shape or size.
    """
    if not sensors:
        raise ValueError("the model takes one image of all its channels; give an array")
    names = [sensor.name for sensor in sensors]
    if set(images) != set(names):
        raise ValueError(
            f"the model's sensors are {', '.join(names)}; got {', '.join(images)}"
        )
    own_matrices = _checked(matrices or {}, names)
    grid_hw = (0, 0)
    found: list[FloatArray] = []
    start = 0
    for sensor in sensors:
        own = channels[start : start + len(sensor.averaged)]
        start += len(own)
        planes = _measured(checked_planes(images[sensor.name], own), own)
        height, width = planes.shape[1:]
        if not found:
            grid_hw = (height, width)
        matrix = own_matrices.get(sensor.name)
        if matrix is None and sensor.each:
            raise ValueError(
                f"each image of {sensor.name} has its own place on that of {names[0]}; give its matrix: matrices="
                f'{{"{sensor.name}": …}}, or --matrix {sensor.name}=9 NUMBERS, as `simmat align --each` finds it'
            )
        if matrix is None and sensor.size not in (None, (width, height)):
            raise ValueError(
                f"the image of {sensor.name} is {width}x{height}, but its alignment is for {sensor.size[0]}x"
                f"{sensor.size[1]} (width x height); give images as the camera writes them"
            )
        if matrix is None and sensor.matrix is not None:
            matrix = np.asarray(sensor.matrix)
        if matrix is not None:
            planes = on_grid(planes, matrix, grid_hw, sensor.averaged)
        elif (height, width) != grid_hw:
            raise ValueError(
                f"the image of {sensor.name} is {width}x{height}, that of {names[0]} {grid_hw[1]}x{grid_hw[0]} "
                "(width x height); the model holds no alignment, so give images on one pixel grid"
            )
        found.append(planes)
    return np.concatenate(found)


def _checked(matrices: Mapping[str, Any], names: Sequence[str]) -> dict[str, Matrix]:
    """Return the matrices of an image's further sensors; ValueError if one is wrong."""
    found = {}
    for name, value in matrices.items():
        if name not in names[1:]:
            raise ValueError(
                f"matrices are for the further sensors, {', '.join(names[1:])}; got one for {name}"
            )
        rows = np.asarray(value, np.float64).tolist()
        matrix = np.asarray(checked_matrix(rows, f"the matrix of {name}"))
        if not abs(np.linalg.det(matrix / matrix[2, 2])) > 1e-12:
            raise ValueError(f"the matrix of {name} cannot be inverted")
        found[name] = matrix
    return found


def _measured(planes: FloatArray, channels: Sequence[Channel]) -> FloatArray:
    """Return the planes with NaN for values out of the range of their channels."""
    result = planes.copy()
    for plane, channel in zip(result, channels, strict=True):
        low, high = channel.valid_range or (-np.inf, np.inf)
        plane[~(np.isfinite(plane) & (plane >= low) & (plane <= high))] = np.nan
    return result


def on_grid(
    planes: FloatArray,
    matrix: Matrix,
    size_hw: tuple[int, int],
    averaged: Sequence[bool],
) -> FloatArray:
    """Return planes on another pixel grid: (C, *size_hw), NaN where a neighbour is missing or outside.

    Args:
        planes: (C, h, w), NaN where missing.
        matrix: (3, 3), from homogeneous xy pixels of the grid to those of the planes; 0, 0 is a pixel's centre.
        size_hw: of the grid.
        averaged: whether the values of each channel may be averaged; those of others are of the nearest pixel.
    """
    matrix = matrix / matrix[2, 2]
    step = max(int(np.sqrt(abs(float(np.linalg.det(matrix)))) + 1e-6), 1)
    smooth = np.flatnonzero(averaged)
    exact = np.flatnonzero(~np.asarray(averaged))
    means = _block_means(planes[smooth], step)
    result = np.full((len(planes), *size_hw), np.nan, np.float32)
    columns = np.arange(size_hw[1], dtype=np.float64)
    for start in range(0, size_hw[0], _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, size_hw[0])
        rows = np.arange(start, end, dtype=np.float64)[:, None]
        (a, b, c), (d, e, f), (g, h, i) = matrix
        depth = g * columns + h * rows + i
        ahead = depth > 0  # in front of the camera
        depth = np.where(ahead, depth, 1.0)
        x = (a * columns + b * rows + c) / depth
        y = (d * columns + e * rows + f) / depth
        middle = (step - 1) / 2
        result[smooth, start:end] = _linear(
            means, (x - middle) / step, (y - middle) / step, ahead
        )
        result[exact, start:end] = _nearest(planes[exact], x, y, ahead)
    return result


def _block_means(planes: FloatArray, step: int) -> FloatArray:
    """Return the means of blocks of step x step pixels, NaN where one is missing."""
    if step == 1:
        return planes
    channels, height, width = planes.shape
    rows, columns = height // step, width // step
    blocks = planes[:, : rows * step, : columns * step]
    blocks = blocks.reshape(channels, rows, step, columns, step)
    means: FloatArray = blocks.mean((2, 4), np.float64).astype(np.float32)
    return means


def _linear(planes: FloatArray, x: Matrix, y: Matrix, seen: BoolArray) -> FloatArray:
    """Return the values between pixels; NaN spreads from the neighbours that count."""
    height, width = planes.shape[1:]
    if 0 in planes.shape:
        return np.full((len(planes), *x.shape), np.nan, np.float32)
    left, top = np.floor(x), np.floor(y)
    to_right, to_bottom = x - left, y - top
    inside = seen & (left >= 0) & (top >= 0)
    inside &= (left + (to_right > 0) < width) & (top + (to_bottom > 0) < height)
    x0 = np.where(inside, left, 0).astype(np.intp)
    y0 = np.where(inside, top, 0).astype(np.intp)
    x1 = np.minimum(x0 + (to_right > 0), width - 1)
    y1 = np.minimum(y0 + (to_bottom > 0), height - 1)
    total = np.zeros((len(planes), *x.shape))
    for row, of_row in ((y0, 1 - to_bottom), (y1, to_bottom)):
        for column, of_column in ((x0, 1 - to_right), (x1, to_right)):
            total += planes[:, row, column] * (of_row * of_column)
    total[:, ~inside] = np.nan
    return total.astype(np.float32)


def _nearest(planes: FloatArray, x: Matrix, y: Matrix, seen: BoolArray) -> FloatArray:
    """Return the values of the nearest pixels."""
    height, width = planes.shape[1:]
    column, row = np.floor(x + 0.5), np.floor(y + 0.5)
    inside = seen & (column >= 0) & (row >= 0) & (column < width) & (row < height)
    columns = np.where(inside, column, 0).astype(np.intp)
    rows = np.where(inside, row, 0).astype(np.intp)
    return np.where(inside, planes[:, rows, columns], np.float32(np.nan))
