"""Masks that are polygons in map coordinates, drawn into the pixel grid of their image when a label is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely

from simmat.data.card import DataCard
from simmat.data.instances import Annotation, label_from_mask
from simmat.data.samples import Sample
from simmat.errors import ConfigError, DataError, did_you_mean
from simmat.geo import read_georeference
from simmat.io.images import image_size
from simmat.types import Window
from simmat_plugin_geo.georeference import crs_name, quiet, reproject, same_crs
from simmat_plugin_geo.vectors import Layer, open_layer

_MAX_FILES = 16
"""Most files whose polygons are kept in memory."""
_UNKNOWN_CLASS = 2**40
"""Label value of a polygon without a class."""
_MAX_DEGREES = (540.0, 90.01)
"""Largest longitude and latitude: some files count across the date line, and rounding may pass the pole."""


@dataclass(frozen=True)
class _PlacedPolygons:
    """The polygons of a file in the pixels of an image.

    Attributes:
        shapes: (N,) of shapely; x is the column and y the row, (0, 0) the outer corner of the first pixel.
        values: (N + 1,) label value of each polygon by its number from 1; that of number 0, the background, is 0.
        tree: spatial index of the shapes.
        size_hw: of the image.
    """

    shapes: npt.NDArray[np.object_]
    values: npt.NDArray[np.int64]
    tree: Any
    size_hw: tuple[int, int]

    def draw(self, window: Window) -> npt.NDArray[np.int64]:
        """Return the number from 1 of the polygon at each pixel of a window, 0 where there is none."""
        near = np.sort(
            self.tree.query(shapely.box(window.x0, window.y0, window.x1, window.y1))
        )
        if not len(near):
            return np.zeros(window.size_hw, np.int64)
        with quiet():
            drawn: npt.NDArray[np.int32] = rasterio.features.rasterize(
                ((self.shapes[index], index + 1) for index in near.tolist()),
                out_shape=window.size_hw,
                transform=rasterio.Affine.translation(window.x0, window.y0),
                dtype="int32",
            )
        return drawn.astype(np.int64)


@dataclass(frozen=True)
class PolygonLabels:
    """Polygons as ground truth. A file is read when it is first needed, and kept with a spatial index.

    Attributes:
        attribute: what names the class of a polygon; None if polygons have no class.
        class_names: class -> value of the attribute, over all files.
        note: a sentence for the user on coordinate systems; "".
    """

    attribute: str | None
    class_names: Mapping[int, str]
    note: str
    _files: dict[tuple[str, str], _PlacedPolygons] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def has_classes(self) -> bool:
        """True if polygons have a class."""
        return self.attribute is not None

    def label(self, sample: Sample, card: DataCard) -> Annotation:
        """Draw the polygons of a sample; a pixel belongs to the last polygon that its centre is in.

        "instances" makes each polygon a region, of its class where polygons have one; "classes" joins the pixels of a
        class; "components" takes its connected pieces. Pixels of a polygon without a value are ignored.
        """
        paths = sample.paths[-1], sample.paths[0]
        if (placed := self._files.get(paths)) is None:
            while len(self._files) >= _MAX_FILES:
                self._files.pop(next(iter(self._files)))
            placed = self._files[paths] = self._read(Path(paths[0]), Path(paths[1]))
        numbers = placed.draw(sample.window or Window(0, 0, *placed.size_hw))
        values = placed.values[numbers]
        single = card.regions in ("instances", "panoptic")
        drawn = (
            np.where(values == _UNKNOWN_CLASS, _UNKNOWN_CLASS, numbers)
            if single
            else values
        )
        rule = card.model_copy(
            update={
                "ignore": _UNKNOWN_CLASS,
                "regions": "classes" if single else card.regions,
            }
        )
        label = label_from_mask(
            drawn, rule, zero_means=sample.zero_means, origin=paths[0]
        )
        if not single:
            return label
        classes = [int(placed.values[region.class_id or 0]) for region in label.regions]
        regions = (
            replace(region, class_id=value if self.has_classes else None)
            for region, value in zip(label.regions, classes, strict=True)
        )
        return replace(label, regions=tuple(regions))

    def _read(self, path: Path, reference: Path) -> _PlacedPolygons:
        """Read the polygons of a file, and move them into the pixels of an image."""
        layer = _open(path, self.attribute)
        _, shapes, names = layer.read(self.attribute)
        if odd := next(
            (shape for shape in shapes if not shape.geom_type.endswith("Polygon")), None
        ):
            raise DataError(
                f"{path}: holds a {odd.geom_type}; masks are polygons. Leave other geometries out"
            )
        if layer.crs == "EPSG:4326" and len(shapes):
            _check_degrees(path, *shapely.total_bounds(shapes).tolist())
        if (place := read_georeference(reference)) is None:
            raise DataError(
                f"{reference}: has no georeference, so the polygons of {path.name} cannot be placed in it; "
                "georeference the image, or save the mask as a label image of its size"
            )
        try:
            to_image = partial(
                reproject, source=layer.crs or place.crs, target=place.crs
            )
            shapes = shapely.transform(
                shapely.transform(shapes, to_image), place.to_pixels
            )
        except ValueError as error:
            raise DataError(
                f"{path}: its polygons cannot be reprojected from {_named(layer.crs)} to {crs_name(place.crs)}, the "
                f"coordinate system of {reference.name} ({error}); check what each file states, or reproject with "
                "ogr2ogr -t_srs"
            ) from error
        tree, (height, width) = shapely.STRtree(shapes), image_size(reference)
        if not len(tree.query(shapely.box(0, 0, width, height))):
            x0, y0, x1, y1 = shapely.total_bounds(shapes).tolist()
            raise DataError(
                f"{path}: none of its {len(shapes)} polygons overlaps the image {reference.name} (X {x0:.0f} to "
                f"{x1:.0f}, Y {y0:.0f} to {y1:.0f} in pixels, the image is {width}x{height}); check the coordinate "
                f"systems: polygons {_named(layer.crs)}, image {crs_name(place.crs)}"
            )
        number_of = {name: number for number, name in self.class_names.items()} | {
            None: _UNKNOWN_CLASS
        }
        values = [number_of[name] if self.has_classes else 1 for name in names]
        return _PlacedPolygons(
            shapes, np.array([0, *values], np.int64), tree, (height, width)
        )


def read_polygons(samples: Sequence[Sample], card: DataCard) -> PolygonLabels:
    """Find the classes of all polygons of a data set, whose samples have polygons as masks.

    Classes that the card names keep their number; the others are numbered after them, sorted by name.
    """
    attribute = card.class_attribute
    names: dict[int, str] = {}
    if attribute is not None:
        files = dict.fromkeys(sample.paths[-1] for sample in samples)
        found = {
            value
            for file in files
            for value in _open(Path(file), attribute).values(attribute)
        }
        names = dict(card.class_names)
        start = max((*names, 0)) + 1
        names |= dict(
            enumerate(_in_order(found - {None, *names.values()}), start=start)
        )
    return PolygonLabels(attribute, names, _note(samples[0]))


def _open(path: Path, attribute: str | None) -> Layer:
    """Open a file of polygons; raise ConfigError for an attribute that it does not have."""
    layer = open_layer(path, "polygons")
    if attribute is not None and attribute not in layer.fields:
        raise ConfigError(
            f"{path}: the polygons have no attribute {attribute!r}{did_you_mean(attribute, layer.fields)} Attributes: "
            f"{', '.join(layer.fields) or 'none'}. Set --class-attribute, or class_attribute in card.toml, to one of "
            "them"
        )
    return layer


def _check_degrees(path: Path, x0: float, y0: float, x1: float, y1: float) -> None:
    """Refuse map coordinates that would be taken for degrees."""
    if min(x0, -x1) < -_MAX_DEGREES[0] or min(y0, -y1) < -_MAX_DEGREES[1]:
        raise DataError(
            f"{path}: its coordinates, x {x0:.9g} to {x1:.9g} and y {y0:.9g} to {y1:.9g}, are not longitude and "
            'latitude (EPSG:4326), which a GeoJSON without the member "crs" has; save it as GeoPackage with its '
            "coordinate system (ogr2ogr -a_srs EPSG:n out.gpkg in.geojson), or in EPSG:4326"
        )


def _note(sample: Sample) -> str:
    """Return a sentence on the coordinate systems of the first file, if they are not plainly equal."""
    mask, reference = Path(sample.paths[-1]), sample.reference
    try:
        place, crs = read_georeference(reference), open_layer(mask, "polygons").crs
    except DataError:
        return ""  # the pass over all samples says what is wrong
    if place is None or (crs is not None and same_crs(crs, place.crs)):
        return ""
    if crs is None:
        return f"{mask.name} has no coordinate system, so the image's is used, {crs_name(place.crs)}."
    return f"The polygons of {mask.name} are reprojected from {crs_name(crs)} to {crs_name(place.crs)}."


def _named(crs: str | None) -> str:
    return "without one" if crs is None else crs_name(crs)


def _in_order(names: Iterable[str | None]) -> list[str]:
    """Return names sorted, those that are whole numbers by their value."""
    given = [name for name in names if name is not None]
    if all(name.isascii() and name.isdigit() for name in given):
        return sorted(given, key=int)
    return sorted(given)
