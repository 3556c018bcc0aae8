"""Rasters on a server, read window by window through GDAL: cloud optimized GeoTIFFs by their URL.

Only what a person named is asked for: no file beside it, and nothing that a file on this machine names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rasterio
from rasterio.enums import MaskFlags

from simmat.errors import DataError, SimMATError
from simmat.io.limits import check_size
from simmat.types import SensorImage, Window
from simmat_plugin_geo.georeference import (
    check_overviews,
    georeference_of,
    profile_of,
    quiet,
)

_PREFIXES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
}
_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no .msk, .ovr or .aux.xml
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 3,
}


class RemoteRaster:
    """A raster on a server, an image that is read in parts.

    Args:
        url: of a GeoTIFF.
        load: reads a local copy of a part as the sensor does.

    Raises:
        DataError: the server does not answer, or the file is no TIFF.
    """

    def __init__(self, url: str, load: Callable[[Path], SensorImage]) -> None:
        scheme, _, rest = url.partition("://")
        self._name = _PREFIXES[scheme] + rest
        self._load = load
        self.origin = url.partition("?")[0]  # a query may hold a secret
        with self._opened() as file:
            self.size_hw = int(file.height), int(file.width)
            self.georeference = georeference_of(file, self.origin)

    def read(self, window: Window) -> SensorImage:
        """Read a part of the image: it is copied to a temporary file, which the sensor reads."""
        return self.read_overview(window, 1)

    def read_overview(self, window: Window, step: int) -> SensorImage:
        """Read every step-th pixel, of an overview where the file has one."""
        size_hw = -(-window.size_hw[0] // step), -(-window.size_hw[1] // step)
        with TemporaryDirectory(prefix="simmat-") as folder:
            part = Path(folder) / "part.tif"
            with self._opened() as file:
                _copy(file, window, part, size_hw)
            try:
                image = self._load(part)
            except SimMATError as error:
                raise type(error)(str(error).replace(str(part), self.origin)) from error
        place = self.georeference
        return replace(
            image,
            origin=self.origin,
            georeference=place and place.shifted(window.y0, window.x0),
        )

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with (
                quiet(),
                rasterio.Env(**_OPTIONS),
                rasterio.open(self._name, driver="GTiff") as file,
            ):
                check_overviews(file, self.origin)
                yield file
        except SimMATError:
            raise
        except Exception as error:  # GDAL's own errors are of no public class
            reason = str(error).replace(self._name, self.origin)
            raise DataError(
                f"{self.origin}: cannot be read as a GeoTIFF over the network ({reason}); check the address and "
                "that the server answers range requests, or download the file first"
            ) from error


def _copy(file: Any, window: Window, path: Path, size_hw: tuple[int, int]) -> None:
    """Write a window of an open dataset, in (height, width) pixels, as a GeoTIFF that says the same of its bands."""
    (height, width), part = (
        size_hw,
        rasterio.windows.Window(window.x0, window.y0, *window.size_hw[::-1]),
    )
    check_size(path, height, width, file.count)
    roles = [role.name for role in file.colorinterp]
    place = georeference_of(file, str(path))
    profile = {
        "driver": "GTiff",
        "count": file.count,
        "height": height,
        "width": width,
        "dtype": file.dtypes[0],
        "nodata": file.nodata,
        "photometric": "rgb" if roles[:3] == ["red", "green", "blue"] else "minisblack",
        **profile_of(place and place.shifted(window.y0, window.x0)),
    }
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile) as copy,
    ):
        copy.colorinterp = file.colorinterp
        copy.scales, copy.offsets = file.scales, file.offsets
        for index in file.indexes:
            copy.set_band_description(index, file.descriptions[index - 1] or "")
            copy.set_band_unit(index, file.units[index - 1] or "")
            copy.update_tags(index, **file.tags(index))
            copy.update_tags(index, ns="IMAGERY", **file.tags(index, ns="IMAGERY"))
        copy.write(file.read(window=part, out_shape=(file.count, *size_hw)))
        if (
            MaskFlags.per_dataset in file.mask_flag_enums[0]
            and MaskFlags.alpha not in file.mask_flag_enums[0]
        ):
            copy.write_mask(file.dataset_mask(window=part, out_shape=size_hw))
