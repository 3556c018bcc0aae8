"""Near-infrared cameras: one band, and red beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from simmat_plugin_guess.facts import FilesOfKind, Recognition

from simmat import (
    Channel,
    ModalityOptions,
    PathsBySource,
    SensorImage,
    Source,
    Window,
    WindowedAdapter,
)
from simmat.errors import DataError
from simmat.io.images import read_image, require_no_alpha, require_unscaled, write_image
from simmat.types import ImageFile
from simmat_plugin_nir.planes import (
    LOSSLESS,
    NIR,
    RED,
    bits_of,
    read_plane,
    saturated,
    stored,
    with_count_range,
)

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene


class Nir(WindowedAdapter):
    """Counts of a camera behind a filter that passes about 0.75 to 1 um, as stored in the file."""

    name = "nir"
    description = "near-infrared camera, one plane of counts (PNG, TIFF, npy, JPEG; 8 to 32 bits, float)"
    sources = (Source("nir", (".png", ".tif", ".tiff", ".npy", ".jpg", ".jpeg")),)
    channels = (NIR,)

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (1, H, W) counts; DataError if the file has several planes, with what to use instead."""
        image = read_plane(files["nir"], self.name, self.nodata("nir"), window)
        return SensorImage.from_planes(
            image.planes, self.channels, valid=image.valid, origin=str(image.path)
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (1, H, W) 12-bit counts of a silicon camera behind a long-pass filter."""
        from simmat_plugin_nir.camera import counts

        return SensorImage.from_planes(
            counts(scene, ("nir",), rng), self.channels, origin="simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write whole counts up to 65535 as 16 bits, else float32 (TIFF or npy) with NaN where invalid."""
        write_image(files["nir"], stored(image))


NDVI = Channel("ndvi", "vegetation_index", "1", valid_range=(-1.0, 1.0))


class RedNirOptions(ModalityOptions):
    """How the two bands are stored in files."""

    separate_files: bool = Field(
        False,
        description="Each band is in a separate file, not in a plane of one file.",
    )


class RedNir(WindowedAdapter):
    """Red and near-infrared, in two planes of a file or in two files; the network gets red, nir and ndvi.

    A third plane is allowed only if it adds no information: equal to one of the two, or zero everywhere.
    """

    name = "red-nir"
    description = "red and near-infrared, planes 0 and 1 of a file or two files, with NDVI (TIFF, PNG, npy, JPEG)"
    channels = (RED, NIR)

    Options = RedNirOptions
    options: RedNirOptions

    def __init__(self, options: RedNirOptions | None = None) -> None:
        """Make the sensor, with one source or one source per band."""
        super().__init__(options)
        any_format = (*LOSSLESS, ".jpg", ".jpeg")
        self.sources: tuple[Source, ...] = (Source("red-nir", LOSSLESS),)
        if self.options.separate_files:
            self.sources = (Source("red", any_format), Source("nir", any_format))

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (2, H, W) counts, red and nir.

        Raises:
            DataError: a file has another number of planes, a third plane with information, an alpha plane or a scale;
                or two files differ in size or number type.
        """
        if self.options.separate_files:
            return self._two_files(files, window)
        image = read_image(files["red-nir"], self.nodata("red-nir"), window)
        require_unscaled(image, self.name)
        _check_planes(image, whole=window is None)
        return SensorImage.from_planes(
            image.planes[:2],
            [with_count_range(channel, image) for channel in self.channels],
            valid=image.measured[:2],
            origin=str(image.path),
        )

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Take a picture whose third plane repeats one of the first two for red and near-infrared, and ask."""
        repeats = files.planes_are_equal(0, 2) or files.planes_are_equal(1, 2)
        if files.first.planes != 3 or not repeats or files.planes_are_equal(0, 1):
            return None
        return Recognition(
            "likely",
            ("plane 2 repeats another one, so the files hold two bands",),
            questions=(
                "Is plane 0 red and plane 1 near-infrared (from 0)? Otherwise --modality raster --channels 0,1",
            ),
        )

    def transform(self, image: SensorImage) -> SensorImage:
        """Return (3, H, W): red, nir, and ndvi = (nir - red) / (nir + red), Rouse et al. 1974.

        NDVI is invalid where a band is invalid or saturated (two saturated bands would give 0), where red + nir = 0,
        and outside -1 to 1, which only negative counts give.
        """
        data, valid = self.transform_arrays(image.data, image.valid, image.channels, np)
        return replace(
            image,
            data=data.astype(np.float32),
            valid=valid,
            channels=(*image.channels, NDVI),
        )

    def transform_arrays(
        self, data: Any, valid: Any, channels: Sequence[Channel], library: Any
    ) -> tuple[Any, Any]:
        """Compute `transform` (Rouse et al., Monitoring vegetation systems in the Great Plains with ERTS, 1974)."""
        red, nir = data[..., 0, :, :], data[..., 1, :, :]
        total = red + nir
        index = (nir - red) / library.where(total > 0, total, 1.0)
        known = [valid[..., 0, :, :], valid[..., 1, :, :]]
        whole = known[0] & known[1] & (total > 0) & (index >= -1) & (index <= 1)
        for plane, least in zip((red, nir), saturated(channels), strict=True):
            whole = whole & (plane < least)
        index = library.where(whole, index, 0.0)
        return library.stack([red, nir, index], -3), library.stack([*known, whole], -3)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (2, H, W) 12-bit counts of a two-band camera whose bands share one exposure."""
        from simmat_plugin_nir.camera import WHITE, counts

        channels = [
            replace(channel, valid_range=(0.0, WHITE)) for channel in self.channels
        ]
        return SensorImage.from_planes(
            counts(scene, ("red", "nir"), rng), channels, origin="simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write one file of two planes (TIFF or npy) or two files: 16-bit counts if possible, else float32."""
        planes = stored(image)
        names = [source.name for source in self.sources]
        for path, part in zip(
            (Path(files[name]) for name in names),
            np.split(planes, len(names)),
            strict=True,
        ):
            write_image(path, part, description=bits_of(image, path))

    def _two_files(self, files: PathsBySource, window: Window | None) -> SensorImage:
        red, nir = (
            read_plane(files[name], self.name, self.nodata(name), window)
            for name in ("red", "nir")
        )
        for image in (red, nir):
            require_unscaled(image, self.name)
        if red.planes.shape != nir.planes.shape or red.planes.dtype != nir.planes.dtype:
            raise DataError(
                f"{nir.path}: nir is {_kind(nir)}, red is {_kind(red)} ({red.path}); both need the same size and type"
            )
        return SensorImage.from_planes(
            np.concatenate([red.planes, nir.planes]),
            [with_count_range(RED, red), with_count_range(NIR, nir)],
            valid=np.concatenate([red.measured, nir.measured]),
            origin=str(red.path),
        )


def _check_planes(image: ImageFile, *, whole: bool) -> None:
    """Refuse other planes than red, nir and one that adds nothing; in a part red and nir may be equal."""
    count = len(image.planes)
    if image.format == "jpeg":
        raise DataError(
            f"{image.path}: modality 'red-nir' reads PNG, TIFF or npy: a JPEG mixes the planes of a "
            "file; for two JPEG files use --modality-option separate_files=true"
        )
    if count in (2, 3):
        require_no_alpha(image, "red-nir")
    if count == 2 or (count == 3 and _adds_nothing(image, whole=whole)):
        return
    if count == 1:
        advice = "for two files use --modality-option separate_files=true, for near-infrared alone use --modality nir"
    elif count == 3 and _equal(image, 0, 1):
        advice = "its planes are equal, so it holds only one band; use --modality raster --channels 0"
    elif count == 3:
        advice = (
            "its third plane is neither equal to one of them nor zero, so it may be a colour picture; use rgb, "
            "or raster with --channels"
        )
    else:
        advice = "use --modality raster or multispectral, and --channels to pick planes"
    raise DataError(
        f"{image.path}: modality 'red-nir' needs the planes red and nir, got {count}; {advice}"
    )


def _adds_nothing(image: ImageFile, *, whole: bool) -> bool:
    """Return True if the third of three planes equals one of the others, which differ, or is zero everywhere."""
    if whole and _equal(image, 0, 1):
        return False
    return not image.planes[2].any() or _equal(image, 0, 2) or _equal(image, 1, 2)


def _equal(image: ImageFile, one: int, other: int) -> bool:
    return np.array_equal(image.planes[one], image.planes[other])


def _kind(image: ImageFile) -> str:
    height, width = image.planes.shape[1:]
    return f"{width}x{height} {image.planes.dtype}"
