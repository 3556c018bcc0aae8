"""`red-nir`: red and near-infrared of one camera, and the vegetation index they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simmat.errors import DataError
from simmat.imageio import ImageFile, read_image, require_no_alpha, require_unscaled, write_image
from simmat.modality import ModalityAdapter, Source
from simmat.types import BoolArray, Channel, FloatArray, SensorImage
from simmat_plugin_nir.planes import LOSSLESS, NIR, RED, bits_of, full, read_plane, stored, within

if TYPE_CHECKING:
    from simmat.scene import Scene

NDVI = Channel("ndvi", "vegetation_index", "1", valid_range=(-1.0, 1.0))


class RedNir(ModalityAdapter):
    """A file of two planes, red and then near-infrared; the network gets red, nir and ndvi.

    A third plane is taken only where it adds nothing: equal to one of the two, or zero throughout.
    """

    name = "red-nir"
    description = "red and near-infrared in planes 0 and 1 of a file, with NDVI (TIFF, PNG, npy)"
    sources: tuple[Source, ...] = (Source("red-nir", LOSSLESS),)
    channels = (RED, NIR)

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read (2, H, W) counts, red and nir.

        Raises:
            DataError: the file has another number of planes, or a third one with something in it, or an alpha plane, or
                states a scale.
        """
        image = read_image(files["red-nir"])
        require_unscaled(image, self.name)
        _check_planes(image)
        return SensorImage.from_planes(
            image.planes[:2],
            [within(channel, image) for channel in self.channels],
            valid=image.measured[:2],
            origin=str(image.path),
        )

    def transform(self, image: SensorImage) -> SensorImage:
        """Return (3, H, W): red, nir, and ndvi = (nir - red) / (nir + red), Rouse et al. 1974.

        It is invalid where either is, where either is full (two saturated bands would give 0), where nothing was
        received (red + nir = 0), and beyond -1 to 1, which only negative counts give.
        """
        index, valid = ndvi(image.data[0], image.data[1])
        whole = valid & (image.valid & ~full(image)).all(axis=0)
        return SensorImage.from_planes(
            np.concatenate([image.data, index[None]]),
            (*image.channels, NDVI),
            valid=np.concatenate([image.valid, whole[None]]),
            origin=image.origin,
            georeference=image.georeference,
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (2, H, W) 12-bit counts of a two-band camera whose bands share one exposure."""
        from simmat_plugin_nir.camera import WHITE, counts

        channels = [replace(channel, valid_range=(0.0, WHITE)) for channel in self.channels]
        return SensorImage.from_planes(counts(scene, ("red", "nir"), rng), channels, origin="simulated")

    def save(self, image: SensorImage, files: Mapping[str, Path]) -> None:
        """Write a TIFF or npy of two planes: 16-bit counts where they are such, else float32."""
        path = Path(files["red-nir"])
        write_image(path, stored(image), description=bits_of(image, path))


class RedNirFiles(RedNir):
    """The same sensor with a file for each band."""

    name = "red-nir-files"
    variant_of = "red-nir"
    description = "red and near-infrared, one file each, with NDVI (TIFF, PNG, npy, JPEG)"
    sources = (
        Source("red", (*LOSSLESS, ".jpg", ".jpeg")),
        Source("nir", (*LOSSLESS, ".jpg", ".jpeg")),
    )

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read (2, H, W) counts; files of different sizes or number types, or that state a scale, raise DataError."""
        red, nir = (read_plane(files[name], self.name) for name in ("red", "nir"))
        for image in (red, nir):
            require_unscaled(image, self.name)
        if red.planes.shape != nir.planes.shape or red.planes.dtype != nir.planes.dtype:
            raise DataError(
                f"{nir.path}: nir is {_kind(nir)}, red is {_kind(red)} ({red.path}); both must have one size and type"
            )
        return SensorImage.from_planes(
            np.concatenate([red.planes, nir.planes]),
            [within(RED, red), within(NIR, nir)],
            valid=np.concatenate([red.measured, nir.measured]),
            origin=str(red.path),
        )

    def save(self, image: SensorImage, files: Mapping[str, Path]) -> None:
        """Write one file for each band."""
        planes = stored(image)
        for index, name in enumerate(("red", "nir")):
            path = Path(files[name])
            write_image(path, planes[index : index + 1], description=bits_of(image, path))


def ndvi(red: FloatArray, nir: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return (H, W) normalized difference vegetation index, and where it is defined; 0 elsewhere.

    Source: Rouse, Haas, Schell and Deering, Monitoring vegetation systems in the Great Plains with ERTS, 1974.
    """
    total = red + nir
    valid = total > 0
    index = np.divide(nir - red, total, out=np.zeros_like(total), where=valid)
    return index, valid & (np.abs(index) <= 1)


def _check_planes(image: ImageFile) -> None:
    count = len(image.planes)
    if image.format == "jpeg":
        raise DataError(
            f"{image.path}: modality 'red-nir' reads PNG, TIFF or npy: a JPEG mixes the planes of a "
            "file; for a JPEG a band use red-nir-files"
        )
    if count in (2, 3):
        require_no_alpha(image, "red-nir")
    if count == 2 or (count == 3 and _adds_nothing(image)):
        return
    if count == 1:
        advice = "for a file a band use --modality red-nir-files, for near-infrared alone nir"
    elif count == 3 and _equal(image, 0, 1):
        advice = "its planes are equal, so it holds one band: use --modality raster --channels 0"
    elif count == 3:
        advice = (
            "its third plane is neither equal to one of them nor zero, so it may be a colour picture: use rgb, "
            "or raster with --channels"
        )
    else:
        advice = "use --modality raster or multispectral, and --channels to pick planes"
    raise DataError(f"{image.path}: modality 'red-nir' needs the planes red and nir, got {count}; {advice}")


def _adds_nothing(image: ImageFile) -> bool:
    """True where the third of three planes repeats one of two different ones, or is empty."""
    if _equal(image, 0, 1):
        return False
    return not image.planes[2].any() or _equal(image, 0, 2) or _equal(image, 1, 2)


def _equal(image: ImageFile, one: int, other: int) -> bool:
    return np.array_equal(image.planes[one], image.planes[other])


def _kind(image: ImageFile) -> str:
    height, width = image.planes.shape[1:]
    return f"{width}x{height} {image.planes.dtype}"
