"""The functions of `simmat.geo.GeoBackend`."""

from simmat_plugin_geo.georeference import pixel_areas, read_georeference
from simmat_plugin_geo.map_prompts import read_prompts, to_pixels
from simmat_plugin_geo.mosaic import Mosaic as open_mosaic
from simmat_plugin_geo.polygons import read_polygons
from simmat_plugin_geo.remote import RemoteRaster as open_url

__all__ = [
    "open_mosaic",
    "open_url",
    "pixel_areas",
    "read_georeference",
    "read_polygons",
    "read_prompts",
    "to_pixels",
]
