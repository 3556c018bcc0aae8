"""Maps for SimMAT: georeferenced images and results, features in map coordinates, mosaics, rasters by URL."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import hookimpl
from simmat.plugin_specs import FunctionSpec, ResultFormat


@hookimpl
def simmat_geo_backends() -> Iterable[FunctionSpec]:
    """Return the functions that read maps through GDAL."""
    return [
        FunctionSpec(
            "gdal",
            "GeoTIFF, GeoPackage, GeoJSON and shapefile, by GDAL",
            "simmat_plugin_geo.backend",
        )
    ]


@hookimpl
def simmat_result_formats() -> Iterable[ResultFormat]:
    """Return `geojson`, `gpkg`, `geotiff` and `mask-geotiff`."""
    return [
        ResultFormat(
            "geojson",
            "outlines in map coordinates as GeoJSON",
            "simmat_plugin_geo.results:write_geojson",
            ("_{kind}.geojson",),
            check="simmat_plugin_geo.results:check_crs",
        ),
        ResultFormat(
            "gpkg",
            "outlines in map coordinates as GeoPackage",
            "simmat_plugin_geo.results:write_geopackage",
            (".gpkg",),
            auto=("georeferenced objects",),
        ),
        ResultFormat(
            "geotiff",
            "instance ids or label values as cloud optimized GeoTIFF",
            "simmat_plugin_geo.results:write_geotiff",
            ("_{kind}.tif",),
            auto=("georeferenced objects", "georeferenced classes"),
            replaces="labels",
            needs_georeference=True,
        ),
        ResultFormat(
            "mask-geotiff",
            "the mask of a prompt as cloud optimized GeoTIFF, 0 and 1",
            "simmat_plugin_geo.results:write_mask",
            ("_mask.tif",),
            kinds=("prompts",),
            auto=("georeferenced prompts",),
            needs_georeference=True,
        ),
    ]
