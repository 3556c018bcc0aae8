"""Convert shapes of LabelMe, CVAT, YOLO and Label Studio to masks: polygons, boxes, PNG in base64, run lengths."""

from __future__ import annotations

import base64
import binascii
import io
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simmat.data.instances import Instance, check_object_pixels, region_from_mask
from simmat.errors import DataError
from simmat.io.reading import read_bytes
from simmat.types import BoolArray, is_finite_number
from simmat_plugin_convert.brush import decode_brush
from simmat_plugin_convert.image_files import check_upright, size_of
from simmat_plugin_convert.labels import (
    IGNORE,
    NO_CLASS,
    ClassNumbers,
    ImageLabels,
    Item,
    ReaderInput,
    one_line,
    polygon_region,
)

_NO_MASK = "shapes are points, lines or ellipses, not masks, and are left out"
_BOX = "shapes are boxes, not masks, and are left out; --boxes fills them"
_Key = tuple[str, object]
"""Class and number of an object in its file."""
_PlacedMask = tuple[tuple[int, int], BoolArray]
"""y and x of the first pixel in the image, and mask (h, w)."""


class Shapes:
    """Collects the shapes of one image as functions that draw them.

    Attributes:
        predicted: True if the tool says of a shape that a model made it, and nobody has changed it.
    """

    def __init__(
        self,
        source: ReaderInput,
        path: Path,
        files: Mapping[str, Path],
        numbers: ClassNumbers,
        inner: str = "",
    ) -> None:
        self._source, self._path, self._files, self._numbers = (
            source,
            path,
            files,
            numbers,
        )
        self.predicted = False
        self._where = f"{path}: {inner}" if inner else str(path)
        # Polygons, or what decodes a mask when it is drawn, for the masks of one image in memory.
        self._shapes: dict[_Key, list[Sequence[float]] | Callable[[], _PlacedMask]] = {}
        try:
            self.size_hw = size_of(source.adapter, files)
            check_upright(files)
        except DataError as error:
            self.size_hw = (0, 0)
            source.problems.append(str(error))

    def item(self, name: str, split: str) -> Item:
        """Return the image with these shapes, which are drawn on demand."""
        self._source.seen.update(label for label, _ in self._shapes)
        return Item(name, split, self._files, self._draw, self.predicted)

    def check_stated(self, height: object, width: object) -> None:
        """Add a problem if the size in the labels differs from that of the image."""
        if (
            self.size_hw != (0, 0)
            and (height, width) != self.size_hw
            and (height, width) != (None, None)
        ):
            self._source.problems.append(
                f"{self._where}: the labels are for an image of {width}x{height}, the file "
                f"{next(iter(self._files.values()))} is {self.size_hw[1]}x{self.size_hw[0]} (width x height)"
            )

    def labelme(self, number: int, shape: object) -> None:
        """Add a shape of LabelMe."""
        where = f"{self._where}: shape {number}"
        if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
            self._source.problems.append(
                f"{where} needs label and points, got {one_line(shape)}"
            )
            return
        label, kind = shape.get("label"), shape.get("shape_type") or "polygon"
        points, group = shape["points"], shape.get("group_id")
        if not isinstance(label, str) or not label.strip():
            self._source.problems.append(
                f"{where} has no class name: its label is {one_line(label)}"
            )
        elif not all(
            isinstance(p, list) and len(p) == 2 and all(map(is_finite_number, p))
            for p in points
        ):
            self._source.problems.append(
                f"{where}: points must be pairs of finite numbers, got {one_line(points)}"
            )
        elif kind == "polygon":
            key = (label, ("group", group) if isinstance(group, int | str) else number)
            self._add(key, [value for point in points for value in point])
        elif kind == "mask" and len(points) == 2:
            corner, text, size_hw = (
                (int(points[0][1]), int(points[0][0])),
                shape.get("mask"),
                self.size_hw,
            )
            self._shapes[label, number] = lambda: (
                corner,
                _decode_png(text, size_hw, where),
            )
        elif kind == "rectangle" and len(points) == 2:
            (x0, y0), (x1, y1) = points
            self._box((label, number), (x0, y0, x1 - x0, y1 - y0), where)
        else:
            self._source.losses.add(_NO_MASK, where)

    def cvat(self, number: int, shape: ElementTree.Element) -> None:
        """Add a shape of CVAT, whose source is "auto" if a model made it alone."""
        self.predicted |= shape.get("source") == "auto"
        where = f"{self._where}: {shape.tag} {number}"
        label = (shape.get("label") or "").strip()
        if shape.tag not in ("polygon", "mask", "box"):
            if shape.tag not in ("tag", "attribute"):
                self._source.losses.add(_NO_MASK, where)
        elif not label:
            self._source.problems.append(
                f"{where} has no class name: its label is empty"
            )
        elif shape.tag == "polygon":
            try:
                values = [
                    float(v)
                    for pair in shape.get("points", "").split(";")
                    for v in pair.split(",")
                ]
            except ValueError:
                self._source.problems.append(
                    f"{where}: points must be x,y;x,y;…, got {one_line(shape.get('points'))}"
                )
                return
            group = shape.get("group_id")
            self._add(
                (label, ("group", group) if group and group != "0" else number), values
            )
        elif shape.tag == "box":
            try:
                x0, y0, x1, y1 = (
                    float(shape.get(name, "")) for name in ("xtl", "ytl", "xbr", "ybr")
                )
                turn = float(shape.get("rotation", "0"))
            except ValueError:
                x0 = y0 = x1 = y1 = turn = math.nan
            if not all(map(math.isfinite, (x0, y0, x1, y1, turn))):
                self._source.problems.append(
                    f"{where}: xtl, ytl, xbr, ybr and rotation must be finite numbers"
                )
                return
            self._box(
                (label, number),
                (x0, y0, x1 - x0, y1 - y0),
                where,
                turn,
                ((x0 + x1) / 2, (y0 + y1) / 2),
            )
        else:
            attributes, size_hw = dict(shape.attrib), self.size_hw
            self._shapes[label, number] = lambda: _decode_runs(
                attributes, size_hw, where
            )

    def yolo(self, names: Mapping[int, str]) -> None:
        """Add the polygons of a YOLO file; `names` is class number -> name."""
        try:
            lines = read_bytes(self._path, "YOLO labels").decode().splitlines()
        except (UnicodeDecodeError, DataError) as error:
            self._source.problems.append(
                str(error)
                if isinstance(error, DataError)
                else f"{self._path}: not text"
            )
            return
        height, width = self.size_hw
        listed = one_line(sorted(names))
        for number, line in enumerate(lines, start=1):
            where = f"{self._path}: line {number}"
            words = line.split()
            if not words:
                continue
            kind = whole_number(words[0])
            try:
                values = [float(word) for word in words[1:]]
            except ValueError:
                values = [float("nan")]
            if kind is None or not all(map(is_finite_number, values)):
                self._source.problems.append(
                    f"{where}: must be a class number and finite numbers, got {one_line(line)}"
                )
            elif kind not in names:
                self._source.problems.append(
                    f"{where}: class {one_line(kind)} has no name in data.yaml; it names {listed}"
                )
            elif len(values) == 4:
                x, y, w, h = (
                    value * side
                    for value, side in zip(values, (width, height) * 2, strict=True)
                )
                self._box((names[kind], number), (x - w / 2, y - h / 2, w, h), where)
            else:
                scaled = [
                    value * (height if place % 2 else width)
                    for place, value in enumerate(values)
                ]
                self._add((names[kind], number), _exact(scaled))

    def label_studio(
        self, number: int, kind: str, value: Mapping[str, Any], label: str
    ) -> None:
        """Add a region of Label Studio with this class."""
        where, kind = f"{self._where}: region {number}", kind.removesuffix("labels")
        height, width = size_hw = self.size_hw
        try:
            if kind == "brush":
                code = value.get("rle")
                self._shapes[label, number] = lambda: (
                    (0, 0),
                    decode_brush(code, size_hw, where),
                )
            elif kind == "polygon":
                points = np.asarray(value["points"], np.float64).reshape(-1, 2) * [
                    width / 100,
                    height / 100,
                ]
                self._add((label, number), _exact(points.ravel().tolist()))
            elif kind == "rectangle":
                x, y, w, h = (
                    float(value[name]) for name in ("x", "y", "width", "height")
                )
                x, y, w, h = (
                    x * width / 100,
                    y * height / 100,
                    w * width / 100,
                    h * height / 100,
                )
                self._box(
                    (label, number),
                    (x, y, w, h),
                    where,
                    float(value.get("rotation", 0)),
                    (x, y),
                )
            # not the class of another region, nor of the image
            elif kind and {"x", "points"} & value.keys():
                self._source.losses.add(_NO_MASK, where)
        except (KeyError, OverflowError, TypeError, ValueError):
            self._source.problems.append(
                f"{where}: a {kind} needs its numbers, got {one_line(value)}"
            )

    def _box(
        self,
        key: _Key,
        box_xywh: tuple[float, float, float, float],
        where: str,
        degrees: float = 0.0,
        pivot_xy: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Add a box, turned clockwise around a point, as a polygon, or count it as lost."""
        if not self._source.boxes:
            self._source.losses.add(_BOX, where)
            return
        self._add(key, _exact(turned_box(box_xywh, degrees, pivot_xy).ravel().tolist()))

    def _add(self, key: _Key, polygon: list[float]) -> None:
        polygons = self._shapes.setdefault(key, [])
        assert isinstance(polygons, list)  # a mask has a number of its own
        polygons.append(polygon)

    def _draw(self) -> ImageLabels:
        objects: list[Instance] = []
        pixels = 0
        ignore = np.zeros(self.size_hw, np.bool_)
        classless = set(self._numbers.names.values()) <= {NO_CLASS}
        for key, shape in self._shapes.items():
            where = f"{self._where}: shape {key[1]}"
            number = 0 if key[0] == IGNORE else self._numbers.number(key[0])
            if callable(shape):
                (top, left), crop = shape()
                region = self._inside(top, left, crop, number, where)
            else:
                region = polygon_region(
                    shape, self.size_hw, number, where, self._source.losses
                )
            if region is None:
                continue
            pixels += region.crop.size
            check_object_pixels(pixels, self._where)
            if key[0] == IGNORE:
                ignore |= region.mask(self.size_hw)
            else:
                objects.append(
                    Instance(None if classless else number, region.window, region.crop)
                )
        return ImageLabels(
            self.size_hw, tuple(objects), ignore if ignore.any() else None
        )

    def _inside(
        self, top: int, left: int, crop: Any, number: int, where: str
    ) -> Instance | None:
        height, width = self.size_hw
        if (
            crop.ndim != 2
            or min(top, left) < 0
            or top + len(crop) > height
            or left + crop.shape[1] > width
        ):
            shape = "x".join(map(str, crop.shape[::-1]))
            raise DataError(
                f"{where}: a mask of {shape} at {left}, {top} is outside of the image, which is {width}x{height}"
            )
        region = region_from_mask(crop, number, (top, left))
        if region is None:
            self._source.losses.add("masks are empty and are left out", where)
        return region


def turned_box(
    box_xywh: tuple[float, float, float, float],
    degrees: float,
    pivot_xy: tuple[float, float],
) -> Any:
    """Return the corners (4, 2) of a box, x and y in pixels, turned clockwise around a point."""
    x, y, width, height = box_xywh
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    # of rows of x and y, which grows downwards
    turn = np.asarray([[cosine, sine], [-sine, cosine]])
    corners = np.asarray(
        [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
    )
    with np.errstate(over="ignore", invalid="ignore"):  # refused where it is drawn
        return (corners - pivot_xy) @ turn + pivot_xy


def _exact(values: Sequence[float]) -> list[float]:
    """Return coordinates with those restored that lie on pixel edges, which fractions do not give exactly."""
    return [_to_edge(value) for value in values]


def _to_edge(value: float) -> float:
    """Return a coordinate, or the pixel edge that it lies on."""
    if not math.isfinite(value):
        return value  # refused where it is drawn
    edge = float(round(value))
    if abs(value - edge) < 1e-3:
        return edge
    return value


def _decode_png(text: object, size_hw: tuple[int, int], where: str) -> BoolArray:
    """Decode a mask of LabelMe: (h, w) bool.

    Raises:
        DataError: it is not a PNG in base64, or larger than its image of `size_hw` pixels.
    """
    try:
        raw = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        with Image.open(io.BytesIO(raw), formats=["PNG"]) as picture:
            _check_size(picture.size[::-1], size_hw, where)
            return np.asarray(picture) > 0
    except (
        binascii.Error,
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"{where}: its mask is not a PNG in base64: {error}") from None


def _decode_runs(
    attributes: Mapping[str, str], size_hw: tuple[int, int], where: str
) -> _PlacedMask:
    """Decode a mask of CVAT and its corner.

    Raises:
        DataError: it is invalid, or larger than its image of `size_hw` pixels.
    """
    try:
        top, left, height, width = (
            int(attributes.get(name, "")) for name in ("top", "left", "height", "width")
        )
        runs = [int(text) for text in attributes.get("rle", "").split(",")]
    except ValueError:
        raise DataError(
            f"{where}: rle, left, top, width and height must be whole numbers"
        ) from None
    _check_size((height, width), size_hw, where)
    if min(height, width) < 1:
        raise DataError(f"{where}: the box of its mask has no pixel")
    pixels = height * width
    if min(runs) < 0 or sum(runs) != pixels:
        raise DataError(f"{where}: its runs do not add up to {pixels} pixels, its box")
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return (top, left), mask.reshape(height, width)


def _check_size(mask_hw: tuple[int, int], size_hw: tuple[int, int], where: str) -> None:
    """Check that a mask is not larger than its image before it is decoded."""
    if any(side > extent for side, extent in zip(mask_hw, size_hw, strict=True)):
        raise DataError(
            f"{where}: a mask of {mask_hw[1]}x{mask_hw[0]} is larger than the image, which is {size_hw[1]}x{size_hw[0]}"
        )


def whole_number(text: str | None) -> int | None:
    """Parse a whole number; return None for any other text."""
    try:
        return int(text or "")
    except ValueError:
        return None
