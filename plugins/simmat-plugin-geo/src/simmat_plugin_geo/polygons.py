"""Masks that are polygons in map coordinates, drawn into the pixel grid of their image when a label is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.data.card import DataCard
from simmat.data.instances import Label, label_from_mask
from simmat.data.samples import Sample
from simmat.errors import DataError
from simmat.io.images import image_size
from simmat.io.images.georeference import quiet, read_georeference
from simmat.io.vectors import NEEDED, read_attribute, read_crs, read_polygons, require_geo
from simmat.types import Georeference, Window

_KEPT = 16
"""Most files whose polygons are kept in memory."""
_UNKNOWN = 2**40
"""Label value of a polygon without a class."""


@dataclass(frozen=True)
class _Placed:
    """The polygons of a file in the pixels of an image.

    Attributes:
        shapes: (N,) of shapely; x is the column and y the row, (0, 0) the outer corner of the first pixel.
        values: (N + 1,) label value of each polygon by its number from 1; that of number 0, the background, is 0.
    """

    shapes: npt.NDArray[np.object_]
    values: npt.NDArray[np.int64]
    tree: Any
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class PolygonLabels:
    """Polygons as ground truth. A file is read when it is first needed, and kept with a spatial index.

    Attributes:
        class_names: class -> value of the attribute, over all files.
        note: a sentence for the user on coordinate systems; "".
    """

    attribute: str | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    note: str = ""
    _placed: dict[tuple[str, str], _Placed] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, samples: Sequence[Sample], card: DataCard) -> PolygonLabels | None:
        """Find the classes of all polygons of a data set; None if no mask is a file of polygons.

        Classes that the card names keep their number; the others are numbered after them, sorted by name.
        """
        first = next((sample for sample in samples if sample.has_polygons), None)
        if first is None or first.mask is None:
            return None
        require_geo(f"{first.mask}: reading polygons", *NEEDED)
        names = dict(card.class_names) if card.class_attribute is not None else {}
        if card.class_attribute is not None:
            files = dict.fromkeys(sample.paths[-1] for sample in samples if sample.has_polygons)
            found = {value for file in files for value in read_attribute(Path(file), card.class_attribute)}
            start = max((*names, 0)) + 1
            names |= dict(enumerate(_in_order(found - {None, *names.values()}), start=start))
        return cls(card.class_attribute, names, _note(first))

    @property
    def key(self) -> str:
        """Text that is equal for equal numbers of the classes."""
        return repr((self.attribute, sorted(self.class_names.items())))

    def label(self, sample: Sample, card: DataCard) -> Label:
        """Draw the polygons of a sample; a pixel belongs to the last polygon that its centre is in.

        "instances" makes each polygon a region, of its class where polygons have one; "classes" joins the pixels of a
        class; "components" takes its connected pieces. Pixels of a polygon without a value are ignored.
        """
        place = sample.paths[-1], sample.paths[0]
        if (placed := self._placed.get(place)) is None:
            while len(self._placed) >= _KEPT:
                self._placed.pop(next(iter(self._placed)))
            placed = self._placed[place] = self._read(Path(place[0]), Path(place[1]))
        numbers = _draw(placed, sample.window or Window(0, 0, *placed.size_hw))
        values = placed.values[numbers]
        single = card.regions in ("instances", "panoptic")
        drawn = np.where(values == _UNKNOWN, _UNKNOWN, numbers) if single else values
        rule = card.model_copy(update={"ignore": _UNKNOWN, "regions": "classes" if single else card.regions})
        label = label_from_mask(drawn, rule, zero_means=sample.zero_means, origin=place[0])
        if not single:
            return label
        classes = [int(placed.values[region.class_id or 0]) for region in label.regions]
        regions = (
            replace(region, class_id=value if self.attribute is not None else None)
            for region, value in zip(label.regions, classes, strict=True)
        )
        return replace(label, regions=tuple(regions))

    def _read(self, path: Path, reference: Path) -> _Placed:
        """Read the polygons of a file, and move them into the pixels of an image."""
        import rasterio
        import shapely

        found = read_polygons(path, self.attribute)
        place, size_hw = _grid(path, reference)
        shapes = found.shapes
        if found.crs is not None and not _same(found.crs, place.crs):
            try:
                shapes = shapely.transform(shapes, lambda xy: _reprojected(xy, found.crs, place.crs))
            except Exception as error:  # GDAL's own errors are of no public class
                raise DataError(
                    f"{path}: its polygons cannot be reprojected from {_named(found.crs)} to {_named(place.crs)}, the "
                    f"coordinate system of {reference.name} ({error}); check what each file states, or reproject with "
                    "ogr2ogr -t_srs"
                ) from error
        a, b, c, d, e, f = tuple(~rasterio.Affine(*place.transform))[:6]
        shapes = shapely.transform(shapes, lambda xy: xy @ np.array([[a, d], [b, e]]) + np.array([c, f]))
        tree = shapely.STRtree(shapes)
        height, width = size_hw
        if not len(tree.query(shapely.box(0, 0, width, height))):
            raise DataError(
                f"{path}: none of its {len(shapes)} polygons overlaps the image {reference.name} ({_extent(shapes)} in "
                f"pixels, the image is {width}x{height}); check the coordinate systems: polygons "
                f"{_named(found.crs) or 'without one'}, image {_named(place.crs)}"
            )
        number_of = {name: number for number, name in self.class_names.items()}
        values = [
            1 if self.attribute is None else _UNKNOWN if name is None else number_of[name] for name in found.values
        ]
        return _Placed(shapes, np.array([0, *values], np.int64), tree, size_hw)


def _draw(placed: _Placed, window: Window) -> npt.NDArray[np.int64]:
    """Return the number from 1 of the polygon at each pixel of a window, 0 where there is none."""
    import rasterio.features
    import shapely

    near = np.sort(placed.tree.query(shapely.box(window.x0, window.y0, window.x1, window.y1)))
    if not len(near):
        return np.zeros(window.size_hw, np.int64)
    with quiet():
        drawn: npt.NDArray[np.int32] = rasterio.features.rasterize(
            ((placed.shapes[index], index + 1) for index in near.tolist()),
            out_shape=window.size_hw,
            transform=rasterio.Affine.translation(window.x0, window.y0),
            dtype="int32",
        )
    return drawn.astype(np.int64)


def _grid(path: Path, reference: Path) -> tuple[Georeference, tuple[int, int]]:
    """Return the georeference and (H, W) of the image that polygons belong to."""
    place = read_georeference(reference)
    if place is None:
        raise DataError(
            f"{reference}: has no georeference, so the polygons of {path.name} cannot be placed in it; "
            "georeference the image, or save the mask as a label image of its size"
        )
    return place, image_size(reference)


def _reprojected(coords_xy: npt.NDArray[np.float64], source: str | None, target: str) -> npt.NDArray[np.float64]:
    """Map (N, 2) coordinates from one coordinate system to another."""
    from rasterio.warp import transform

    moved = np.stack(transform(source, target, coords_xy[:, 0], coords_xy[:, 1]), axis=1)
    if not np.isfinite(moved).all():
        raise ValueError("a point is outside of the projection")
    return moved


def _same(one: str, other: str) -> bool:
    from rasterio.crs import CRS

    return one == other or bool(CRS.from_user_input(one) == CRS.from_user_input(other))


def _note(sample: Sample) -> str:
    """Return a sentence on the coordinate systems of the first file, if they are not plainly equal."""
    mask, reference = Path(sample.paths[-1]), sample.reference
    try:
        place, crs = read_georeference(reference), read_crs(mask)
    except DataError:
        return ""  # the pass over all samples says what is wrong
    if place is None or (crs is not None and _same(crs, place.crs)):
        return ""
    if crs is None:
        return f"{mask.name} has no coordinate system; that of the image is used, {_named(place.crs)}."
    return f"The polygons of {mask.name} are reprojected from {_named(crs)} to {_named(place.crs)}, that of the image."


def _named(crs: str | None) -> str:
    """Return the name of a coordinate system: "EPSG:32632", or what its WKT calls it."""
    return crs.split('"')[1] if crs and '"' in crs else crs or ""


def _extent(shapes: npt.NDArray[np.object_]) -> str:
    import shapely

    if not len(shapes):
        return "no extent"
    x0, y0, x1, y1 = shapely.total_bounds(shapes)
    return f"X {x0:.0f} to {x1:.0f}, Y {y0:.0f} to {y1:.0f}"


def _in_order(names: Iterable[str | None]) -> list[str]:
    """Return names sorted, those that are whole numbers by their value."""
    given = [name for name in names if name is not None]
    if all(name.isascii() and name.isdigit() for name in given):
        return sorted(given, key=int)
    return sorted(given)
