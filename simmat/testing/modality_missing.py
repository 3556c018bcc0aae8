"""A check of a sensor whose files call pixels missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from simmat.errors import DataError
from simmat.io.images import read_image
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.modality_files import same_bits
from simmat.testing.samples import REWRITABLE, TIFF, ModalityCase, Planes, rewrite
from simmat.types import SensorImage

Way = Literal["--nodata", "its GDAL_NODATA tag", "NaN"]
_MOST_PLANES = 4
"""Planes of a file that are tried one by one: bands are handled alike."""


def missing_stays_missing(case: ModalityCase) -> None:
    """A pixel that a file or `--nodata` calls missing is invalid in every channel that is computed from it."""
    files = case.samples[0].files
    applied = False
    for source in _sources(case):
        intact = _load_with(case, source, source.planes)
        if not same_bits(intact[0], case.load(files)):
            continue  # the file holds more than planes, which is lost in rewriting it
        pixel = _valid_pixel(*intact)
        count = len(source.planes)
        alone = [[index] for index in range(min(count, _MOST_PLANES))] if count > 1 else []
        for picked in ([*range(count)], *alone):
            try:
                altered = _load_with(case, source, _altered(source.planes, picked, pixel))
            except DataError:
                continue  # planes that must agree, such as three equal ones
            for way in source.ways:
                applied = True
                _expect_missing(case, source, picked, pixel, way, _changed_channels(intact, altered, pixel))
    if not applied:
        raise CheckSkipped("no file of the sample can be rewritten")


class _Source(NamedTuple):
    """One file of a sample: its (P, H, W) planes as stored, and the ways in which it can call a pixel missing."""

    name: str
    planes: Planes
    ways: tuple[Way, ...]


def _sources(case: ModalityCase) -> Iterator[_Source]:
    """Yield the files of a sample that can be rewritten."""
    files = case.samples[0].files
    size_hw = case.load(files).size_hw
    for name, file in files.items():
        try:
            planes = read_image(file).planes
        except DataError:
            continue
        ending = file.suffix.lower()
        ways: list[Way] = ["--nodata"]
        if ending in TIFF:
            ways.append("its GDAL_NODATA tag")
        if planes.dtype.kind == "f":
            ways.append("NaN")
        if planes.shape[1:] == size_hw and ending in REWRITABLE:
            yield _Source(name, planes, tuple(ways))


def _load_with(
    case: ModalityCase, source: _Source, planes: Planes, way: Way | None = None, fill: float = 0.0
) -> tuple[SensorImage, SensorImage]:
    """Return the image with other planes in one file: as loaded, and as transformed."""
    files = case.copy(case.samples[0].files, "missing")
    path = files[source.name]
    rewrite(path, planes, nodata=fill if way == "its GDAL_NODATA tag" else None)
    image = case.load(files, nodata={source.name: fill} if way == "--nodata" else None)
    return image, case.adapter.transform(image)


def _valid_pixel(image: SensorImage, transformed: SensorImage) -> tuple[int, int]:
    """Return the row and column nearest to the centre where as many channels as possible are valid."""
    counts = image.valid.sum(axis=0) + transformed.valid.sum(axis=0)
    rows, columns = np.nonzero(counts == counts.max())
    height, width = image.size_hw
    nearest = np.argmin((rows - height // 2) ** 2 + (columns - width // 2) ** 2)
    return int(rows[nearest]), int(columns[nearest])


def _altered(planes: Planes, picked: list[int], pixel: tuple[int, int]) -> Planes:
    """Return planes with another ordinary number in one pixel."""
    other = planes.copy()
    for index in picked:
        here = planes[(index, *pixel)]
        ordinary = np.sort(planes[index][np.isfinite(planes[index]) & (planes[index] != here)])
        if ordinary.size:
            other[(index, *pixel)] = ordinary[ordinary.size // 2]
    return other


def _changed_channels(
    before: tuple[SensorImage, SensorImage], after: tuple[SensorImage, SensorImage], pixel: tuple[int, int]
) -> list[list[int]]:
    """Return the indices of the channels that differ at a pixel, as loaded and as transformed."""
    at = (slice(None), *pixel)
    return [
        np.flatnonzero((a.data[at] != b.data[at]) | (a.valid[at] != b.valid[at])).tolist()
        for a, b in zip(before, after, strict=True)
    ]


def _expect_missing(
    case: ModalityCase, source: _Source, picked: list[int], pixel: tuple[int, int], way: Way, changed: list[list[int]]
) -> None:
    """Call a pixel of the picked planes missing; the channels that changed with it must be invalid there."""
    fill = float("nan") if way == "NaN" else _unused_number(source.planes[picked], pixel)
    planes = source.planes.copy()
    planes[(picked, *pixel)] = fill
    what = f"pixel {pixel} of {source.name!r}, plane {picked[0] if len(picked) == 1 else 'all'}, is missing by {way}"
    try:
        images = _load_with(case, source, planes, way, fill)
    except DataError as error:
        if len(picked) < len(planes):
            return
        raise CheckFailed(
            f"{what}; load refused the file: {error}", "load the other pixels, and mark this one invalid"
        ) from error
    for image, channels, method in zip(images, changed, ("load", "transform"), strict=True):
        if valid := [image.channels[index].name for index in channels if image.valid[(index, *pixel)]]:
            raise CheckFailed(
                f"{what}; after `{method}` it is valid in {', '.join(valid)}, computed from it",
                "pass self.nodata(source) to read_image and ImageFile.valid to from_planes, and let a channel of "
                "several planes be valid where all of their ImageFile.measured are",
            )


def _unused_number(planes: Planes, pixel: tuple[int, int]) -> float:
    """Return a number near that of a pixel which no pixel has: as plausible as a measurement."""
    here = planes[(0, *pixel)]
    if planes.dtype.kind == "f":
        candidates = here * np.linspace(1.0, 1.1, 1001, dtype=planes.dtype)[1:] + np.finfo(planes.dtype).tiny
        unused = candidates[~np.isin(candidates, planes)]
    else:
        low, high = (0, 1) if planes.dtype.kind == "b" else (np.iinfo(planes.dtype).min, np.iinfo(planes.dtype).max)
        near = np.arange(max(int(here) - 70_000, low), min(int(here) + 70_000, high) + 1)
        unused = np.setdiff1d(near, planes)
        unused = unused[np.argsort(np.abs(unused - int(here)))]
    return float(unused[0]) if len(unused) else float(here)
