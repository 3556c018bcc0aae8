"""Checks of a sensor's files: what is loaded of good ones, and that bad ones are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from simmat.errors import ConfigError, SimMATError
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.samples import TIFF, ModalityCase, same_bits, scene_number
from simmat.types import Georeference, Window

_ODD_FOLDER = "a folder, ünïcødé 海 (1)"


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


def loads_what_it_declares(case: ModalityCase) -> None:
    """`load` returns the declared channels at the size of the file, C-contiguous, with something valid in each."""
    files = case.samples[0].files
    image = case.load(files)
    from_planes = "build the image with SensorImage.from_planes, which ensures it"
    for what, array in (("data", image.data), ("valid", image.valid)):
        if not array.flags.c_contiguous:
            raise CheckFailed(f"{what} of shape {array.shape} has strides {array.strides}", from_planes)
    if not np.isfinite(image.data[image.valid]).all():
        raise CheckFailed("pixels that are not finite are marked valid", from_planes)
    for channel, valid in zip(image.channels, image.valid, strict=True):
        if not valid.any():
            raise CheckFailed(
                f"channel {channel.name!r} has no valid pixel", "look at its valid_range, nodata and unit"
            )
    declared, found = ([channel.name for channel in channels] for channels in (case.adapter.channels, image.channels))
    if declared and found != declared:
        raise CheckFailed(
            f"load gave {len(found)} channels {found}, declared are {len(declared)}: {declared}",
            "declare what load returns; leave `channels` empty where only the file can say",
        )
    size_hw = case.size_hw()
    if size_hw not in (None, image.size_hw):
        raise CheckFailed(
            f"a file of (height, width) {size_hw} was loaded as {image.size_hw}",
            "do not crop, pad or resize in load; the core does what the network needs",
        )


def same_file_same_bits(case: ModalityCase) -> None:
    """The same file gives the same bits from any path, and loading neither changes it nor writes another."""
    sample = case.samples[0].files
    image, again = case.load(sample), case.load(sample)
    if not same_bits(image, again):
        raise CheckFailed("loading one file twice gave different pixels or channels", "draw nothing at random in load")
    files = case.copy(sample, _ODD_FOLDER)
    before = _snapshot(case.folder / _ODD_FOLDER)
    try:
        moved = case.load(files)
    except Exception as error:
        raise CheckFailed(
            f"{next(iter(files.values()))} cannot be read: {type(error).__name__}: {error}",
            "pass the Path itself to the library that reads the file; do not split it or turn it into bytes",
        ) from error
    if not same_bits(image, moved):
        raise CheckFailed(f"the pixels depend on the path {_ODD_FOLDER!r}", "read only what the file holds")
    after = _snapshot(case.folder / _ODD_FOLDER)
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


def bad_files_are_refused(case: ModalityCase) -> None:
    """A file that is missing, cut short or of another kind raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        files = case.copy(case.samples[0].files, f"bad {source}")
        whole = files[source].read_bytes()
        for share in (0.9, 0.5, 0.0):
            files[source].write_bytes(whole[: int(len(whole) * share)])
            _expect_refusal(case, files, source, f"cut to {share:.0%} of its {len(whole)} bytes")
        files[source].write_bytes(b"This is a line of plain text, and no sensor wrote it.\n" * 40)
        _expect_refusal(case, files, source, "plain text under the sensor's ending")
        files[source].unlink()
        _expect_refusal(case, files, source, "missing")


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
