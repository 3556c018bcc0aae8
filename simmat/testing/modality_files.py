"""Checks of a sensor's files: whole, damaged, and with missing pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from simmat.errors import ConfigError, DataError, SimMATError
from simmat.io.images import read_image
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.samples import REWRITABLE, TIFF, ModalityCase, rewrite, scene_number
from simmat.types import Georeference, SensorImage, Window

_ODD_FOLDER = "a folder, ünïcødé 海 (1)"
_FROM_PLANES = "build the image with SensorImage.from_planes, which ensures it"


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
            if planes.shape[1:] != size_hw or file.suffix.lower() not in REWRITABLE:
                return None
            rewrite(whole[name], planes)
            rewrite(cut[name], planes[:, :height, :width])
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
        next((ending for ending in source.extensions if ending in (*TIFF, ".npy")), "")
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
