"""Read labels of each format."""

from __future__ import annotations

import base64
import binascii
import io
import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from simmat.data.card import CARD_FILE, DataCard, load_card
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.formats.coco import annotation_files
from simmat.data.formats.folders import MASKS, files_by_stem
from simmat.data.formats.manifest import MANIFEST_FILE
from simmat.data.instances import Instance, region_from_mask
from simmat.data.samples import SPLITS, Sample
from simmat.errors import ConfigError, DataError, all_problems, equal_problems
from simmat.io.files import read_bytes, read_json
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import BoolArray, is_finite_number
from simmat_plugin_convert.labels import (
    IGNORE,
    NO_CLASS,
    ClassNumbers,
    Drawn,
    Item,
    Labels,
    Losses,
    check_upright,
    find_image,
    one_line,
    polygon_region,
    size_of,
    split_named,
    stem_of,
)

CVAT_FILE = "annotations.xml"
YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LABELME_LABELS = "labels.txt"
_LABELME_RESERVED = ("__ignore__", "_background_")
_MOST_BYTES = 2**30
_NO_MASK = "shapes are boxes, points or lines, which are no masks, and are left out"


@dataclass
class Source:
    """What a reader is given.

    Attributes:
        root: the folder.
        adapter: the sensor, for the sizes of images.
        card: options of the card from the command line.
        losses: what cannot be read as a mask is added to it.
        problems: of files; raised together at the end.
        seen: names of classes that shapes have.
    """

    root: Path
    adapter: ModalityAdapter
    card: Mapping[str, object]
    losses: Losses
    problems: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def known_card(self) -> DataCard:
        """Return the card of the folder, if there is one."""
        return load_card(self.root, self.card, defaults={"regions": "instances"})

    def done(
        self, items: Sequence[Item], numbers: ClassNumbers, card: DataCard, what: str, *, has_splits: bool
    ) -> Labels:
        """Return what was read, or raise what is wrong with it."""
        if self.problems:
            raise DataError(all_problems(f"{self.root}: {what} that cannot be read:", equal_problems(self.problems)))
        if not items:
            raise DataError(f"{self.root}: {what} name no image")
        for name in sorted(self.seen - {IGNORE}):
            numbers.number(name)
        return Labels(self.root, items, numbers.names, card, has_splits)


def format_of(root: Path) -> str:
    """Return the format of the labels in a folder.

    Raises:
        DataError: it has none that is known, or several.
    """
    if not root.is_dir():
        what = "is a file, not a folder; give the folder that holds it" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}")
    found = []
    if (root / MASKS).is_dir() or (root / MANIFEST_FILE).is_file():
        found.append("masks")
    if annotation_files(root):
        found.append("coco")
    if (root / CVAT_FILE).is_file():
        found.append("cvat")
    if any((root / name).is_file() for name in YOLO_FILES):
        found.append("yolo")
    if not found and _labelme_files(root):
        found.append("labelme")
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{root}: holds labels of {' and '.join(found)}; say which to read with --from")
    raise DataError(
        f"{root}: no labels found: none of masks/ or manifest.csv (masks), annotations.json or annotations/ (coco), "
        f"json files with shapes (labelme), data.yaml (yolo), {CVAT_FILE} (cvat)"
    )


def read_own(source: Source) -> Labels:
    """Read a data set of SimMAT: mask folders, `manifest.csv` or COCO json."""
    least = {"min_region": 1, "min_region_share": 0.0, "crop": None}
    dataset = open_dataset(source.root, source.adapter, {**source.card, **least})
    stated = dataset.card
    if (source.root / CARD_FILE).is_file():
        stated = load_card(source.root, source.card, defaults={"regions": stated.regions})
    crops = stated.model_copy(update={"crop": None})
    has_splits = not dataset.by_hash
    items = [_own_item(dataset, sample, has_splits=has_splits) for sample in dataset.samples]
    names = dict(dataset.class_names)
    if len(names) == 1 and set(names.values()) == {NO_CLASS}:
        items = [Item(item.name, item.split, item.files, _without_class(item.draw)) for item in items]
        names = {}
    return Labels(source.root, items, names, crops, has_splits, len(dataset.unlabelled))


def _own_item(dataset: Dataset, sample: Sample, *, has_splits: bool) -> Item:
    def draw() -> Drawn:
        label = dataset.label(sample)
        return Drawn(label.size_hw, label.regions, label.ignore if label.ignore.any() else None)

    split = sample.split if has_splits else ""
    return Item(sample.id.removeprefix(f"{split}/") if split else sample.id, split, sample.files, draw)


def _without_class(draw: Callable[[], Drawn]) -> Callable[[], Drawn]:
    def without() -> Drawn:
        drawn = draw()
        objects = tuple(Instance(None, one.box, one.crop) for one in drawn.objects)
        return Drawn(drawn.size_hw, objects, drawn.ignore)

    return without


def read_labelme(source: Source) -> Labels:
    """Read LabelMe's json files: polygons, and masks of its version 5.2 and later."""
    card = source.known_card()
    numbers = ClassNumbers(card.class_names, _listed_classes(source.root))
    items = []
    for path in _labelme_files(source.root):
        place = path.relative_to(source.root)
        content = read_json(path, "LabelMe json", limit=_MOST_BYTES, constants=True)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            source.problems.append(f"{path}: not a LabelMe file; it needs a list 'shapes'")
            continue
        image = content.get("imagePath")
        if not isinstance(image, str) or not image:
            source.problems.append(f"{path}: imagePath must name the image, got {one_line(image)}")
            continue
        folder = place.parent.as_posix()
        files = find_image(source.root, [posixpath.join(folder, image.replace("\\", "/"))], source.adapter)
        if isinstance(files, str):
            source.problems.append(f"{path}: imagePath {files}")
            continue
        parts = place.with_suffix("").parts
        split = split_named(parts[0]) if len(parts) > 1 else ""
        item = _Shapes(source, path, files, numbers)
        for number, shape in enumerate(content["shapes"]):
            item.labelme(number, shape)
        items.append(item.item("/".join(parts[1:] if split else parts), split))
        item.check_stated(content.get("imageHeight"), content.get("imageWidth"))
    has_splits = all(item.split for item in items)
    if not has_splits:
        items = [Item(item.where, "", item.files, item.draw) for item in items]
    return source.done(items, numbers, card, "LabelMe files", has_splits=has_splits)


def _labelme_files(root: Path) -> list[Path]:
    return sorted(path for paths in files_by_stem(root, (".json",)).values() for path in paths)


def _listed_classes(root: Path) -> list[str]:
    """Return the classes of `labels.txt`, as `labelme --labels` takes them."""
    if not (root / LABELME_LABELS).is_file():
        return []
    try:
        text = read_bytes(root / LABELME_LABELS, "list of classes").decode()
    except UnicodeDecodeError:
        raise DataError(f"{root / LABELME_LABELS}: not UTF-8; save it as UTF-8") from None
    return [line for line in text.splitlines() if line.strip() and line not in (*_LABELME_RESERVED, IGNORE)]


def read_cvat(source: Source) -> Labels:
    """Read CVAT's `annotations.xml`, "CVAT for images 1.1": polygons and masks."""
    path = source.root / CVAT_FILE
    card = source.known_card()
    root = _parse_xml(path)
    if root.tag != "annotations" or (version := root.findtext("version")) != "1.1":
        stated = f"version {version}" if root.tag == "annotations" else f"<{root.tag}>"
        raise DataError(f"{path}: expected 'CVAT for images 1.1', got {stated}; export it from CVAT in that format")
    if root.find("track") is not None:
        raise DataError(f"{path}: holds tracks of a video; export it from CVAT as 'CVAT for images 1.1'")
    listed = [
        name for label in root.iter("label") if (name := (label.findtext("name") or "").strip()) and name != IGNORE
    ]
    numbers = ClassNumbers(card.class_names, list(dict.fromkeys(listed)))
    items = []
    splits = [split_named(image.get("subset", "")) for image in root.iter("image")]
    has_splits = bool(splits) and all(splits)
    for image, split in zip(root.iter("image"), splits, strict=True):
        name = image.get("name", "")
        folder = [f"images/{split}/{name}", f"images/{image.get('subset')}/{name}"] if split else []
        files = (
            find_image(source.root, [*folder, f"images/{name}", name], source.adapter) if name else "a name is empty"
        )
        if isinstance(files, str):
            source.problems.append(f"{path}: image {image.get('id')}: {files}")
            continue
        item = _Shapes(source, path, files, numbers, f"image {name!r}")
        ordered = sorted(enumerate(image), key=lambda pair: (_whole(pair[1].get("z_order", "0")) or 0, pair[0]))
        for number, shape in ordered:
            item.cvat(number, shape)
        items.append(item.item(stem_of(posixpath.normpath(name)), split if has_splits else ""))
        item.check_stated(_whole(image.get("height", "")), _whole(image.get("width", "")))
    return source.done(items, numbers, card, "CVAT annotations", has_splits=has_splits)


def _parse_xml(path: Path) -> ElementTree.Element:
    try:
        text = read_bytes(path, "CVAT xml", limit=_MOST_BYTES).decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can name other files, or grow without end
            raise DataError(f"{path}: declares a document type or entities, which CVAT does not; export it again")
        return ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: not an XML file in UTF-8: {error}; export it from CVAT again") from None


def read_yolo(source: Source) -> Labels:
    """Read a YOLO data set with polygons: `data.yaml`, `images/`, `labels/`."""
    path = next((source.root / name for name in YOLO_FILES if (source.root / name).is_file()), None)
    if path is None:
        raise DataError(f"{source.root}: no data.yaml, which names the classes of a YOLO data set")
    card = source.known_card()
    try:
        content = yaml.safe_load(read_bytes(path, "yaml").decode())
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: not a yaml file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: must have the keys names, train and val, got {one_line(content)}")
    names = content.get("names")
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    if (
        not isinstance(listed, dict)
        or not listed
        or not all(isinstance(key, int) and isinstance(name, str) and name.strip() for key, name in listed.items())
    ):
        raise DataError(f"{path}: 'names' must give each class number a name, got {one_line(names)}")
    if len(set(listed.values())) < len(listed):
        raise DataError(f"{path}: two classes have the same name: {one_line(names)}")
    numbers = ClassNumbers(card.class_names, [name for _, name in sorted(listed.items())])
    items, seen = [], set()
    for split, image in _yolo_images(source, path, content):
        relative = image.relative_to(source.root).as_posix()
        if relative in seen:
            source.problems.append(f"{path}: {relative} is listed twice")
            continue
        seen.add(relative)
        files = find_image(source.root, [relative], source.adapter)
        if isinstance(files, str):
            source.problems.append(files)
            continue
        inner = relative.split("/")
        place = len(inner) - 1 - inner[::-1].index("images") if "images" in inner else None
        if place is None:
            source.problems.append(f"{relative}: a YOLO image lies below a folder images/, its labels below labels/")
            continue
        labels = source.root.joinpath(*inner[:place], "labels", *inner[place + 1 :]).with_suffix(".txt")
        item = _Shapes(source, labels, files, numbers)
        if labels.is_file():
            item.yolo(listed)
        name = stem_of("/".join(inner[place + 1 :]))
        head = name.split("/")[0]
        items.append(item.item(name.removeprefix(f"{head}/") if split_named(head) == split else name, split))
    return source.done(items, numbers, card, "YOLO images", has_splits=True)


def _yolo_images(source: Source, path: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield split and file of each image; a `path` in the file is that of another machine, so its own folder counts."""
    for split in SPLITS:
        given = content.get(split) or []
        for entry in given if isinstance(given, list) else [given]:
            if not isinstance(entry, str):
                source.problems.append(f"{path}: {split} must name a folder of images, got {one_line(entry)}")
                continue
            clean = posixpath.normpath(entry.replace("\\", "/"))
            if clean.startswith("../images"):  # as Roboflow writes it, beside a folder that is not there
                clean = clean.removeprefix("../")
            if posixpath.isabs(clean) or clean.startswith("..") or "\0" in clean:
                source.problems.append(f"{path}: {split} {entry!r} is outside of {source.root}")
                continue
            place = source.root / clean
            if place.is_dir():
                found = files_by_stem(place, source.adapter.sources[0].extensions)
                if not found:
                    source.problems.append(f"{path}: {split} {entry!r} holds no image")
                yield from ((split, image) for _, images in sorted(found.items()) for image in images)
            elif place.is_file() and place.suffix == ".txt":
                for line in read_bytes(place, "list of images").decode(errors="replace").splitlines():
                    if line.strip():
                        inner = posixpath.normpath(line.strip().replace("\\", "/"))
                        if posixpath.isabs(inner) or inner.startswith(".."):
                            source.problems.append(f"{place}: {line.strip()!r} is outside of {source.root}")
                        else:
                            yield split, source.root / inner
            else:
                source.problems.append(f"{path}: {split} {entry!r}: no such folder in {source.root}")


_Key = tuple[str, object]
"""Class and number of an object in its file."""
_Placed = tuple[tuple[int, int], BoolArray]
"""(y, x) of its first pixel in the image, and an (h, w) mask."""


class _Shapes:
    """Collects the shapes of one image as functions that draw them."""

    def __init__(
        self, source: Source, path: Path, files: Mapping[str, Path], numbers: ClassNumbers, inner: str = ""
    ) -> None:
        self._source, self._path, self._files, self._numbers = source, path, files, numbers
        self._where = f"{path}: {inner}" if inner else str(path)
        self._polygons: dict[_Key, list[Sequence[float]]] = {}
        self._order: list[_Key] = []
        self._masks: dict[_Key, Callable[[], _Placed]] = {}  # decoded when drawn, as memory holds one image's alone
        try:
            self.size_hw = size_of(source.adapter, files)
            check_upright(files)
        except DataError as error:
            self.size_hw = (0, 0)
            source.problems.append(str(error))

    def item(self, name: str, split: str) -> Item:
        return Item(name, split, self._files, self._draw)

    def check_stated(self, height: object, width: object) -> None:
        """Check the size that the labels state against that of the image."""
        if self.size_hw != (0, 0) and (height, width) != self.size_hw and (height, width) != (None, None):
            self._source.problems.append(
                f"{self._where}: the labels are of an image of {width}x{height}, the file "
                f"{next(iter(self._files.values()))} is {self.size_hw[1]}x{self.size_hw[0]} (width x height)"
            )

    def labelme(self, number: int, shape: object) -> None:
        where = f"{self._where}: shape {number}"
        if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
            self._source.problems.append(f"{where} needs label and points, got {one_line(shape)}")
            return
        label, kind = shape.get("label"), shape.get("shape_type") or "polygon"
        points, group = shape["points"], shape.get("group_id")
        if not isinstance(label, str) or not label.strip():
            self._source.problems.append(f"{where} has no class name: its label is {one_line(label)}")
        elif not all(isinstance(p, list) and len(p) == 2 and all(map(is_finite_number, p)) for p in points):
            self._source.problems.append(f"{where}: points must be pairs of finite numbers, got {one_line(points)}")
        elif kind == "polygon":
            key = (label, ("group", group) if isinstance(group, int | str) else number)
            self._add(key, [value for point in points for value in point])
        elif kind == "mask" and len(points) == 2:
            corner, text, size_hw = (int(points[0][1]), int(points[0][0])), shape.get("mask"), self.size_hw
            self._note((label, number))
            self._masks[label, number] = lambda: (corner, _decode_png(text, size_hw, where))
        else:
            self._source.losses.add(_NO_MASK, where)

    def cvat(self, number: int, shape: ElementTree.Element) -> None:
        where = f"{self._where}: {shape.tag} {number}"
        label = (shape.get("label") or "").strip()
        if shape.tag not in ("polygon", "mask"):
            if shape.tag not in ("tag", "attribute"):
                self._source.losses.add(_NO_MASK, where)
        elif not label:
            self._source.problems.append(f"{where} has no class name: its label is empty")
        elif shape.tag == "polygon":
            try:
                values = [float(v) for pair in shape.get("points", "").split(";") for v in pair.split(",")]
            except ValueError:
                self._source.problems.append(f"{where}: points must be x,y;x,y;…, got {one_line(shape.get('points'))}")
                return
            group = shape.get("group_id")
            self._add((label, ("group", group) if group and group != "0" else number), values)
        else:
            attributes, size_hw = dict(shape.attrib), self.size_hw
            self._note((label, number))
            self._masks[label, number] = lambda: _decode_runs(attributes, size_hw, where)

    def yolo(self, names: Mapping[int, str]) -> None:
        try:
            lines = read_bytes(self._path, "YOLO labels").decode().splitlines()
        except (UnicodeDecodeError, DataError) as error:
            self._source.problems.append(str(error) if isinstance(error, DataError) else f"{self._path}: not text")
            return
        height, width = self.size_hw
        for number, line in enumerate(lines, start=1):
            where = f"{self._path}: line {number}"
            words = line.split()
            if not words:
                continue
            kind = _whole(words[0])
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
                    f"{where}: class {kind} has no name in data.yaml; it names {sorted(names)}"
                )
            elif len(values) == 4:
                self._source.losses.add(_NO_MASK, where)
            else:
                scaled = [value * (height if place % 2 else width) for place, value in enumerate(values)]
                # corners on the edges of pixels, which the fractions do not state exactly
                rounded = [float(round(v)) if abs(v - round(v)) < 1e-3 else v for v in scaled]
                self._add((names[kind], number), rounded)

    def _add(self, key: _Key, polygon: list[float]) -> None:
        if key not in self._polygons:
            self._note(key)
        self._polygons.setdefault(key, []).append(polygon)

    def _note(self, key: _Key) -> None:
        self._order.append(key)
        self._source.seen.add(key[0])

    def _draw(self) -> Drawn:
        objects: list[Instance] = []
        ignore = np.zeros(self.size_hw, np.bool_)
        classless = set(self._numbers.names.values()) <= {NO_CLASS}
        for key in self._order:
            where = f"{self._where}: shape {key[1]}"
            number = 0 if key[0] == IGNORE else self._numbers.number(key[0])
            if key in self._masks:
                (top, left), crop = self._masks[key]()
                region = self._inside(top, left, crop, number, where)
            else:
                region = polygon_region(self._polygons[key], self.size_hw, number, where, self._source.losses)
            if region is None:
                continue
            if key[0] == IGNORE:
                ignore |= region.mask(self.size_hw)
            else:
                objects.append(Instance(None if classless else number, region.box, region.crop))
        return Drawn(self.size_hw, tuple(objects), ignore if ignore.any() else None)

    def _inside(self, top: int, left: int, crop: Any, number: int, where: str) -> Instance | None:
        height, width = self.size_hw
        if crop.ndim != 2 or min(top, left) < 0 or top + len(crop) > height or left + crop.shape[1] > width:
            shape = "x".join(map(str, crop.shape[::-1]))
            raise DataError(
                f"{where}: a mask of {shape} at {left}, {top} is outside of the image, which is {width}x{height}"
            )
        region = region_from_mask(crop, number, (top, left))
        if region is None:
            self._source.losses.add("masks are empty and are left out", where)
        return region


def _decode_png(text: object, size_hw: tuple[int, int], where: str) -> BoolArray:
    """Return a mask of LabelMe.

    Raises:
        DataError: it is no PNG in base64, or larger than its image, whose (height, width) is given.
    """
    try:
        raw = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        with Image.open(io.BytesIO(raw), formats=["PNG"]) as picture:
            _check_room(picture.size[::-1], size_hw, where)
            return np.asarray(picture) > 0
    except (binascii.Error, OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: its mask is no PNG in base64: {error}") from None


def _decode_runs(attributes: Mapping[str, str], size_hw: tuple[int, int], where: str) -> _Placed:
    """Return a mask of CVAT with its corner.

    Raises:
        DataError: it is invalid, or larger than its image, whose (height, width) is given.
    """
    place = [_whole(attributes.get(name)) for name in ("top", "left", "height", "width")]
    counts = [_whole(text) for text in attributes.get("rle", "").split(",")]
    top, left, height, width = place
    if top is None or left is None or height is None or width is None or not all(c is not None for c in counts):
        raise DataError(f"{where}: rle, left, top, width and height must be whole numbers")
    runs = [count for count in counts if count is not None]
    _check_room((height, width), size_hw, where)
    if min(height, width) < 1 or min(runs) < 0 or sum(runs) != height * width:
        raise DataError(f"{where}: its runs add up to {sum(runs)}, its box has {height * width} pixels")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return (top, left), pixels.reshape(height, width)


def _check_room(mask_hw: tuple[int, int], size_hw: tuple[int, int], where: str) -> None:
    """Check that a mask is not larger than its image before it is decoded."""
    if any(side > extent for side, extent in zip(mask_hw, size_hw, strict=True)):
        raise DataError(
            f"{where}: a mask of {mask_hw[1]}x{mask_hw[0]} is larger than the image, which is {size_hw[1]}x{size_hw[0]}"
        )


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


READERS: Mapping[str, Callable[[Source], Labels]] = {
    "masks": read_own,
    "coco": read_own,
    "labelme": read_labelme,
    "yolo": read_yolo,
    "cvat": read_cvat,
}


def read_labels(source: Source, kind: str | None) -> tuple[str, Labels]:
    """Return the format of a folder and its labels.

    Args:
        source: the folder.
        kind: the format; None finds it.

    Raises:
        DataError: it has another format, or cannot be read.
        ConfigError: its card is invalid.
    """
    if kind is None:
        kind = format_of(source.root)
    elif not source.root.is_dir():
        format_of(source.root)
    elif kind in ("masks", "coco"):
        has_masks = (source.root / MASKS).is_dir() or (source.root / MANIFEST_FILE).is_file()
        if (kind == "masks" and not has_masks) or (kind == "coco" and not annotation_files(source.root)):
            raise ConfigError(f"--from {kind}: {source.root} holds no such labels, but {_what_is_there(source.root)}")
    elif kind == "cvat" and not (source.root / CVAT_FILE).is_file():
        raise ConfigError(f"--from cvat: {source.root} holds no {CVAT_FILE}, but {_what_is_there(source.root)}")
    return kind, READERS[kind](source)


def _what_is_there(root: Path) -> str:
    try:
        return f"labels of {format_of(root)}"
    except DataError:
        return "none that are known"
