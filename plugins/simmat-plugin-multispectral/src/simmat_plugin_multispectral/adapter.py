"""`multispectral`, `sentinel2`, `landsat8`: bands of a raster in reflectance or in the file's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from simmat_plugin_geo.georeference import note_once
from simmat_plugin_geo.geotiff import (
    BandTags,
    GeoTiff,
    is_count,
    read_geotiff,
    write_geotiff,
)
from simmat_plugin_geo.rasters import DRIVERS, raster_size, read_raster
from simmat_plugin_guess.facts import FilesOfKind, Recognition

from simmat import (
    Channel,
    ModalityAdapter,
    ModalityOptions,
    PathsBySource,
    SensorImage,
    Source,
    Window,
    WindowedAdapter,
)
from simmat.errors import ConfigError, DataError
from simmat.sensors.channel_selection import pick_channels
from simmat.types import FloatArray
from simmat_plugin_multispectral.bands import (
    LANDSAT8,
    SENTINEL2,
    NamedBand,
    Satellite,
    bands_of_file,
    bands_of_satellite,
)
from simmat_plugin_multispectral.safe import open_safe, read_safe

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

REFLECTANCE = "reflectance"
_TIFF = (".tif", ".tiff")
_STORED_SCALE, _STORED_NODATA = 1e-4, -32768
_MAX_REFLECTANCE = 2  # of a glint, in a file of reflectance
_MIN_RATIO = 9
_MAX_VALUES = 100_000  # values of a band that are looked at, evenly spread


@dataclass(frozen=True, slots=True)
class Product:
    """Files of reflectance that do not state their scale: reflectance = stored * scale + offset.

    Attributes:
        scale: factor of the stored value.
        offset: added to the product.
        satellite: the satellite with these bands; None if the file names them.
        nodata: the fill value of the product.
    """

    scale: float
    offset: float = 0.0
    satellite: Satellite | None = None
    nodata: float | None = None


class MultispectralOptions(ModalityOptions):
    """Options for files that do not state the scale of their reflectance."""

    scale: float | None = Field(
        None,
        gt=0,
        description="Reflectance = stored x scale, for files that do not state it; 0.0001 for reflectance x 10000.",
    )
    offset: float = Field(0.0, description="Added to stored x scale; needs scale.")
    variables: str | None = Field(
        None,
        description="Variables of a NetCDF file or Zarr store by comma; by default all that are images.",
    )

    @model_validator(mode="after")
    def _belong_together(self) -> MultispectralOptions:
        if self.offset and self.scale is None:
            raise ValueError(
                "offset needs scale: reflectance = stored x scale + offset"
            )
        return self


class Multispectral(WindowedAdapter):
    """All bands of a raster, with the names and scales that the file states.

    A band with a scale or offset in the file has the values stored * scale + offset, in the unit of the file. A band
    without them is counts, or reflectance if the option `scale` is given. A file whose scale contradicts the option is
    refused, as is a file that seems to be scaled already. Nodata value, mask or alpha band of the file make pixels
    invalid, band by band.
    """

    name = "multispectral"
    description = "bands of GeoTIFF, JP2, ENVI, NetCDF, Zarr, named and scaled as the file says; pick with --channels"
    sources = (Source("multispectral", (*_TIFF, *DRIVERS)),)

    Options: ClassVar[type[ModalityOptions]] = MultispectralOptions
    _picks: tuple[str | int, ...] = ()

    @property
    def product(self) -> Product | None:
        """The scale of the files as given by options or satellite; None if the files state it."""
        options = self.options
        if not isinstance(options, MultispectralOptions) or options.scale is None:
            return None
        return Product(options.scale, options.offset)

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (C, H, W) of all bands, with the file's georeference."""
        path = Path(files["multispectral"])

        def wanted(bands: Sequence[BandTags]) -> Collection[int]:
            return pick_channels(
                self._channels(bands, path), self._picks, origin=str(path)
            )

        picks = wanted if self._picks and window is not None else None
        file = self._read_file(path, window, picks)
        return self.image(file, whole=window is None)

    def _read_file(
        self,
        path: Path,
        window: Window | None,
        wanted: Callable[[Sequence[BandTags]], Collection[int]] | None,
    ) -> GeoTiff:
        return read_raster(
            path, self.nodata("multispectral"), window, wanted, self._variables
        )

    @property
    def _variables(self) -> tuple[str, ...]:
        """The names in the option `variables`."""
        options = self.options
        if not isinstance(options, MultispectralOptions) or not options.variables:
            return ()
        return tuple(name.strip() for name in options.variables.split(","))

    def window_size(self, files: PathsBySource) -> tuple[int, int]:
        """Return the size of the file."""
        return raster_size(Path(files["multispectral"]), self._variables)

    def with_channels(self, selected: Sequence[str | int]) -> ModalityAdapter:
        """Return this sensor with only these bands read, unless a subclass computes channels from several bands."""
        if type(self).transform is not ModalityAdapter.transform:
            return self
        made = copy(self)
        made._picks = tuple(selected)
        return made

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Find names, wavelengths and units of bands, or a map position, in a GeoTIFF of several bands."""
        if files.first.format != "tiff" or files.first.planes < 2:
            return None
        corner = Window(0, 0, 1, 1)
        file = read_geotiff(files.first.path, None, corner)
        evidence = _evidence(file)
        if not evidence:
            return None
        units = {band.unit for band in file.bands}
        if "" not in units:
            unit = f"the files state the unit of each band: {', '.join(sorted(units))}"
            return Recognition("stated", evidence, unit=unit)
        question = (
            "Are the numbers reflectance, and by which factor? For reflectance x 10000: --modality multispectral "
            "--modality-option multispectral.scale=0.0001; without a factor they are read as counts"
        )
        return Recognition("likely", evidence, questions=(question,))

    def _channels(self, bands: Sequence[BandTags], path: Path) -> tuple[Channel, ...]:
        """Describe the bands of a file."""
        product = self.product
        if product is None:
            named = bands_of_file(bands, path)
            return tuple(
                _channel(band, tags) for band, tags in zip(named, bands, strict=True)
            )
        if product.satellite is None:
            named = bands_of_file(bands, path)
        else:
            named = bands_of_satellite(product.satellite, bands, path)
        return tuple(
            Channel(band.name, REFLECTANCE, "1", wavelength_um=band.wavelength_um)
            for band in named
        )

    def image(self, file: GeoTiff, *, whole: bool = True) -> SensorImage:
        """Return (C, H, W) of all bands of a file; the values of a `whole` image are checked for plausibility."""
        product, channels = self.product, self._channels(file.bands, file.path)
        values = np.stack(
            [self._scaled(file, index, product) for index in range(len(channels))]
        )
        fill = None if product is None else product.nodata
        valid = file.valid if fill is None else file.valid & (file.stored != fill)
        image = SensorImage.from_planes(
            values,
            channels,
            valid=valid,
            origin=str(file.path),
            georeference=file.georeference,
        )
        if product is not None and whole:
            _refuse_reflectance(file, image)
        return image

    def _scaled(self, file: GeoTiff, index: int, product: Product | None) -> FloatArray:
        """Return (H, W) values of one band; raise DataError if the file states another scale than the product."""
        tags = file.bands[index]
        if product is None:
            return _linear(file, index, tags.scale, tags.offset)
        if (tags.scale, tags.offset) not in (
            (1.0, 0.0),
            (product.scale, product.offset),
        ):
            raise DataError(
                f"{file.path}: states scale {tags.scale:g} and offset {tags.offset:g}, but modality {self.name!r} with "
                f"its options means {product.scale:g} and {product.offset:g}; use --modality multispectral without "
                "options, which uses the scale of the file"
            )
        return _linear(file, index, product.scale, product.offset)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (6, H, W) apparent reflectance of blue, green, red, nir, swir1 and swir2."""
        if self.product is not None:  # a simulated file states its scale
            raise ConfigError(
                f"modality {self.name!r} with options is for files that do not state their scale; simulate "
                "multispectral without options"
            )
        from simmat_plugin_multispectral.camera import (
            WAVELENGTHS_UM,
            apparent_reflectance,
        )

        channels = [
            Channel(name, REFLECTANCE, "1", wavelength_um=micron)
            for name, micron in WAVELENGTHS_UM.items()
        ]
        return SensorImage.from_planes(
            apparent_reflectance(scene, rng), channels, origin="simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write a GeoTIFF with names and scales of bands: reflectance as 16-bit DN of the product, others as float32.

        Without a product the DN are 1/10000.
        """
        stored = self.product or Product(_STORED_SCALE)
        is_reflectance = all(one.quantity == REFLECTANCE for one in image.channels)
        tags = [_tags_of(channel) for channel in image.channels]
        planes: npt.NDArray[Any]
        if not is_reflectance:
            planes = np.where(image.valid, image.data, np.float32(np.nan))
            nodata = float("nan")
        else:
            tags = [
                replace(one, scale=stored.scale, offset=stored.offset) for one in tags
            ]
            values = image.data.astype(np.float64)
            whole = np.rint((values - stored.offset) / stored.scale)
            if stored.nodata is None:
                nodata = float(_STORED_NODATA)
                whole = whole.clip(_STORED_NODATA + 1, 32767)
                planes = np.where(image.valid, whole, nodata).astype(np.int16)
            else:
                nodata = stored.nodata
                whole = whole.clip(nodata + 1, 65535)
                planes = np.where(image.valid, whole, nodata).astype(np.uint16)
        write_geotiff(
            Path(files["multispectral"]),
            planes,
            bands=tags,
            nodata=nodata,
            georeference=image.georeference,
        )


class Sentinel2Options(ModalityOptions):
    """Options for the product version of Sentinel-2 files."""

    boa_offset: bool = Field(
        False,
        description="Files of processing baseline 04.00 (2022) and later: reflectance x 10000 + 1000 (BOA_ADD_OFFSET); "
        "a .SAFE folder states it.",
    )
    resolution: Literal[10, 20, 60] = Field(
        10,
        description="Metres of a pixel, of .SAFE folders; bands that are coarser are repeated, finer ones left out.",
    )


class Sentinel2(Multispectral):
    """Reflectance x 10000 of Sentinel-2, bands by name; of a .SAFE folder with the offset that it states."""

    name = "sentinel2"
    description = "Sentinel-2: .SAFE folders, or GeoTIFF of reflectance x 10000 (before January 2022, or harmonized)"
    sources = (Source("multispectral", (*_TIFF, ".safe")),)

    Options = Sentinel2Options
    options: Sentinel2Options
    _stated: Product | None = None

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Find the names of the satellite's bands in the descriptions of a file."""
        if files.first.format != "tiff":
            return None
        file = read_geotiff(files.first.path, None, Window(0, 0, 1, 1))
        names = [band.description.partition(",")[0].strip() for band in file.bands]
        found = {name.lower() for name in names}
        # Landsat's bands have the same names but for these
        if not found & {"b8a", "b12"} or not found <= SENTINEL2.bands.keys():
            return None
        return Recognition(
            "stated",
            (f"the bands are described as Sentinel-2's: {', '.join(names)}",),
            questions=(
                "Were the files processed with baseline 04.00 (2022) or later? Then add --modality-option "
                "sentinel2.boa_offset=true",
            ),
        )

    @property
    def product(self) -> Product:
        """What the files are."""
        if self._stated is not None:
            return self._stated
        return Product(
            1e-4, -0.1 if self.options.boa_offset else 0.0, SENTINEL2, nodata=0
        )

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (C, H, W) of all bands."""
        path = Path(files["multispectral"])
        if not _is_safe(path):
            return super().read(files, window)
        found = open_safe(path, self.options.resolution)
        is_offset = found.offset != 0
        if (
            "boa_offset" in self.options.model_fields_set
            and self.options.boa_offset != is_offset
        ):
            raise DataError(
                f"{path}: is of processing baseline {found.baseline}, {'with' if is_offset else 'without'} an offset, "
                f"but the option says boa_offset={str(self.options.boa_offset).lower()}; leave the option out, since "
                "the product states it"
            )
        if is_offset:
            note_once(
                f"note: Sentinel-2 of processing baseline {found.baseline}: reflectance = (stored "
                f"{found.offset / found.scale:+g}) x {found.scale:g}, as the metadata state"
            )
        made = copy(self)
        made._stated = Product(found.scale, found.offset, SENTINEL2, nodata=0)
        return super(Sentinel2, made).read(files, window)

    def _read_file(
        self,
        path: Path,
        window: Window | None,
        wanted: Callable[[Sequence[BandTags]], Collection[int]] | None,
    ) -> GeoTiff:
        if not _is_safe(path):
            return super()._read_file(path, window, wanted)
        found = open_safe(path, self.options.resolution)
        return read_safe(found, self.nodata("multispectral"), window, wanted)

    def window_size(self, files: PathsBySource) -> tuple[int, int]:
        """Return the size of the file, or of the product at its resolution."""
        path = Path(files["multispectral"])
        if _is_safe(path):
            return open_safe(path, self.options.resolution).size_hw
        return super().window_size(files)


class Landsat8(Multispectral):
    """Surface reflectance of Landsat 8 and 9, bands by name."""

    name = "landsat8"
    description = "Landsat 8 and 9 Collection 2 surface reflectance (x 0.0000275 - 0.2), bands by name; 0 is nodata"
    sources = (Source("multispectral", _TIFF),)

    Options = ModalityOptions

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Return None: the files do not name the satellite."""
        return None

    @property
    def product(self) -> Product:
        """What the files are."""
        return Product(2.75e-5, -0.2, LANDSAT8, nodata=0)


def _evidence(file: GeoTiff) -> tuple[str, ...]:
    """Return what a file states of its bands and its place."""
    found = []
    names = [band.description for band in file.bands]
    named = [
        name
        for number, name in enumerate(names, 1)
        if name and not is_count(name, number)
    ]
    if named:
        found.append(f"descriptions of the bands: {', '.join(named)}")
    waves = [band.wavelength_um for band in bands_of_file(file.bands, file.path)]
    known = [f"{wave:g}" for wave in waves if wave is not None]
    if known:
        found.append(f"wavelengths of the bands in um: {', '.join(known)}")
    if file.georeference is not None:
        found.append("a position on a map")
    return tuple(found)


def _is_safe(path: Path) -> bool:
    return path.suffix.lower() == ".safe"


def _refuse_reflectance(file: GeoTiff, image: SensorImage) -> None:
    """Raise DataError for a file whose stored values seem to be reflectance already."""
    bands = [
        plane[valid] for plane, valid in zip(file.stored, image.valid, strict=True)
    ]
    # a band of zeros fits any scale
    bands = [numbers for numbers in bands if numbers.any()]
    if bands and all(map(_is_reflectance, bands)):
        low, high = (
            min(numbers.min() for numbers in bands),
            max(numbers.max() for numbers in bands),
        )
        raise DataError(
            f"{file.path}: nearly all values of every band are within -2 to 2, got {low:.4g} to {high:.4g}, so they "
            "seem to be reflectance already; use --modality multispectral without options"
        )


def _tags_of(channel: Channel) -> BandTags:
    """Return what a file says of a band, without scale and offset."""
    unit = "" if channel.unit == "count" else channel.unit
    if channel.quantity == REFLECTANCE:
        unit = REFLECTANCE
    tags = None
    if channel.wavelength_um:
        tags = {"WAVELENGTH_UM": f"{channel.wavelength_um:g}"}
    return BandTags(channel.name, unit, tags=tags)


def _channel(band: NamedBand, tags: BandTags) -> Channel:
    """Return the channel of a band from the tags of the file."""
    if tags.unit.lower() == REFLECTANCE:
        quantity, unit = REFLECTANCE, "1"
    elif tags.unit and tags.unit != "1":
        quantity, unit = "measured", tags.unit
    elif tags.unit or (tags.scale, tags.offset) != (1.0, 0.0):
        quantity, unit = "scaled", "1"
    else:
        quantity, unit = "counts", "count"
    return Channel(band.name, quantity, unit, wavelength_um=band.wavelength_um)


def _is_reflectance(numbers: npt.NDArray[Any]) -> bool:
    """Return whether the values of a band are probably reflectance itself, not a multiple of it.

    Whole numbers other than 0 and 1 are a multiple. Others are reflectance if more than nine of ten different values
    are within -2 to 2: a fill value counts once, however often it occurs, and glints are rare.
    """
    if numbers.dtype.kind != "f":
        return bool(numbers.min() >= 0 and numbers.max() <= 1)
    # a whole tile would take seconds to sort
    numbers = numbers[:: max(numbers.size // _MAX_VALUES, 1)]
    small = np.abs(numbers) <= _MAX_REFLECTANCE
    return np.unique(numbers[small]).size > _MIN_RATIO * np.unique(numbers[~small]).size


def _linear(file: GeoTiff, index: int, scale: float, offset: float) -> FloatArray:
    """Return (H, W) stored * scale + offset, computed in float64 to keep all digits."""
    return np.asarray(file.stored[index] * np.float64(scale) + offset, dtype=np.float32)


MODALITIES: tuple[ModalityAdapter, ...] = (Multispectral(), Sentinel2(), Landsat8())
"""Ready instances."""
