"""The interface to what reads maps: a module that a plugin names, since the core uses no geographic library.

The core keeps the `Georeference` of an image as it is read, and asks the functions here for all that needs more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError
from simmat.io.tiff import file_state, states_georeference
from simmat.plugins.loader import PLUGINS_VARIABLE, installed
from simmat.types import Georeference, ImageReader, Prompt, SensorImage

if TYPE_CHECKING:
    from simmat.data.card import DataCard
    from simmat.data.instances import Annotation
    from simmat.data.samples import Sample

Coords = npt.NDArray[np.float64]
"""(N, 2) x and y."""


class PolygonSource(Protocol):
    """Polygons as the ground truth of a data set."""

    @property
    def has_classes(self) -> bool:
        """True if polygons have a class."""

    @property
    def class_names(self) -> Mapping[int, str]:
        """Class -> name, over all files."""

    @property
    def note(self) -> str:
        """A sentence for the user on coordinate systems; "" for none."""

    def label(self, sample: Sample, card: DataCard) -> Annotation:
        """Read the ground truth of one sample, in its window."""


class GeoBackend(Protocol):
    """The functions of the module that a geo backend names."""

    def read_georeference(self, path: Path) -> Georeference | None:
        """Return the georeference of an image file; None if it states no coordinate system and affine grid."""

    def pixel_areas(
        self, georeference: Georeference, size_hw: tuple[int, int]
    ) -> Callable[[Coords], Coords] | None:
        """Return a function from (N, 2) xy in pixels to their (N,) areas in m²; None for a grid not on earth."""

    def open_url(self, url: str, load: Callable[[Path], SensorImage]) -> ImageReader:
        """Open a raster on a server; `load` reads a local copy of a part as the sensor does."""

    def open_mosaic(self, tiles: Sequence[ImageReader]) -> ImageReader:
        """Lay images of one map, which have the same channels, side by side."""

    def to_pixels(
        self, coords_xy: npt.ArrayLike, crs: str, image: ImageReader
    ) -> Coords:
        """Return (N, 2) places in a coordinate system as xy in pixels; 0, 0 is the outer corner of the first one."""

    def read_prompts(
        self, path: Path, crs: str | None, image: ImageReader
    ) -> dict[str, Prompt]:
        """Read a file of points and polygons: object -> prompt; `crs` replaces the coordinate system of the file."""

    def read_polygons(self, samples: Sequence[Sample], card: DataCard) -> PolygonSource:
        """Find the classes of all polygons that are masks of samples."""


def geo_backend(what: str) -> GeoBackend:
    """Return the functions that read maps, which `what` needs; raise ConfigError if no plugin brings them."""
    found = installed_geo_backend()
    if found is None:
        raise ConfigError(
            f"{what} needs a plugin that reads maps: pip install 'simmat[geo]'"
        )
    return found


def installed_geo_backend() -> GeoBackend | None:
    """Return the functions that read maps; None if no plugin brings them."""
    found = installed().all("geo backend")
    if found:
        return cast(GeoBackend, import_module(found[0].function))
    return None


def read_georeference(path: Path) -> Georeference | None:
    """Return the georeference of an image file; None if it states none, or no plugin reads it."""
    if not states_georeference(path):
        return None
    return _read_georeference(path, file_state(path), os.environ.get(PLUGINS_VARIABLE))


@lru_cache(maxsize=4)
def _read_georeference(
    path: Path, _state: tuple[int, ...], _plugins: str | None
) -> Georeference | None:
    """Read it once for all windows of a file."""
    backend = installed_geo_backend()
    if backend is None:
        return None
    return backend.read_georeference(path)
