"""`multispectral` and its variants: bands of a GeoTIFF in reflectance or in the file's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError
from simmat.imageio.georeference import write_mask
from simmat.modality import ModalityAdapter, Source
from simmat.types import BoolArray, Channel, FloatArray, Georeference, SensorImage
from simmat_plugin_multispectral.bands import (
    LANDSAT8,
    SENTINEL2,
    NamedBand,
    Satellite,
    bands_of_file,
    bands_of_satellite,
)
from simmat_plugin_multispectral.geotiff import BandTags, GeoTiff, read_geotiff, write_geotiff

if TYPE_CHECKING:
    from simmat.scene import Scene

REFLECTANCE = "reflectance"
_STORED_SCALE, _STORED_NODATA = 1e-4, -32768
_MOST_REFLECTANCE = 2  # of a glint, in a file that holds reflectance itself
_SURELY = 9
_ENOUGH = 100_000  # numbers of a band, evenly spread


class Multispectral(ModalityAdapter):
    """Every band of a GeoTIFF, named and scaled as the file itself says.

    Where a band states a scale or an offset its values are stored * scale + offset, in the unit it states; a band that
    states neither is counts. The file's nodata value, mask or alpha band makes pixels invalid, band by band.
    """

    name = "multispectral"
    description = "bands of a GeoTIFF, named and scaled as the file says, else counts; pick with --channels"
    sources = (Source("multispectral", (".tif", ".tiff")),)

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read (C, H, W) of all bands, with the file's georeference."""
        return self.image(read_geotiff(Path(files["multispectral"])))

    def image(self, file: GeoTiff) -> SensorImage:
        """Return (C, H, W) of all bands of a file."""
        named = self.bands(file)
        values = np.stack([self.scaled(file, index) for index in range(len(named))])
        channels = tuple(self.channel(band, tags) for band, tags in zip(named, file.bands, strict=True))
        return SensorImage.from_planes(
            values, channels, valid=self.valid(file), origin=str(file.path), georeference=file.georeference
        )

    def bands(self, file: GeoTiff) -> tuple[NamedBand, ...]:
        """Name each band."""
        return bands_of_file(file.bands, file.path)

    def scaled(self, file: GeoTiff, index: int) -> FloatArray:
        """Return (H, W) values of one band."""
        tags = file.bands[index]
        return _linear(file, index, tags.scale, tags.offset)

    def valid(self, file: GeoTiff) -> BoolArray:
        """Return (C, H, W) where something was measured."""
        return file.valid

    def channel(self, band: NamedBand, tags: BandTags) -> Channel:
        """Describe one band by what the file states."""
        if tags.unit.lower() == REFLECTANCE:
            quantity, unit = REFLECTANCE, "1"
        elif tags.unit and tags.unit != "1":
            quantity, unit = "measured", tags.unit
        elif tags.unit or (tags.scale, tags.offset) != (1.0, 0.0):
            quantity, unit = "scaled", "1"
        else:
            quantity, unit = "counts", "count"
        return Channel(band.name, quantity, unit, wavelength_um=band.wavelength_um)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (6, H, W) apparent reflectance of blue, green, red, nir, swir1 and swir2."""
        from simmat_plugin_multispectral.camera import WAVELENGTHS_UM, apparent_reflectance

        channels = [Channel(name, REFLECTANCE, "1", wavelength_um=micron) for name, micron in WAVELENGTHS_UM.items()]
        return SensorImage.from_planes(apparent_reflectance(scene, rng), channels, origin="simulated")

    def save(self, image: SensorImage, files: Mapping[str, Path]) -> None:
        """Write a GeoTIFF that says what its bands are: reflectance as 16-bit DN of 1/10000, all else as float32."""
        tags = [
            BandTags(
                channel.name,
                REFLECTANCE if channel.quantity == REFLECTANCE else "" if channel.unit == "count" else channel.unit,
                _STORED_SCALE if channel.quantity == REFLECTANCE else 1.0,
                0.0,
                {"WAVELENGTH_UM": f"{channel.wavelength_um:g}"} if channel.wavelength_um else None,
            )
            for channel in image.channels
        ]
        if all(channel.quantity == REFLECTANCE for channel in image.channels):
            whole = np.rint(image.data.astype(np.float64) / _STORED_SCALE).clip(-32767, 32767)
            planes, nodata = np.where(image.valid, whole, _STORED_NODATA).astype(np.int16), float(_STORED_NODATA)
        else:
            tags = [BandTags(tag.description, tag.unit, tags=tag.tags) for tag in tags]
            planes, nodata = np.where(image.valid, image.data, np.float32(np.nan)), float("nan")
        write_geotiff(Path(files["multispectral"]), planes, bands=tags, nodata=nodata, georeference=image.georeference)

    def save_mask(self, mask: BoolArray, georeference: Georeference, path: Path) -> Path:
        """Write `path`.tif: one 8-bit band, 1 in the mask and 0 outside, with the image's coordinate system."""
        return write_mask(mask, georeference, path)


class StatedReflectance(Multispectral):
    """Files of reflectance whose scale the user states, because the file does not.

    A file that states another scale is refused, and so is one that seems to be scaled already.
    """

    def __init__(
        self,
        name: str,
        description: str,
        scale: float,
        offset: float = 0.0,
        satellite: Satellite | None = None,
        nodata: float | None = None,
    ) -> None:
        """Make the variant `name`: reflectance = stored * scale + offset; `nodata` is the product's own fill value."""
        self.name = name
        self.description = description
        self.variant_of = {"multispectral-10000": "multispectral", "sentinel2-offset": "sentinel2"}.get(name, "")
        self.scale, self.offset, self.satellite, self.nodata = scale, offset, satellite, nodata

    def image(self, file: GeoTiff) -> SensorImage:
        """Return (C, H, W) reflectance of all bands; DataError where the file's numbers cannot have this scale."""
        image = super().image(file)
        bands = [plane[valid] for plane, valid in zip(file.stored, image.valid, strict=True)]
        bands = [numbers for numbers in bands if numbers.any()]  # a band of zeros is of any scale
        if bands and all(map(_is_reflectance, bands)):
            low, high = min(numbers.min() for numbers in bands), max(numbers.max() for numbers in bands)
            raise DataError(
                f"{file.path}: nearly all numbers of every band lie within -2 to 2, got {low:.4g} to {high:.4g}, "
                "so it seems to hold reflectance already; use --modality multispectral"
            )
        return image

    def bands(self, file: GeoTiff) -> tuple[NamedBand, ...]:
        """Name each band by the satellite's standard, or as the file says."""
        return (
            super().bands(file) if self.satellite is None else bands_of_satellite(self.satellite, file.bands, file.path)
        )

    def scaled(self, file: GeoTiff, index: int) -> FloatArray:
        """Return (H, W) reflectance; a file that states another scale raises DataError."""
        tags = file.bands[index]
        if (tags.scale, tags.offset) not in ((1.0, 0.0), (self.scale, self.offset)):
            raise DataError(
                f"{file.path}: states scale {tags.scale:g} and offset {tags.offset:g}, but modality {self.name!r} "
                f"means {self.scale:g} and {self.offset:g}; use --modality multispectral"
            )
        return _linear(file, index, self.scale, self.offset)

    def valid(self, file: GeoTiff) -> BoolArray:
        """Return (C, H, W) where something was measured: not the product's fill value, either."""
        return file.valid if self.nodata is None else file.valid & (file.stored != self.nodata)

    def channel(self, band: NamedBand, tags: BandTags) -> Channel:
        """Describe one band."""
        return Channel(band.name, REFLECTANCE, "1", wavelength_um=band.wavelength_um)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Refuse: a simulated file says its scale itself."""
        raise ConfigError(f"modality {self.name!r} is for files that do not say their scale; simulate multispectral")


def _is_reflectance(numbers: npt.NDArray[Any]) -> bool:
    """Return whether the numbers of a band can hardly be a multiple of reflectance.

    Whole numbers can, but for 0 and 1. Of others it is hard where more than nine of ten different ones lie within -2 to
    2: a fill value is one number, however often it stands there, and glints are few.
    """
    if numbers.dtype.kind != "f":
        return bool(numbers.min() >= 0 and numbers.max() <= 1)
    numbers = numbers[:: max(numbers.size // _ENOUGH, 1)]  # a whole tile would take seconds to sort
    small = np.abs(numbers) <= _MOST_REFLECTANCE
    return np.unique(numbers[small]).size > _SURELY * np.unique(numbers[~small]).size


def _linear(file: GeoTiff, index: int, scale: float, offset: float) -> FloatArray:
    """Return (H, W) stored * scale + offset; float64 keeps all digits on the way."""
    return np.asarray(file.stored[index] * np.float64(scale) + offset, dtype=np.float32)


MODALITIES: tuple[ModalityAdapter, ...] = (
    Multispectral(),
    StatedReflectance(
        "multispectral-10000", "bands of a GeoTIFF that hold reflectance x 10000 without saying so", 1e-4
    ),
    StatedReflectance(
        "sentinel2",
        "Sentinel-2 reflectance x 10000, bands by name (before January 2022, or harmonized); 0 is nodata",
        1e-4,
        satellite=SENTINEL2,
        nodata=0,
    ),
    StatedReflectance(
        "sentinel2-offset",
        "Sentinel-2 of processing baseline 04.00 and later: reflectance x 10000 + 1000; 0 is nodata",
        1e-4,
        -0.1,
        satellite=SENTINEL2,
        nodata=0,
    ),
    StatedReflectance(
        "landsat8",
        "Landsat 8 and 9 Collection 2 surface reflectance (x 0.0000275 - 0.2), bands by name; 0 is nodata",
        2.75e-5,
        -0.2,
        satellite=LANDSAT8,
        nodata=0,
    ),
)
"""Ready instances."""
