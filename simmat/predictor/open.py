"""The images that a predictor takes: files, arrays and images in memory, whole, in parts, or small as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.bundle import Bundle, check_sensor_channels
from simmat.data.card import DataCard
from simmat.drawing.display import PictureArray, display_channels, show_channels
from simmat.errors import BundleError, ConfigError, DataError, SimMATError, all_problems
from simmat.geo import geo_backend, read_georeference
from simmat.io.limits import decoding_errors
from simmat.io.paths import shown_url, url_of
from simmat.io.tiff import open_tifffile, states_georeference
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.sensors.channel_selection import absent_sources, load_without, pick_channels
from simmat.sensors.normalize import describe
from simmat.types import (
    Channel,
    Georeference,
    ImageReader,
    OverviewReader,
    SensorImage,
    Window,
    same_channels,
)

PICTURE_PX = 2048
"""Longest side of a picture in pixels."""
PART_PX = 512
"""Side of the parts in which an image is read."""

ImageFiles = Mapping[str, Path | str]
"""Source name -> file."""
ImageLike = Path | str | ImageFiles | SensorImage | npt.NDArray[np.generic]
"""What a predictor takes as an image, see `Predictor.set_image`."""


class NoValidPixelsError(DataError):
    """No pixel of an image holds a measurement."""


@dataclass(frozen=True)
class FileImage:
    """An image whose files are read in parts, see `load_files`.

    Attributes:
        adapter: the sensor.
        files: source name -> file.
        size_hw: (height, width) in pixels.
        channels: C channels of the sensor's images.
        missing: names of those that the files lack.
        georeference: of the whole image, where a file states it.
        pixel_size_um: (height, width) of a pixel in micrometres, where a file states it.
    """

    adapter: ModalityAdapter
    files: Mapping[str, Path]
    size_hw: tuple[int, int]
    channels: tuple[Channel, ...]
    missing: frozenset[str]
    georeference: Georeference | None = None
    pixel_size_um: tuple[float, float] | None = None

    @property
    def origin(self) -> str:
        """The first file."""
        return str(next(iter(self.files.values())))

    def read(self, window: Window) -> SensorImage:
        """Read a part of the files."""
        return load_files(self.adapter, self.files, self.channels, self.missing, window)


def load_files(
    adapter: ModalityAdapter,
    files: Mapping[str, Path],
    channels: tuple[Channel, ...],
    missing: frozenset[str],
    window: Window | None = None,
) -> SensorImage:
    """Load the files of an image, or a window of them.

    Args:
        adapter: the sensor.
        files: source name -> file.
        channels: C channels of the sensor's images; empty if only a file states them and none is missing.
        missing: names of the channels that the files lack, which have no valid pixel.
        window: part of the image; None for all of it.
    """
    if missing:
        return load_without(adapter, files, channels, missing, window)
    return load_sample(adapter, files, window)


class _Tile(NamedTuple):
    """A tile of a mosaic.

    Attributes:
        reader: reads parts of it.
        channels: C channels.
        types: of its stored numbers, such as "uint8"; "" if they are not known.
    """

    reader: ImageReader
    channels: tuple[Channel, ...]
    types: str

    def check_fits(self, first: _Tile) -> None:
        """Raise DataError if it has other channels than another tile, or counts that are probably scaled otherwise."""
        if not same_channels(self.channels, first.channels):
            raise DataError(
                f"{self.reader.origin}: has other channels than {first.reader.origin}"
            )
        has_counts = any(channel.unit == "count" for channel in self.channels)
        if has_counts and self.types and first.types and self.types != first.types:
            raise DataError(
                f"{self.reader.origin}: stores its counts as {self.types}, {first.reader.origin} as {first.types}, "
                "which are probably on different scales; save all tiles in one type"
            )


class ImageLoader:
    """The images that a predictor takes: those of a sensor, with the channels and the data card of a bundle.

    Attributes:
        adapter: the sensor.
        channels: C of the sensor's images; empty if only a file states them.
        card: data card of the bundle, or that for which the sensor of an untuned model is configured.
    """

    def __init__(
        self,
        adapter: ModalityAdapter,
        bundle: Bundle | None,
        card: DataCard | None = None,
    ) -> None:
        self.adapter = adapter
        self._bundle = bundle
        self.channels = adapter.channels
        self.card = card or DataCard(regions="instances")
        if bundle is not None:
            self.channels = bundle.spec.sensor_channels
            self.card = bundle.spec.card

    def load(self, image: ImageLike, missing: Sequence[str | int]) -> SensorImage:
        """Load an image that `Predictor.set_image` takes, and check its channels and that something is measured."""
        names = self.missing_channels(missing)
        if isinstance(image, np.ndarray):
            image = self._from_array(image)
        elif isinstance(image, str | Path | Mapping):
            reader = self._load_or_open(self._files_of(image, names), names, math.inf)
            image = reader.read(Window(0, 0, *reader.size_hw))
        elif not isinstance(image, SensorImage):
            raise TypeError(
                f"set_image takes a file, {{source: file}}, a SensorImage or an array, got {type(image).__name__}; "
                "convert it to an array, planes first: (C, H, W), not (H, W, C)"
            )
        check_channels(self._bundle, image)
        if not image.valid.any():
            message = f"{image.origin}: no pixel holds a measurement, so there is nothing to segment"
            ranges = [
                range_of(channel)
                for channel in image.channels
                if channel.valid_range is not None
            ]
            if ranges:
                message += f"; valid are {', '.join(ranges)}"
            raise NoValidPixelsError(message)
        return image

    def reader(
        self, image: ImageLike, missing: Sequence[str | int], max_loaded_side: int
    ) -> ImageReader:
        """Load an image, or open one that is too large if its files can be read in parts.

        Args:
            image: what `Predictor.set_image` takes.
            missing: as for `missing_channels`.
            max_loaded_side: longest side in pixels of an image that is not too large.
        """
        if not isinstance(image, str | Path | Mapping):
            return self.load(image, missing)
        names = self.missing_channels(missing)
        return self._load_or_open(self._files_of(image, names), names, max_loaded_side)

    def mosaic(
        self, tiles: Sequence[Path | str | ImageFiles], missing: Sequence[str | int]
    ) -> ImageReader:
        """Open georeferenced files of one map as one image; see `Predictor.open_mosaic`.

        Raises:
            DataError: some files cannot be read or do not fit together; the message names all of them.
        """
        backend = geo_backend("a mosaic")
        names = self.missing_channels(missing)
        opened_tiles: list[_Tile] = []
        problems: list[str] = []
        for tile in tiles:
            try:
                one = self._open_tile(tile, names)
                opened_tiles.append(one)
                one.check_fits(opened_tiles[0])
            except SimMATError as error:
                problems.append(str(error))
        if not opened_tiles and not problems:
            problems = ["there are none"]
        if problems:
            raise DataError(all_problems("a mosaic needs all its tiles:", problems))
        return backend.open_mosaic([one.reader for one in opened_tiles])

    def _open_tile(
        self, tile: Path | str | ImageFiles, missing: frozenset[str]
    ) -> _Tile:
        """Open a tile of a mosaic, of any size; ConfigError if its files cannot be read in parts."""
        files = self._files_of(tile, missing)
        is_remote = any(map(url_of, files.values()))
        if not is_remote and self.adapter.window_size(files) is None:
            raise ConfigError(
                f"{tile}: modality {self.adapter.name!r} cannot read parts of it; tiles of a mosaic are TIFF"
            )
        reader = self._load_or_open(files, missing, max_loaded_side=0)
        return _Tile(
            reader, reader.read(Window(0, 0, 1, 1)).channels, _stored_types(files)
        )

    def _load_or_open(
        self, files: Mapping[str, Path], missing: frozenset[str], max_loaded_side: float
    ) -> ImageReader:
        """Open an image that is too large and can be read in parts; load any other one.

        Args:
            files: source name -> file.
            missing: names of the channels that the files lack.
            max_loaded_side: longest side in pixels of an image that is not too large; infinity loads every image, 0
                opens every one that can be read in parts.
        """
        if any(map(url_of, files.values())):
            reader = self._open_url(files, missing)
            if max(reader.size_hw) > max_loaded_side:
                return reader
            return reader.read(Window(0, 0, *reader.size_hw))
        size_hw = None
        if max_loaded_side != math.inf:
            size_hw = self.adapter.window_size(files)
        if size_hw is None or max(size_hw) <= max_loaded_side:
            return self._load_georeferenced(files, missing, None)
        corner = self._load_georeferenced(files, missing, Window(0, 0, 1, 1))
        check_channels(self._bundle, corner)
        return FileImage(
            self.adapter,
            files,
            size_hw,
            self.channels,
            missing,
            corner.georeference,
            corner.pixel_size_um,
        )

    def _load_georeferenced(
        self, files: Mapping[str, Path], missing: frozenset[str], window: Window | None
    ) -> SensorImage:
        """Load files, or a window of them, with the georeference of the first source."""
        image = load_files(self.adapter, files, self.channels, missing, window)
        reference = files.get(self.adapter.sources[0].name)
        if (
            image.georeference is None
            and reference is not None
            and states_georeference(reference)
        ):
            image = replace(image, georeference=read_georeference(reference))
        return image

    def _open_url(
        self, files: Mapping[str, Path], missing: frozenset[str]
    ) -> ImageReader:
        """Open the one file of an image at a URL, of which the geo backend downloads the parts that are read."""
        (source, path), *others = files.items()
        if others:
            raise ConfigError(
                f"{shown_url(path)}: a sensor with several files is not read by URL; download them first"
            )
        backend = geo_backend(f"{shown_url(path)}: reading a URL")

        # the backend writes each part as a file of its own
        def load(part: Path) -> SensorImage:
            size_hw = self.adapter.window_size({source: part})
            if size_hw is None:
                raise ConfigError(
                    f"{part}: modality {self.adapter.name!r} needs whole files; download it first"
                )
            return load_files(
                self.adapter,
                {source: part},
                self.channels,
                missing,
                Window(0, 0, *size_hw),
            )

        remote = backend.open_url(str(url_of(path)), load)
        check_channels(self._bundle, remote.read(Window(0, 0, 1, 1)))
        return remote

    def missing_channels(self, missing: Sequence[str | int]) -> frozenset[str]:
        """Return the names of the sensor's channels that an image lacks.

        Args:
            missing: names, 0-based indices or wavelengths of channels, as for `--channels`.

        Raises:
            ConfigError: there is no such channel, none is left, or the transfer layer needs them all.
        """
        if not missing:
            return frozenset()
        if self._bundle is None:
            raise ConfigError(
                "an untuned model needs all its channels; only a bundle of channel-attention can lack one"
            )
        path = self._bundle.path
        transfer = self._bundle.parts.transfer
        if not transfer.supports_missing_channels:
            raise ConfigError(
                f"{path} was trained with transfer layer {transfer.name!r}, which needs all its channels; only "
                "a bundle trained with --mat channel-attention works without one"
            )
        picked = pick_channels(self.channels, missing, origin="--missing")
        names = frozenset(self.channels[index].name for index in picked)
        used = self._bundle.spec.channels
        if (
            len(names) == len(self.channels)
            or {channel.name for channel in used} <= names
        ):
            raise ConfigError(
                f"--missing leaves no channel: {path} has {describe(used)}"
            )
        return names

    def optional_sources(self, missing: frozenset[str]) -> tuple[str, ...]:
        """Return the sources whose channels are all missing, so that they need no file."""
        if not missing:
            return ()
        return absent_sources(self.adapter, self.channels, missing)

    def _files_of(
        self, image: Path | str | ImageFiles, missing: frozenset[str]
    ) -> dict[str, Path]:
        """Return source name -> file, after checking that the sensor needs these sources."""
        sources = self.adapter.source_names()
        optional = self.optional_sources(missing)
        if not isinstance(image, Mapping):
            if len(sources) > 1:
                wanted = ", ".join(f"{source!r}: …" for source in sources)
                raise TypeError(
                    f"modality {self.adapter.name!r} needs several files, {{{wanted}}}; got {str(image)!r}"
                )
            image = {sources[0]: image}
        files = {source: Path(file) for source, file in image.items()}
        # those of missing channels may be left out
        needed = set(sources) - set(optional)
        if not needed <= set(files) <= set(sources):
            got = ", ".join(files) or "none"
            raise TypeError(
                f"modality {self.adapter.name!r} has the sources {', '.join(sources)}; got {got}"
            )
        for file in files.values():
            if file.suffix.lower() == ".vrt":
                raise DataError(
                    f"{file}: VRT files are not read, because they may name any file or address; give the files "
                    "that it names, with --mosaic if they are tiles of one map (Predictor.open_mosaic), or "
                    "make a GeoTIFF of it "
                    "(gdal_translate)"
                )
        return files

    def _from_array(self, planes: npt.NDArray[np.generic]) -> SensorImage:
        """Return (C, H, W) planes, or (H, W) of one channel, as an image; ValueError for another number of planes."""
        name = self.adapter.name
        channels = self.channels
        if planes.ndim == 2 and len(channels) == 1:
            planes = planes[None]  # (1, H, W)
        if planes.ndim != 3 or (channels and len(planes) != len(channels)):
            wanted = "(C, H, W)"
            if channels:
                wanted = f"({len(channels)}, H, W) of {describe(channels)}"
            advice = ""
            if planes.ndim == 3 and planes.shape[-1] == len(channels):
                advice = "; put the channels first: array.transpose(2, 0, 1)"
            raise ValueError(
                f"modality {name!r} takes an array {wanted}; got shape {planes.shape}{advice}"
            )
        if not channels:
            raise ValueError(
                f"modality {name!r} learns its channels from files; give a SensorImage"
            )
        image = SensorImage.from_planes(planes, channels, origin="array")
        check_units(image, planes)
        return image


def check_channels(bundle: Bundle | None, image: SensorImage) -> None:
    """Raise BundleError if an image has other channels than a bundle; suggest `--missing` if that would help."""
    if bundle is None:
        return
    channels = bundle.spec.sensor_channels
    try:
        check_sensor_channels(bundle.spec, image.channels, image.origin, bundle.path)
    except BundleError as error:
        found = {channel.name for channel in image.channels}
        expected = {channel.name for channel in channels}
        if not (found < expected and bundle.parts.transfer.supports_missing_channels):
            raise
        missing = ",".join(
            channel.name for channel in channels if channel.name not in found
        )
        raise BundleError(
            f"{error}. If these are all its channels: --missing {missing}"
        ) from None


def check_units(image: SensorImage, planes: npt.NDArray[np.generic]) -> None:
    """Refuse an array that is in another unit: most of its numbers, and of its different numbers, are out of range.

    A fill value is one number, however often it occurs.

    Args:
        image: (C, H, W) made of `planes`.
        planes: (C, H, W) before anything became invalid.
    """
    for channel, plane, valid in zip(image.channels, planes, image.valid, strict=True):
        finite = plane[np.isfinite(plane)]
        outside = plane[np.isfinite(plane) & ~valid]
        if 2 * outside.size <= finite.size:
            continue
        if np.unique(outside).size > max(np.unique(plane[valid]).size, 1):
            raise DataError(
                f"{image.origin}: most of its numbers are out of the range of {range_of(channel)}; they are "
                f"{finite.min():.6g} to {finite.max():.6g}. An array must be in the channels' units, whatever the unit "
                "of the files: convert it, give the file, or give a SensorImage whose channel has another unit"
            )


def range_of(channel: Channel) -> str:
    """Name a channel with its valid range: "thermal, 150 to 2500 K"."""
    low, high = channel.valid_range or (-math.inf, math.inf)
    return f"{channel.name}, {low:g} to {high:g} {channel.unit}"


def _stored_types(files: Mapping[str, Path]) -> str:
    """Return the types of the numbers in TIFF files, such as "uint8"; "" for other files and URLs."""
    types = []
    for path in files.values():
        if path.suffix.lower() in (".tif", ".tiff") and not url_of(path):
            with decoding_errors(path, "tiff"), open_tifffile(path) as tiff:
                types.append(str(tiff.pages[0].aspage().dtype))
    return ", ".join(types)


def picture_of(reader: ImageReader) -> PictureArray:
    """Return an image as a picture (h, w, 3) of at most `PICTURE_PX` on its longer side; only shown bands are read."""
    channels = reader.read(Window(0, 0, 1, 1)).channels
    shown = display_channels(channels)
    selected = sorted(set(shown))
    if isinstance(reader, FileImage):
        reader = replace(reader, adapter=reader.adapter.with_channels(selected))
    step = math.ceil(max(reader.size_hw) / PICTURE_PX)
    if isinstance(reader, OverviewReader):
        whole = Window(0, 0, *reader.size_hw)
        small = reader.read_overview(whole, step).select(selected)
    else:
        small = _read_small(reader, selected, step)
    return show_channels(small, [selected.index(index) for index in shown])


def _read_small(reader: ImageReader, selected: Sequence[int], step: int) -> SensorImage:
    """Return every step-th pixel of some channels of an image, which is read in parts."""
    height, width = reader.size_hw
    # a multiple of the step, so that each part begins with a pixel that is kept
    side = max(PART_PX // step, 1) * step
    # (C, h, w)
    data = np.zeros(
        (len(selected), math.ceil(height / step), math.ceil(width / step)), np.float32
    )
    valid = np.zeros(data.shape, np.bool_)
    for y in range(0, height, side):
        for x in range(0, width, side):
            part = reader.read(
                Window(y, x, min(y + side, height), min(x + side, width))
            )
            rows = slice(y // step, (y + side) // step)
            columns = slice(x // step, (x + side) // step)
            data[:, rows, columns] = part.data[selected, ::step, ::step]
            valid[:, rows, columns] = part.valid[selected, ::step, ::step]
    return SensorImage(data, valid, tuple(part.channels[index] for index in selected))
