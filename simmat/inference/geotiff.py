"""Instance ids and class maps as GeoTIFF."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simmat.errors import OutputError
from simmat.inference.result import ImageResult, label_bands, label_type
from simmat.io.images.georeference import write_cog


def write_geotiff(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.tif` or `NAME_classes.tif`, a cloud optimized GeoTIFF; return the file's name."""
    name, of_objects = f"{result.name}_{result.kind}.tif", result.objects is not None
    names = {} if of_objects else {f"class_{value}": text for value, text in sorted(result.class_names.items())}
    with gdal_errors(folder):
        write_cog(
            folder / name,
            label_bands(result),
            result.size_hw,
            label_type(result),
            result.georeference,
            description=result.kind,
            nodata=0 if of_objects else result.nodata,
            tags=names,
        )
    return name


@contextmanager
def gdal_errors(folder: Path) -> Iterator[None]:
    """Turn errors of rasterio and pyogrio, which write through GDAL, into an OutputError."""
    try:
        yield
    except Exception as error:  # some of their classes are not public
        if type(error).__module__.partition(".")[0] not in ("rasterio", "pyogrio"):
            raise
        raise OutputError(
            f"cannot write to {folder}: {error}; check that the disk has room and that you may write there"
        ) from error
