"""Sensors: how they read files, whole and damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, SimMATError
from simmat.io.images import read_image, write_image
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.samples import ModalityCase, Sample, scene_number
from simmat.types import SensorImage

_TIFF = (".tif", ".tiff")
_NODATA = 42113  # GDAL_NODATA
_KEPT = (33550, 33922, 34264, 34735, 34736, 34737, 42112)  # OGC GeoTIFF 1.1, GDAL_METADATA


def can_be_rewritten(path: Path) -> bool:
    """True for the formats that keep numbers as they are."""
    return path.suffix.lower() in (*_TIFF, ".png", ".npy")


def rewrite(path: Path, planes: npt.NDArray[Any], *, nodata: float | None = None) -> None:
    """Write other planes over those of a file.

    Args:
        path: the file.
        planes: (P, H, W) of its type.
        nodata: of a TIFF: the number that it calls missing from now on; None leaves what it says.
    """
    if path.suffix.lower() not in _TIFF:
        write_image(path, planes)
        return
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        kept = [tag for tag in map(page.tags.get, _KEPT if nodata is not None else (*_KEPT, _NODATA)) if tag]
        tags: list[tuple[int, Any, int | None, Any, bool]] = [
            (tag.code, tag.dtype, tag.count, tag.value, True) for tag in kept
        ]
        photometric, interleaved, description = page.photometric, page.axes == "YXS", page.description
    if nodata is not None:
        tags.append((_NODATA, "s", 0, f"{nodata:.17g}", True))
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


_ODD_FOLDER = "a folder, ünïcødé 海 (1)"


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
    for index, channel in enumerate(image.channels):
        if not image.valid[index].any():
            raise CheckFailed(
                f"channel {channel.name!r} has no valid pixel", "look at its valid_range, nodata and unit"
            )


def loads_its_own_channels(case: ModalityCase) -> None:
    """A loaded image has the channels that the sensor declares: as many, of the same names, in the same order."""
    declared = case.adapter.channels
    if not declared:
        raise CheckSkipped("the sensor leaves its channels to the file")
    found = [channel.name for channel in case.load(case.samples[0].files).channels]
    wanted = [channel.name for channel in declared]
    if found != wanted:
        raise CheckFailed(
            f"load gave {len(found)} channels {found}, declared are {len(wanted)}: {wanted}",
            "declare what load returns; leave `channels` empty where only the file can say",
        )


def takes_any_path(case: ModalityCase) -> None:
    """Files are read from paths with spaces, brackets and letters of any script."""
    sample = case.samples[0]
    files = case.copy(sample, _ODD_FOLDER)
    try:
        image = case.load(files)
    except Exception as error:
        raise CheckFailed(
            f"{next(iter(files.values()))} cannot be read: {type(error).__name__}: {error}",
            "hand the Path itself to the library that reads the file; do not split it or turn it into bytes",
        ) from error
    if not same_bits(image, case.load(sample.files)):
        raise CheckFailed(f"the pixels depend on the path {_ODD_FOLDER!r}", "read only what the file holds")


def keeps_odd_sizes(case: ModalityCase) -> None:
    """An image of odd height and width comes back at the size of its reference file, or is refused as such."""
    sample = case.samples[0]
    if case.odd_refusal:
        raise CheckSkipped(f"the sensor refuses odd sizes: {case.odd_refusal}")
    if sample.simulated is not None:
        _expect_size(sample.simulated.size_hw, case.load(sample.files).size_hw)
        return
    try:
        planes = read_image(sample.files[case.adapter.source_names()[0]]).planes
    except DataError as error:
        raise CheckSkipped("nobody but the sensor can read the size of the given file") from error
    wanted = (int(planes.shape[1]), int(planes.shape[2]))
    _expect_size(wanted, case.load(sample.files).size_hw)
    if wanted[0] % 2 == 0 or wanted[1] % 2 == 0:
        _expect_odd_size(case, sample, wanted)


def _expect_size(wanted: tuple[int, int], found: tuple[int, int]) -> None:
    if found != wanted:
        raise CheckFailed(
            f"a file of {wanted[0]} rows and {wanted[1]} columns was loaded as {found[0]} x {found[1]}",
            "do not crop, pad or resize in load; the core does what the network needs",
        )


def _expect_odd_size(case: ModalityCase, sample: Sample, size_hw: tuple[int, int]) -> None:
    """Ask again with the given files cut to an odd height and width, where they can be written anew."""
    even = CheckSkipped(f"the sample is {size_hw[0]} x {size_hw[1]}: give one of odd height and width")
    whole, cut = case.copy(sample, "even"), case.copy(sample, "odd")
    height, width = (side - (side % 2 == 0) for side in size_hw)
    for name, file in sample.files.items():
        try:
            planes = read_image(file).planes
        except DataError:
            raise even from None
        if planes.shape[1:] != size_hw or not can_be_rewritten(file):
            raise even
        rewrite(whole[name], planes)
        rewrite(cut[name], planes[:, :height, :width])
    try:
        kept = same_bits(case.load(whole), case.load(sample.files))
    except SimMATError:
        kept = False
    if not kept:
        raise even  # the files say more than their planes, which is lost in writing them anew
    try:
        image = case.load(cut)
    except DataError as error:
        raise CheckSkipped(f"the sensor refuses odd sizes: {error}") from error
    _expect_size((height, width), image.size_hw)


def same_file_same_bits(case: ModalityCase) -> None:
    """The same file gives the same bits every time."""
    files = case.samples[0].files
    if not same_bits(case.load(files), case.load(files)):
        raise CheckFailed("loading one file twice gave different pixels or channels", "draw nothing at random in load")


def writes_nothing(case: ModalityCase) -> None:
    """Loading leaves no file beside the sample and does not touch the sample itself."""
    files = case.copy(case.samples[0], "untouched")
    folder = case.folder / "untouched"
    before = _snapshot(folder)
    case.load(files)
    after = _snapshot(folder)
    if changed := sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path)):
        raise CheckFailed(
            f"load wrote, changed or removed {', '.join(changed)}", "keep what load computes in memory, or in a cache"
        )


def simulation_is_seeded(case: ModalityCase) -> None:
    """`simulate` draws all its noise from the generator it is given: the same seed gives the same image."""
    try:
        one, two = (case.adapter.simulate(scene_number(0), np.random.default_rng(5)) for _ in range(2))
    except ConfigError as error:
        raise CheckSkipped(str(error)) from error
    if not same_bits(one, two):
        raise CheckFailed("one scene and one seed gave two different images", "draw from `rng` alone")
    if one.size_hw != scene_number(0).size_hw:
        raise CheckFailed(
            f"a scene of {scene_number(0).size_hw} was seen as {one.size_hw}", "simulate on the scene's pixel grid"
        )


def same_bits(one: SensorImage, other: SensorImage) -> bool:
    """True where two images are equal, bit for bit, channels included."""
    return (
        one.channels == other.channels
        and np.array_equal(one.valid, other.valid)
        and np.array_equal(one.data, other.data, equal_nan=True)
    )


_FROM_PLANES = "build the image with SensorImage.from_planes, which sees to it"


def _snapshot(folder: Path) -> dict[Path, tuple[int, str]]:
    """Return every file below a folder with its time of change and the digest of its bytes."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


_CUTS = (0.0, 0.5, 0.9)
_NO_IMAGE = b"This is a line of plain text, and no sensor wrote it.\n" * 40


def missing_files_are_refused(case: ModalityCase) -> None:
    """A missing file raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        files = case.copy(case.samples[0], f"missing {source}")
        files[source].unlink()
        _expect_refusal(case, files, source, "missing")


def truncated_files_are_refused(case: ModalityCase) -> None:
    """A file that was cut short raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        for cut in _CUTS:
            files = case.copy(case.samples[0], f"cut {source} {cut}")
            whole = files[source].read_bytes()
            files[source].write_bytes(whole[: int(len(whole) * cut)])
            _expect_refusal(case, files, source, f"cut to {cut:.0%} of its {len(whole)} bytes")


def wrong_files_are_refused(case: ModalityCase) -> None:
    """A file of another kind under the right name raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        files = case.copy(case.samples[0], f"wrong {source}")
        files[source].write_bytes(_NO_IMAGE)
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
            f"source {source!r} was {state}; load returned an image of {image.data.shape} all the same",
            "check the size of the file and what its header says, and raise simmat.errors.DataError",
        )
