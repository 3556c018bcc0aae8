"""Maps for SimMAT: georeferenced images and results, features in map coordinates, mosaics, rasters by URL."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import hookimpl
from simmat.specs import GeoBackendSpec


@hookimpl
def simmat_geo_backends() -> Iterable[GeoBackendSpec]:
    """Return the functions that read maps through GDAL."""
    return [GeoBackendSpec("gdal", "GeoTIFF, GeoPackage, GeoJSON and shapefile, by GDAL", "simmat_plugin_geo.backend")]
