"""Checks of a sensor's files: whole, damaged, and with missing pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, SimMATError
from simmat.io.images import StatedNodata, read_image, write_image
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.samples import ModalityCase, scene_number
from simmat.types import Georeference, SensorImage, Window

Planes = npt.NDArray[Any]
Way = Literal["--nodata", "its GDAL_NODATA tag", "NaN"]

_TIFF = (".tif", ".tiff")
_REWRITABLE = (*_TIFF, ".png", ".npy")
"""Formats that keep numbers unchanged."""
_GDAL_NODATA = 42113
_KEPT_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112)  # OGC GeoTIFF 1.1, GDAL_METADATA
_ODD_FOLDER = "a folder, ünïcødé 海 (1)"
_FROM_PLANES = "build the image with SensorImage.from_planes, which ensures it"
_MOST_PLANES = 4
"""Planes of a file that are tried one by one: bands are handled alike."""


def same_bits(one: SensorImage, other: SensorImage) -> bool:
    """Return True if two images are equal bit for bit, channels included."""
    return (
        one.channels == other.channels
        and np.array_equal(one.valid, other.valid)
        and np.array_equal(one.data, other.data, equal_nan=True)
    )


def simulation_is_seeded(case: ModalityCase) -> None:
    """`simulate` draws all its noise from the generator it is given: the same seed gives the same image."""
    try:
        scene = scene_number(0)
        one, two = (case.adapter.simulate(scene, np.random.default_rng(5)) for _ in range(2))
    except ConfigError as error:
        raise CheckSkipped(str(error)) from error
    if not same_bits(one, two):
        raise CheckFailed("one scene and one seed gave two different images", "draw from `rng` alone")
    if one.size_hw != scene.size_hw:
        raise CheckFailed(
            f"a scene of {scene.size_hw} gave an image of {one.size_hw}", "simulate on the scene's pixel grid"
        )


def loads_float32_planes(case: ModalityCase) -> None:
    """`load` returns float32, C-contiguous (C, H, W) with something valid in it."""
    image = case.load(case.samples[0].files)
    if image.data.dtype != np.float32 or image.data.ndim != 3:
        raise CheckFailed(f"data is {image.data.dtype} of shape {image.data.shape}", _FROM_PLANES)
    for what, array in (("data", image.data), ("valid", image.valid)):
        if not array.flags.c_contiguous:
            raise CheckFailed(f"{what} of shape {array.shape} has strides {array.strides}", _FROM_PLANES)
    if not np.isfinite(image.data[image.valid]).all():
        raise CheckFailed("pixels that are not finite are marked valid", _FROM_PLANES)
    for channel, valid in zip(image.channels, image.valid, strict=True):
        if not valid.any():
            raise CheckFailed(
                f"channel {channel.name!r} has no valid pixel", "look at its valid_range, nodata and unit"
            )


def loads_its_own_channels(case: ModalityCase) -> None:
    """A loaded image has the channels that the sensor declares: as many, of the same names, in the same order."""
    declared = [channel.name for channel in case.adapter.channels]
    if not declared:
        raise CheckSkipped("the sensor leaves its channels to the file")
    found = [channel.name for channel in case.load(case.samples[0].files).channels]
    if found != declared:
        raise CheckFailed(
            f"load gave {len(found)} channels {found}, declared are {len(declared)}: {declared}",
            "declare what load returns; leave `channels` empty where only the file can say",
        )


def takes_any_path(case: ModalityCase) -> None:
    """Files are read from paths with spaces, brackets and letters of any script."""
    sample = case.samples[0]
    files = case.copy(sample.files, _ODD_FOLDER)
    try:
        image = case.load(files)
    except Exception as error:
        raise CheckFailed(
            f"{next(iter(files.values()))} cannot be read: {type(error).__name__}: {error}",
            "pass the Path itself to the library that reads the file; do not split it or turn it into bytes",
        ) from error
    if not same_bits(image, case.load(sample.files)):
        raise CheckFailed(f"the pixels depend on the path {_ODD_FOLDER!r}", "read only what the file holds")


def keeps_odd_sizes(case: ModalityCase) -> None:
    """An image of odd height and width is loaded at the size of its reference file, or refused."""
    sample = case.samples[0]
    if case.odd_refusal:
        raise CheckSkipped(f"the sensor refuses odd sizes: {case.odd_refusal}")
    if sample.simulated is not None:
        _expect_size(sample.simulated.size_hw, case.load(sample.files))
        return
    try:
        planes = read_image(sample.files[case.adapter.source_names()[0]]).planes
    except DataError as error:
        raise CheckSkipped("only the sensor can read the size of the given file") from error
    height, width = planes.shape[1:]
    _expect_size((height, width), case.load(sample.files))
    if height % 2 and width % 2:
        return
    cut = _cut_to_odd_size(case, sample.files, (height, width))
    if cut is None:
        raise CheckSkipped(f"the sample is {height} x {width}: give one of odd height and width")
    try:
        image = case.load(cut)
    except DataError as error:
        raise CheckSkipped(f"the sensor refuses odd sizes: {error}") from error
    _expect_size((height - 1 + height % 2, width - 1 + width % 2), image)


def _expect_size(size_hw: tuple[int, int], image: SensorImage) -> None:
    if image.size_hw != size_hw:
        raise CheckFailed(
            f"a file of {size_hw[0]} rows and {size_hw[1]} columns was loaded as {image.size_hw[0]} x "
            f"{image.size_hw[1]}",
            "do not crop, pad or resize in load; the core does what the network needs",
        )


def _cut_to_odd_size(case: ModalityCase, files: dict[str, Path], size_hw: tuple[int, int]) -> dict[str, Path] | None:
    """Return copies of files, cut to an odd height and width; None if they cannot be rewritten."""
    whole, cut = case.copy(files, "even"), case.copy(files, "odd")
    height, width = (side - 1 + side % 2 for side in size_hw)
    try:
        for name, file in files.items():
            planes = read_image(file).planes
            if planes.shape[1:] != size_hw or file.suffix.lower() not in _REWRITABLE:
                return None
            _rewrite(whole[name], planes)
            _rewrite(cut[name], planes[:, :height, :width])
        kept = same_bits(case.load(whole), case.load(files))
    except SimMATError:
        return None
    return cut if kept else None  # else the files hold more than planes, which is lost in rewriting them


def same_file_same_bits(case: ModalityCase) -> None:
    """The same file gives the same bits every time."""
    files = case.samples[0].files
    if not same_bits(case.load(files), case.load(files)):
        raise CheckFailed("loading one file twice gave different pixels or channels", "draw nothing at random in load")


def writes_nothing(case: ModalityCase) -> None:
    """Loading writes no file beside the sample and does not change the sample."""
    files = case.copy(case.samples[0].files, "untouched")
    before = _snapshot(case.folder / "untouched")
    case.load(files)
    after = _snapshot(case.folder / "untouched")
    if changed := sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path)):
        raise CheckFailed(
            f"load wrote, changed or removed {', '.join(changed)}", "keep what load computes in memory, or in a cache"
        )


def _snapshot(folder: Path) -> dict[Path, tuple[int, str]]:
    """Return every file in a folder with its time of change and the digest of its bytes."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def windows_are_parts(case: ModalityCase) -> None:
    """Where `window_size` gives a size it is that of the image, and `load_window` gives the same part as `load`."""
    files = _files_in_parts(case)
    if files is None:
        return
    whole = case.load(files)
    size_hw = case.adapter.window_size(files)
    if size_hw != whole.size_hw:
        raise CheckFailed(
            f"window_size is {size_hw}, load gave {whole.size_hw}", "return (height, width) of the reference source"
        )
    height, width = whole.size_hw
    for window in (
        Window(0, 0, height, width),
        Window(0, 0, height // 2, width // 3),
        Window(height // 3, width // 4, height - 1, width),
        Window(height - 1, width - 1, height, width),
    ):
        part, expected = case.adapter.load_window(files, window), whole.cut(window)
        if not same_bits(part, expected) or not _same_place(part.georeference, expected.georeference):
            raise CheckFailed(
                f"load_window of rows {window.y0} to {window.y1}, columns {window.x0} to {window.x1} is not that part "
                "of what load gives",
                "pass the window to read_image, compute nothing from the image as a whole, and shift the georeference; "
                "or let window_size return None",
            )


def _files_in_parts(case: ModalityCase) -> dict[str, Path] | None:
    """Return the files of a sample that the sensor reads in parts; None if it reads none of its formats so."""
    sample = case.samples[0]
    if case.adapter.window_size(sample.files) is not None:
        return sample.files
    endings = [
        next((ending for ending in source.extensions if ending in (*_TIFF, ".npy")), "")
        for source in case.adapter.sources
    ]
    if sample.simulated is None or not all(endings):
        return None
    names = case.adapter.source_names()
    files = {name: case.folder / "parts" / name / f"a{ending}" for name, ending in zip(names, endings, strict=True)}
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        case.adapter.save(sample.simulated, files)
        case.load(files)
    except SimMATError:  # it writes other formats than the first worse, or not at all
        return None
    return files if case.adapter.window_size(files) is not None else None


def _same_place(one: Georeference | None, other: Georeference | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.crs == other.crs and bool(np.allclose(one.transform, other.transform, rtol=1e-9, atol=0))


def missing_files_are_refused(case: ModalityCase) -> None:
    """A missing file raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        files = case.copy(case.samples[0].files, f"missing {source}")
        files[source].unlink()
        _expect_refusal(case, files, source, "missing")


def truncated_files_are_refused(case: ModalityCase) -> None:
    """A file that was cut short raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        for share in (0.0, 0.5, 0.9):
            files = case.copy(case.samples[0].files, f"cut {source} {share}")
            whole = files[source].read_bytes()
            files[source].write_bytes(whole[: int(len(whole) * share)])
            _expect_refusal(case, files, source, f"cut to {share:.0%} of its {len(whole)} bytes")


def wrong_files_are_refused(case: ModalityCase) -> None:
    """A file of another kind under the right name raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        files = case.copy(case.samples[0].files, f"wrong {source}")
        files[source].write_bytes(b"This is a line of plain text, and no sensor wrote it.\n" * 40)
        _expect_refusal(case, files, source, "plain text under the sensor's ending")


def _expect_refusal(case: ModalityCase, files: dict[str, Path], source: str, state: str) -> None:
    path = files[source]
    try:
        image = case.adapter.load(files)
    except SimMATError as error:
        if str(path) not in str(error):
            raise CheckFailed(
                f"source {source!r} was {state}; the error does not name {path.name!r}: {error}",
                'begin the message with the path: raise DataError(f"{path}: …")',
            ) from error
    except Exception as error:
        raise CheckFailed(
            f"source {source!r} was {state}; load raised {type(error).__name__}: {error}",
            "catch what your library raises and raise simmat.errors.DataError with the path",
        ) from error
    else:
        raise CheckFailed(
            f"source {source!r} was {state}; load returned an image of {image.data.shape}",
            "check the size of the file and what its header says, and raise simmat.errors.DataError",
        )


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
    nodata = StatedNodata()
    size_hw = case.load(files, nodata=nodata).size_hw
    for name, file in files.items():
        try:
            planes = nodata.stored[file] if file in nodata.stored else read_image(file).planes
        except DataError:
            continue
        ending = file.suffix.lower()
        ways: list[Way] = ["--nodata"] if file in nodata.stored else []  # where the sensor's reader takes it
        if ending in _TIFF:
            ways.append("its GDAL_NODATA tag")
        if planes.dtype.kind == "f":
            ways.append("NaN")
        if planes.shape[1:] == size_hw and ending in _REWRITABLE:
            yield _Source(name, planes, tuple(ways))


def _load_with(
    case: ModalityCase, source: _Source, planes: Planes, way: Way | None = None, fill: float = 0.0
) -> tuple[SensorImage, SensorImage]:
    """Return the image with other planes in one file: as loaded, and as transformed."""
    files = case.copy(case.samples[0].files, "missing")
    path = files[source.name]
    _rewrite(path, planes, nodata=fill if way == "its GDAL_NODATA tag" else None)
    image = case.load(files, nodata=StatedNodata({path: fill} if way == "--nodata" else {}))
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
                "pass ImageFile.valid to SensorImage.from_planes, and let a channel of several planes be valid where "
                "all of their ImageFile.measured are",
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


def _rewrite(path: Path, planes: Planes, *, nodata: float | None = None) -> None:
    """Replace the (P, H, W) planes of a file; the tags of a TIFF are kept, with another GDAL_NODATA if one is given."""
    if path.suffix.lower() not in _TIFF:
        write_image(path, planes)
        return
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        codes = _KEPT_TAGS if nodata is not None else (*_KEPT_TAGS, _GDAL_NODATA)
        tags: list[tuple[int, Any, int | None, Any, bool]] = [
            (tag.code, tag.dtype, tag.count, tag.value, True) for tag in map(page.tags.get, codes) if tag
        ]
        photometric, interleaved, description = page.photometric, page.axes == "YXS", page.description
    if nodata is not None:
        tags.append((_GDAL_NODATA, "s", 0, f"{nodata:.17g}", True))
    several = len(planes) > 1
    tifffile.imwrite(
        path,
        np.moveaxis(planes, 0, 2) if interleaved else planes if several else planes[0],
        photometric=photometric,
        planarconfig=("contig" if interleaved else "separate") if several else None,
        description=description or None,
        metadata=None,
        extratags=tags,
    )
