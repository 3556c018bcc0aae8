"""Estimate the matrix from the pixels of one camera to those of another, from pairs of images.

All coordinates have the centre of the top-left pixel at (0, 0). The pairs of a rig are looked at together: what one
leaves open, another decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from simmat_plugin_align.features import (
    DIRECTIONS,
    MAX_SIDE,
    Edges,
    Matrix,
    Picture,
    find_edges,
)

Model = Literal["translation", "homography"]
Pair = tuple[Picture, Picture]
"""An image of the first camera, and one of the second."""
Numbers = npt.NDArray[np.floating[Any]]
Spectrum = npt.NDArray[np.complex64]

SEARCH_SIDE = 128
"""Longer side in pixels at which rotation, scale and shift are searched."""
SIDES = (192, 400)
"""Longer sides at which the matrix is refined."""
_SEARCH_PAIRS = 6
"""Pairs of a rig in which it is searched, at most."""
_SCALES = 1.06 ** np.arange(-8, 10)
"""Sizes in the second image, relative to those if both cameras had the same view: 0.63 to 1.69."""
_ANGLES_DEG = np.arange(-8.0, 8.1, 2.0)
_FINER_SCALES = 1.02 ** np.arange(-2, 3)
_FINER_ANGLES_DEG = np.arange(-1.5, 1.6, 0.75)
_MAX_SHIFT = 0.3
"""Largest shift of the centre that is tried, as a part of the longer side."""
_MIN_OVERLAP = 0.4
"""Least part of the smaller view that both see."""
_ITERATIONS = 12
_STOP_PX = 0.05
_KNOWN = 0.999
_FEWEST = 50
_PIXELS_PER_MEASUREMENT = 25.0
"""Neighbours and directions are alike: so many of every second pixel tell as much as one measurement."""
_SHEAR = 0.01
"""Expected shear, and difference of the scales along x and y; more needs evidence."""
_TILT = 0.005
"""Expected perspective over half of the longer side; more needs evidence."""
_MARGIN_PX = 2


@dataclass(frozen=True)
class Level:
    """All pairs at one resolution, at which both cameras have about the same scale."""

    pairs: Sequence[tuple[Edges, Edges]]

    def to_level(self, matrix: Matrix) -> Matrix:
        """Return a matrix between pixels of the images as one between pixels of this level."""
        first, second = self.pairs[0]
        return second.to_scaled @ matrix @ np.linalg.inv(first.to_scaled)

    def to_pixels(self, matrix: Matrix) -> Matrix:
        """Return a matrix between pixels of this level as one between pixels of the images."""
        first, second = self.pairs[0]
        found = np.linalg.inv(second.to_scaled) @ matrix @ first.to_scaled
        return np.asarray(found / found[2, 2])


def make_level(
    pairs: Sequence[Pair], side: int, *, fine: bool = True, zoom: float | None = None
) -> Level:
    """Return the edges of pairs at a longer side of the first image, of at most its own size.

    Args:
        pairs: those that are compared.
        side: of the first image; if `zoom` is given, of the smaller view.
        fine: whether the edges are for refining.
        zoom: pixels of the second camera on one of the first; by default as if both had the same view.
    """
    first, second = pairs[0]
    scale = min(side / max(first.size_hw), 1.0)
    if zoom is None:
        zoom = np.sqrt(np.prod(second.size_hw) / np.prod(first.size_hw))
    else:
        view = min(max(first.size_hw), max(second.size_hw) / zoom)
        most = MAX_SIDE / max(*first.size_hw, *(np.asarray(second.size_hw) / zoom))
        scale = min(side / view, most, 1.0, zoom)
    smooth_px, blur_px = (1.0, 2.0) if fine else (0.8, 1.0)
    found = []
    for one, other in pairs:
        found.append(
            (
                find_edges(one, scale, smooth_px=smooth_px, blur_px=blur_px),
                find_edges(other, scale / zoom, smooth_px=smooth_px, blur_px=blur_px),
            )
        )
    return Level(found)


@dataclass(frozen=True)
class Found:
    """A matrix, and the correlation of the edges that it joins, 1 at most.

    Attributes:
        zoom: see `make_level`; None if it was searched without a start.
    """

    matrix: Matrix
    score: float
    zoom: float | None = None


def search(pairs: Sequence[Pair], start: Matrix | None = None) -> Found:
    """Return the best correlation of all similarities, or of changes of a start by similarities.

    Scales from 0.63 to 1.69 and rotations to 8 degrees are tried, relative to the start, or to the same view. All
    images of a camera have one size.
    """
    some = _some(pairs, _SEARCH_PAIRS)
    zoom = None if start is None else zoom_of(start, pairs[0][0].size_hw)
    level = make_level(some, SIDES[0], fine=False, zoom=zoom)
    coarse = make_level(some, SEARCH_SIDE, fine=False, zoom=zoom)
    if start is None:
        rough = _best(coarse, _about_middles(coarse, _SCALES, _ANGLES_DEG))
        size, angle = _size_and_angle(rough.matrix)
        finer = _about_middles(level, size * _FINER_SCALES, angle + _FINER_ANGLES_DEG)
    else:
        around = _changed(coarse, coarse.to_level(start), _SCALES, _ANGLES_DEG)
        rough = _best(coarse, around)
        near = level.to_level(coarse.to_pixels(rough.matrix))
        finer = _changed(level, near, _FINER_SCALES, _FINER_ANGLES_DEG)
    found = _best(level, finer)
    return Found(level.to_pixels(found.matrix), found.score, zoom)


def zoom_of(matrix: Matrix, first_hw: tuple[int, int]) -> float:
    """Return the pixels of the second camera on one in the middle of the first image."""
    height, width = first_hw
    depth = matrix[2] @ [(width - 1) / 2, (height - 1) / 2, 1.0]
    return float(np.sqrt(abs(np.linalg.det(matrix) / depth**3)))


def _size_and_angle(matrix: Matrix) -> tuple[float, float]:
    """Return the scale and the rotation in degrees of a similarity."""
    across, down = matrix[0, 0], matrix[1, 0]
    return float(np.hypot(across, down)), float(np.rad2deg(np.arctan2(down, across)))


def _about_middles(level: Level, scales: Numbers, angles_deg: Numbers) -> list[Matrix]:
    """Return all rotations and scalings that join the centres of both images."""
    first, second = level.pairs[0]
    found = []
    for scale in scales:
        for angle_deg in angles_deg:
            found.append(
                _about_centres(scale, angle_deg, first.valid.shape, second.valid.shape)
            )
    return found


def _changed(
    level: Level, start: Matrix, scales: Numbers, angles_deg: Numbers
) -> list[Matrix]:
    """Return a start with all rotations and scalings about the centre of the first image, or near it in the second."""
    first, second = level.pairs[0]
    (height, width), (rows, columns) = first.valid.shape, second.valid.shape
    x, y = _mapped(start, np.array((width - 1) / 2), np.array((height - 1) / 2))
    to_middle = np.eye(3)
    to_middle[:2, 2] = np.clip([x, y], 0, [columns - 1, rows - 1])
    found = []
    for scale in scales:
        for angle_deg in angles_deg:
            turned = _about_centres(scale, angle_deg, (1, 1), (1, 1))
            change = to_middle @ turned @ np.linalg.inv(to_middle)
            found.append(change @ start)
    return found


def _some(pairs: Sequence[Pair], count: int) -> list[Pair]:
    places = np.linspace(0, len(pairs) - 1, min(count, len(pairs)))
    return [pairs[round(place)] for place in places.tolist()]


def _best(level: Level, matrices: Sequence[Matrix]) -> Found:
    """Return the best of some matrices, each at its best shift."""
    _, second = level.pairs[0]
    height, width = second.valid.shape
    most = int(_MAX_SHIFT * max(height, width))
    shape = (
        fft.next_fast_len(height + most, True),
        fft.next_fast_len(width + most, True),
    )
    spectra = []
    for _, other in level.pairs:
        known = other.values * other.valid
        spectra.append(
            (
                fft.rfft2(known, shape),
                fft.rfft2((known**2).sum(0), shape),
                fft.rfft2(other.valid.astype(np.float32), shape),
            )
        )
    total_seen = sum(int(other.valid.sum()) for _, other in level.pairs)
    shifts = np.r_[0 : most + 1, -most:0]
    best = Found(np.eye(3), -np.inf)
    for turned in matrices:
        sums = np.zeros((4, shape[0], shape[1] // 2 + 1), np.complex64)
        seen = 0
        for (one, _), (values, squares, valid) in zip(
            level.pairs, spectra, strict=True
        ):
            own, there = _nearest(one, turned, (height, width))
            seen += int(there.sum())
            own_valid = np.conj(fft.rfft2(there.astype(np.float32), shape))
            sums[0] += (values * np.conj(fft.rfft2(own, shape))).sum(0)
            sums[1] += squares * own_valid
            sums[2] += valid * np.conj(fft.rfft2((own**2).sum(0), shape))
            sums[3] += valid * own_valid
        joint, of_second, of_first, overlap = fft.irfft2(sums, shape)[
            :, shifts[:, None], shifts
        ]
        share = overlap / max(min(seen, total_seen), 1)
        energy = np.sqrt(np.maximum(of_second * of_first, 1e-12))
        score = np.where(
            share >= _MIN_OVERLAP,
            joint / energy * np.sqrt(np.clip(share, 0, 1)),
            -1,
        )
        row, column = np.unravel_index(np.argmax(score), score.shape)
        if score[row, column] > best.score and seen >= _FEWEST:
            moved = np.eye(3)
            moved[:2, 2] = shifts[column], shifts[row]
            best = Found(moved @ turned, float(score[row, column]))
    return best


def _about_centres(
    scale: float, angle_deg: float, first_hw: Sequence[int], second_hw: Sequence[int]
) -> Matrix:
    """Return the rotation and scaling that joins the centres of two images."""
    angle = np.deg2rad(angle_deg)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.asarray(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    centres = [
        np.asarray([(width - 1) / 2, (height - 1) / 2])
        for height, width in (first_hw, second_hw)
    ]
    matrix[:2, 2] = centres[1] - matrix[:2, :2] @ centres[0]
    return matrix


def _nearest(
    edges: Edges, matrix: Matrix, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the edges of the first image as the second one of a shape would see them, and where they are known."""
    height, width = edges.valid.shape
    x, y = _mapped(
        np.linalg.inv(matrix), np.arange(shape[1]), np.arange(shape[0])[:, None]
    )
    columns, rows = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    columns, rows = np.where(inside, columns, 0), np.where(inside, rows, 0)
    there = inside & edges.valid[rows, columns]
    return edges.values[:, rows, columns] * there, there


def _mapped(
    matrix: npt.NDArray[np.floating], x: npt.NDArray[Any], y: npt.NDArray[Any]
) -> tuple[Numbers, Numbers]:
    """Return where points lie; those behind the camera are far outside."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    depth = g * x + h * y + i
    depth = np.where(depth > 1e-9, depth, 1e-9)
    return (a * x + b * y + c) / depth, (d * x + e * y + f) / depth


_BASES: dict[Model, Numbers] = {
    "translation": np.eye(8)[:, [2, 5]],
    "homography": np.eye(8),
}
"""Directions in which each model may change (a … h) of the matrix ((1+a, b, c), (d, 1+e, f), (g, h, 1))."""


def refine(
    pairs: Sequence[Pair],
    start: Matrix,
    model: Model,
    sides: Sequence[int] = SIDES,
    zoom: float | None = None,
) -> Matrix:
    """Return the matrix near `start` at which the edges of all pairs agree best; `zoom` as in `make_level`."""
    matrix = start
    for side in sides:
        level = make_level(pairs, side, zoom=zoom)
        matrix = level.to_pixels(_refined(level, level.to_level(matrix), model))
    return matrix


def _refined(level: Level, matrix: Matrix, model: Model) -> Matrix:
    """Minimise the squared differences of the edges by Gauss and Newton.

    The steps are those of Lucas and Kanade (1981), in coordinates from -1 to 1. Shear and perspective are held back by
    a Gaussian prior.
    """
    height, width = level.pairs[0][0].valid.shape
    half = max(height, width) / 2
    to_unit = np.asarray(
        [
            [1 / half, 0, -(width - 1) / 2 / half],
            [0, 1 / half, -(height - 1) / 2 / half],
            [0, 0, 1],
        ]
    )
    to_pixels = np.linalg.inv(to_unit)
    basis = _BASES[model]
    held = np.zeros((4, 8))  # of a - e, b + d, g and h
    held[[0, 0, 1, 1, 2, 3], [0, 4, 1, 3, 6, 7]] = 1, -1, 1, 1, 1, 1
    weights = _PIXELS_PER_MEASUREMENT / np.asarray([_SHEAR, _SHEAR, _TILT, _TILT]) ** 2
    prepared = [_prepared(first, half) for first, _ in level.pairs]
    for _ in range(_ITERATIONS):
        curvature = np.zeros((8, 8))
        slope = np.zeros(8)
        for own, (_, second) in zip(prepared, level.pairs, strict=True):
            own_curvature, own_slope = own.normal_equations(second, matrix)
            curvature += own_curvature
            slope += own_slope
        unit = to_unit @ matrix @ to_pixels
        unit /= unit[2, 2]
        now = [unit[0, 0] - unit[1, 1], unit[0, 1] + unit[1, 0], unit[2, 0], unit[2, 1]]
        curvature += held.T @ (weights[:, None] * held)
        slope -= held.T @ (weights * now)
        inner = basis.T @ curvature @ basis + 1e-6 * np.eye(basis.shape[1])
        step = basis @ np.linalg.solve(inner, basis.T @ slope)
        # a step beyond what the edges can tell leads astray
        step *= min(1.0, 0.1 / max(np.abs(step).max(), 1e-12))
        a, b, c, d, e, f, g, h = step
        change = np.asarray([[1 + a, b, c], [d, 1 + e, f], [g, h, 1]])
        matrix = matrix @ to_pixels @ change @ to_unit
        matrix = matrix / matrix[2, 2]
        if np.abs(step).max() * half < _STOP_PX:
            break
    return matrix


@dataclass(frozen=True)
class _Prepared:
    """Every second pixel of a first image.

    Attributes:
        rows, columns: (N,) where they are.
        values: (`DIRECTIONS`, N) edges, divided by their spread.
        slopes: (`DIRECTIONS`, 8, N) by which a value changes with each parameter.
    """

    rows: Numbers
    columns: Numbers
    values: npt.NDArray[np.float32]
    slopes: npt.NDArray[np.float32]

    def normal_equations(
        self, second: Edges, matrix: Matrix
    ) -> tuple[Numbers, Numbers]:
        """Return the (8, 8) curvature and the (8,) slope of the squared differences at a matrix."""
        x, y = _mapped(matrix, self.columns, self.rows)
        height, width = second.valid.shape
        inside = (x >= 1) & (y >= 1) & (x <= width - 2) & (y <= height - 2)
        places = np.stack([y[inside], x[inside]])
        known = ndimage.map_coordinates(
            second.valid.astype(np.float32), places, order=1
        )
        inside[inside] = known > _KNOWN
        places = places[:, known > _KNOWN]
        curvature, slope = np.zeros((8, 8)), np.zeros(8)
        if places.shape[1] < _FEWEST:
            return curvature, slope
        seen = np.stack(
            [ndimage.map_coordinates(plane, places, order=1) for plane in second.values]
        )
        missing = self.values[:, inside] - seen / (seen.std() + 1e-9)
        for number, difference in enumerate(missing):
            parts = self.slopes[number][:, inside]
            curvature += parts @ parts.T
            slope += parts @ difference
        return curvature, slope


def _prepared(edges: Edges, half: float) -> _Prepared:
    height, width = edges.valid.shape
    inner = ndimage.binary_erosion(edges.valid, iterations=_MARGIN_PX)
    some = np.zeros(inner.shape, np.bool_)
    some[::2, ::2] = inner[::2, ::2]
    rows, columns = np.nonzero(some)
    x = (columns - (width - 1) / 2) / half
    y = (rows - (height - 1) / 2) / half
    spread = edges.values[:, some].std() + 1e-9 if some.any() else 1.0
    slopes = []
    for plane in edges.values:
        down, across = np.gradient(plane)
        down, across = down[some] * half / spread, across[some] * half / spread
        away = -(across * x + down * y)
        slopes.append(
            [
                across * x,
                across * y,
                across,
                down * x,
                down * y,
                down,
                away * x,
                away * y,
            ]
        )
    return _Prepared(
        rows.astype(np.float64),
        columns.astype(np.float64),
        edges.values[:, some] / spread,
        np.asarray(slopes, np.float32).reshape(DIRECTIONS, 8, -1),
    )


def mirrored(pairs: Sequence[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """Yield the pairs with the second images mirrored or turned upside down, and how."""
    yield "mirrored left to right", _changed_pairs(pairs, lambda plane: plane[:, ::-1])
    yield "mirrored top to bottom", _changed_pairs(pairs, lambda plane: plane[::-1])
    yield (
        "turned by 180 degrees",
        _changed_pairs(pairs, lambda plane: np.rot90(plane, 2)),
    )


def turned_a_quarter(pairs: Sequence[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """Yield the pairs with the second images turned by 90 degrees, and how."""
    yield "turned by 90 degrees to the left", _changed_pairs(pairs, np.rot90)
    yield (
        "turned by 90 degrees to the right",
        _changed_pairs(pairs, lambda plane: np.rot90(plane, -1)),
    )


def _changed_pairs(
    pairs: Sequence[Pair], change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> list[Pair]:
    """Return the pairs with each (h, w) plane of the second images mirrored or turned."""
    found = []
    for first, second in pairs:
        planes = np.stack([change(plane) for plane in second.planes])
        valid = np.ascontiguousarray(change(second.valid))
        height, width = second.size_hw
        # a quarter turn swaps the sides
        if (planes.shape[1] > planes.shape[2]) != (height > width):
            height, width = width, height
        found.append((first, Picture(planes, valid, (height, width))))
    return found
