"""How a modality passes on what its files call missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.images import StatedNodata, read_image
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.modality_files import can_be_rewritten, rewrite, same_bits
from simmat.testing.samples import ModalityCase
from simmat.types import SensorImage

Planes = npt.NDArray[Any]
Way = Literal["--nodata", "its GDAL_NODATA tag", "NaN"]
_MOST_PLANES = 4  # beside all planes at once: bands are handled alike


@dataclass(frozen=True)
class _Source:
    """One of a sample's files, in numbers.

    Attributes:
        name: of the source.
        planes: (P, H, W) as stored.
        stated: whether its reader asks for `--nodata`.
    """

    name: str
    planes: Planes
    stated: bool


def missing_stays_missing(case: ModalityCase) -> None:
    """A pixel that a file or `--nodata` calls missing is invalid in every channel that is computed from it."""
    files = case.samples[0].files
    asked = False
    for source in _sources(case):
        intact = _seen(case, source, source.planes)
        if not same_bits(intact[0], case.load(files)):
            continue  # the file says more than its planes, which is lost in writing them anew
        pixel = _measured_pixel(*intact)
        for picked in _selections(source.planes):
            try:
                changed = _changed(intact, _seen(case, source, _altered(source.planes, picked, pixel)), pixel)
            except DataError:
                continue  # planes that must go together, as three equal ones
            for way in _ways(case, source):
                asked = True
                _expect_missing(case, source, picked, pixel, way, changed)
    if not asked:
        raise CheckSkipped("no file of the sample can be written anew")


def _sources(case: ModalityCase) -> Iterator[_Source]:
    files = case.samples[0].files
    found = StatedNodata()
    size_hw = case.load(files, nodata=found).size_hw
    for name, file in files.items():
        try:
            planes = found.stored[file] if file in found.stored else read_image(file).planes
        except DataError:
            continue
        if planes.shape[1:] == size_hw and can_be_rewritten(file):
            yield _Source(name, planes, file in found.stored)


def _seen(
    case: ModalityCase, source: _Source, planes: Planes, way: Way | None = None, fill: float = 0.0
) -> tuple[SensorImage, SensorImage]:
    """Return the image with other planes in a file of it: as loaded, and as the network gets it."""
    files: dict[str, Path] = case.copy(case.samples[0], "missing")
    path = files[source.name]
    rewrite(path, planes, nodata=fill if way == "its GDAL_NODATA tag" else None)
    image = case.load(files, nodata=StatedNodata({path: fill} if way == "--nodata" else {}))
    return image, case.adapter.transform(image)


def _measured_pixel(image: SensorImage, transformed: SensorImage) -> tuple[int, int]:
    """Return the row and column nearest to the centre where as much as can be is valid."""
    counts = image.valid.sum(axis=0) + transformed.valid.sum(axis=0)
    rows, columns = np.nonzero(counts == counts.max())
    height, width = image.size_hw
    nearest = np.argmin((rows - height // 2) ** 2 + (columns - width // 2) ** 2)
    return int(rows[nearest]), int(columns[nearest])


def _selections(planes: Planes) -> Iterator[list[int]]:
    """Pick all planes, then one at a time."""
    yield list(range(len(planes)))
    if len(planes) > 1:
        yield from ([index] for index in range(min(len(planes), _MOST_PLANES)))


def _altered(planes: Planes, picked: list[int], pixel: tuple[int, int]) -> Planes:
    """Return planes with another ordinary number in one pixel."""
    other = planes.copy()
    for index in picked:
        here = planes[(index, *pixel)]
        ordinary = np.sort(planes[index][np.isfinite(planes[index]) & (planes[index] != here)])
        if ordinary.size:
            other[(index, *pixel)] = ordinary[ordinary.size // 2]
    return other


def _changed(
    one: tuple[SensorImage, SensorImage], other: tuple[SensorImage, SensorImage], pixel: tuple[int, int]
) -> tuple[list[int], list[int]]:
    """Return the indices of the channels that are different at a pixel, as loaded and as the network gets them."""
    at = (slice(None), *pixel)
    found = [
        np.flatnonzero((a.data[at] != b.data[at]) | (a.valid[at] != b.valid[at])).tolist()
        for a, b in zip(one, other, strict=True)
    ]
    return found[0], found[1]


def _ways(case: ModalityCase, source: _Source) -> Iterator[Way]:
    if source.stated:
        yield "--nodata"
    if case.samples[0].files[source.name].suffix.lower() in (".tif", ".tiff"):
        yield "its GDAL_NODATA tag"
    if source.planes.dtype.kind == "f":
        yield "NaN"


def _expect_missing(
    case: ModalityCase,
    source: _Source,
    picked: list[int],
    pixel: tuple[int, int],
    way: Way,
    changed: tuple[list[int], list[int]],
) -> None:
    fill = float("nan") if way == "NaN" else _unused_number(source.planes[picked], pixel)
    planes = source.planes.copy()
    planes[(picked, *pixel)] = fill
    what = f"pixel {pixel} of {source.name!r}, plane {picked[0] if len(picked) == 1 else 'all'}, is missing by {way}"
    try:
        images = _seen(case, source, planes, way, fill)
    except DataError as error:
        if len(picked) < len(planes):
            return
        raise CheckFailed(
            f"{what}; load refused the file: {error}", "load what is there, and mark it invalid"
        ) from error
    for image, channels, where in zip(images, changed, ("load", "transform"), strict=True):
        if valid := [image.channels[index].name for index in channels if image.valid[(index, *pixel)]]:
            raise CheckFailed(
                f"{what}; behind `{where}` it is valid in {', '.join(valid)}, computed from it",
                "hand ImageFile.valid to SensorImage.from_planes, and let a channel of several planes be valid where "
                "all of their ImageFile.measured are",
            )


def _unused_number(planes: Planes, pixel: tuple[int, int]) -> float:
    """Return the number nearest to that of a pixel that no pixel has: as plausible as a measurement."""
    here = planes[(0, *pixel)]
    if planes.dtype.kind == "f":
        candidates = here * np.linspace(1.0, 1.1, 1001, dtype=planes.dtype)[1:] + np.finfo(planes.dtype).tiny
    else:
        low, high = (0, 1) if planes.dtype.kind == "b" else (np.iinfo(planes.dtype).min, np.iinfo(planes.dtype).max)
        steps = np.arange(1, 70_000)
        around = np.stack([int(here) - steps, int(here) + steps], axis=1).ravel()
        candidates = around[(around >= low) & (around <= high)]
    unused = candidates[~np.isin(candidates, planes)]
    return float(unused[0]) if len(unused) else float(here)
