"""Read labels of each format."""

from __future__ import annotations

import os
import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from simmat.data.card import CARD_FILE, load_card
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.formats.coco import annotation_files
from simmat.data.formats.folders import MASKS, files_by_stem
from simmat.data.formats.manifest import MANIFEST_FILE
from simmat.data.predicted import read_predicted
from simmat.data.samples import SPLITS, SPLITS_FILE, Sample
from simmat.errors import ConfigError, DataError, what_is_wrong
from simmat.io.paths import require_folder
from simmat.io.reading import read_bytes, read_json
from simmat_plugin_convert.image_files import (
    find_image,
    path_inside,
    split_of_name,
    stem_of,
)
from simmat_plugin_convert.label_studio import (
    EXPORTS,
    TASKS_FILE,
    read_label_studio,
    task_files,
)
from simmat_plugin_convert.labels import (
    IGNORE,
    NO_CLASS,
    ClassNumbers,
    ImageLabels,
    Item,
    Labels,
    ReaderInput,
    one_line,
)
from simmat_plugin_convert.shapes import Shapes, whole_number

CVAT_FILE = "annotations.xml"
_MAX_YAML_BYTES = 2**20
"""PyYAML reads 1 MB a second; the names of 20,000 classes have 0.5 MB."""
_MAX_YAML_DIGITS = 100
"""A number of yaml 1.1 may be one in base 60, and takes a minute at 1 MB."""
YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LABELME_LABELS = "labels.txt"
_LABELME_RESERVED = ("__ignore__", "_background_")


def formats_in(root: Path) -> list[str]:
    """Return the formats of the labels in a folder.

    Raises:
        DataError: it is no folder.
    """
    require_folder(root, "give the folder that contains images and labels")
    has = {
        "masks": (root / MASKS).is_dir() or (root / MANIFEST_FILE).is_file(),
        "coco": annotation_files(root),
        "cvat": (root / CVAT_FILE).is_file(),
        "yolo": any((root / name).is_file() for name in YOLO_FILES),
        "label-studio": task_files(root),
    }
    return [kind for kind, files in has.items() if files] or ["labelme"] * bool(
        _labelme_files(root)
    )


def read_own(source: ReaderInput) -> Labels:
    """Read a data set of SimMAT: mask folders, `manifest.csv` or COCO json."""
    least = {"min_region": 1, "min_region_share": 0.0, "crop": None}
    dataset = open_dataset(source.root, source.adapter, {**source.card, **least})
    stated = dataset.card
    if (source.root / CARD_FILE).is_file():
        stated = load_card(
            source.root, source.card, defaults={"regions": stated.regions}
        )
    crops = stated.model_copy(update={"crop": None})
    has_splits = not dataset.by_hash or (source.root / SPLITS_FILE).is_file()
    no_class = list(dataset.class_names.values()) == [NO_CLASS]
    items = [
        _simmat_item(dataset, sample, has_splits=has_splits, no_class=no_class)
        for sample in dataset.samples
    ]
    names = {} if no_class else dict(dataset.class_names)
    return Labels(source.root, items, names, crops, len(dataset.unlabelled))


def _simmat_item(
    dataset: Dataset, sample: Sample, *, has_splits: bool, no_class: bool
) -> Item:
    def draw() -> ImageLabels:
        label = dataset.label(sample)
        objects = (
            tuple(replace(one, class_id=None) for one in label.regions)
            if no_class
            else label.regions
        )
        return ImageLabels(
            label.size_hw, objects, label.ignore if label.ignore.any() else None
        )

    split = sample.split if has_splits else ""
    return Item(
        sample.id.removeprefix(f"{split}/") if split else sample.id,
        split,
        sample.files,
        draw,
        sample.predicted,
    )


def read_labelme(source: ReaderInput) -> Labels:
    """Read LabelMe's json files: polygons, and masks of its version 5.2 and later."""
    card = source.known_card()
    numbers = ClassNumbers(card.class_names, _listed_classes(source.root))
    items = []
    for path in _labelme_files(source.root):
        place = path.relative_to(source.root)
        content = read_json(path, "LabelMe json", constants=True)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            source.problems.append(
                f"{path}: not a LabelMe file; it needs a list 'shapes'"
            )
            continue
        image = content.get("imagePath")
        if not isinstance(image, str) or not image:
            source.problems.append(
                f"{path}: imagePath must name the image, got {one_line(image)}"
            )
            continue
        folder = place.parent.as_posix()
        files = find_image(
            source.root,
            [posixpath.join(folder, image.replace("\\", "/"))],
            source.adapter,
        )
        if isinstance(files, str):
            source.problems.append(f"{path}: imagePath {files}")
            continue
        item = Shapes(source, path, files, numbers)
        for number, shape in enumerate(content["shapes"]):
            item.labelme(number, shape)
        items.append(item.item(place.with_suffix("").as_posix(), ""))
        item.check_stated(content.get("imageHeight"), content.get("imageWidth"))
    return source.done(items, numbers, card, "LabelMe files")


def _labelme_files(root: Path) -> list[Path]:
    return sorted(
        path for paths in files_by_stem(root, (".json",)).values() for path in paths
    )


def _listed_classes(root: Path) -> list[str]:
    """Return the classes of `labels.txt`, the file for `labelme --labels`."""
    if not (root / LABELME_LABELS).is_file():
        return []
    try:
        text = read_bytes(root / LABELME_LABELS, "list of classes").decode()
    except UnicodeDecodeError:
        raise DataError(
            f"{root / LABELME_LABELS}: not UTF-8; save it as UTF-8"
        ) from None
    return [
        line
        for line in text.splitlines()
        if line.strip() and line not in (*_LABELME_RESERVED, IGNORE)
    ]


def read_cvat(source: ReaderInput) -> Labels:
    """Read CVAT's `annotations.xml`, "CVAT for images 1.1": polygons and masks."""
    path = source.root / CVAT_FILE
    card = source.known_card()
    root = _parse_xml(path)
    if root.tag != "annotations" or (version := root.findtext("version")) != "1.1":
        stated = f"version {version}" if root.tag == "annotations" else f"<{root.tag}>"
        raise DataError(
            f"{path}: expected 'CVAT for images 1.1', got {stated}; export it from CVAT in that format"
        )
    if root.find("track") is not None:
        raise DataError(
            f"{path}: contains tracks of a video; export it from CVAT as 'CVAT for images 1.1'"
        )
    listed = [
        name
        for label in root.iter("label")
        if (name := (label.findtext("name") or "").strip()) and name != IGNORE
    ]
    numbers = ClassNumbers(card.class_names, list(dict.fromkeys(listed)))
    items = []
    splits = [split_of_name(image.get("subset", "")) for image in root.iter("image")]
    for image, split in zip(root.iter("image"), splits, strict=True):
        name = image.get("name", "")
        folder = (
            [f"images/{split}/{name}", f"images/{image.get('subset')}/{name}"]
            if split
            else []
        )
        files = (
            find_image(source.root, [*folder, f"images/{name}", name], source.adapter)
            if name
            else "a name is empty"
        )
        if isinstance(files, str):
            source.problems.append(f"{path}: image {image.get('id')}: {files}")
            continue
        item = Shapes(source, path, files, numbers, f"image {name!r}")
        ordered = sorted(
            enumerate(image),
            key=lambda pair: (whole_number(pair[1].get("z_order", "0")) or 0, pair[0]),
        )
        for number, shape in ordered:
            item.cvat(number, shape)
        items.append(
            item.item(stem_of(posixpath.normpath(name)), split if all(splits) else "")
        )
        item.check_stated(
            whole_number(image.get("height", "")), whole_number(image.get("width", ""))
        )
    return source.done(items, numbers, card, "CVAT annotations")


def _parse_xml(path: Path) -> ElementTree.Element:
    try:
        text = read_bytes(path, "CVAT xml").decode("utf-8-sig")
        # entities can read other files or expand without limit
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise DataError(
                f"{path}: declares a document type or entities, as CVAT never does; export it again"
            )
        return ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise DataError(
            f"{path}: not an XML file in UTF-8: {error}; export it from CVAT again"
        ) from None


class _YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads plain values, in C where PyYAML was built with it, and no number that is too long to be one."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        """Return the text of a scalar; raise ConstructorError for a number of too many digits."""
        is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if is_number and len(node.value) > _MAX_YAML_DIGITS:
            raise yaml.constructor.ConstructorError(
                problem=f"a number of {len(node.value)} characters",
                problem_mark=node.start_mark,
            )
        return super().construct_scalar(node)


def read_yolo(source: ReaderInput) -> Labels:
    """Read a YOLO data set with polygons: `data.yaml`, `images/`, `labels/`."""
    path = next(
        source.root / name for name in YOLO_FILES if (source.root / name).is_file()
    )
    card = source.known_card()
    try:
        text = read_bytes(path, "yaml file", limit=_MAX_YAML_BYTES).decode()
        content = yaml.load(text, Loader=_YamlLoader)
    except DataError:
        raise
    # PyYAML raises all kinds of errors for a value that does not fit its tag (KeyError, AttributeError, …)
    except Exception as error:
        raise DataError(
            f"{path}: not a yaml file: {' '.join(what_is_wrong(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: must have the keys names, train and val, got {one_line(content)}"
        )
    names = content.get("names")
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    if (
        not isinstance(listed, dict)
        or not listed
        or not all(
            isinstance(key, int) and isinstance(name, str) and name.strip()
            for key, name in listed.items()
        )
    ):
        raise DataError(
            f"{path}: 'names' must give each class number a name, got {one_line(names)}"
        )
    if len(set(listed.values())) < len(listed):
        raise DataError(f"{path}: two classes have the same name: {one_line(names)}")
    numbers = ClassNumbers(
        card.class_names, [name for _, name in sorted(listed.items())]
    )
    items: list[Item] = []
    seen: dict[str, str] = {}
    again: list[str] = []
    for split, relative in _yolo_images(source, path, content):
        if relative in seen:
            if (first := seen[relative]) != split:
                again.append(f"{relative} in {first} and {split}")
            continue
        seen[relative] = split
        files = find_image(source.root, [relative], source.adapter)
        if isinstance(files, str):
            source.problems.append(files)
            continue
        inner = relative.split("/")
        place = (
            len(inner) - 1 - inner[::-1].index("images") if "images" in inner else None
        )
        if place is None:
            source.problems.append(
                f"{relative}: a YOLO image must be below a folder images/, its labels below labels/"
            )
            continue
        labels = source.root.joinpath(
            *inner[:place], "labels", *inner[place + 1 :]
        ).with_suffix(".txt")
        item = Shapes(source, labels, files, numbers)
        if labels.is_file():
            item.yolo(listed)
        name = stem_of("/".join(inner[place + 1 :]))
        head = name.split("/")[0]
        items.append(
            item.item(
                name.removeprefix(f"{head}/") if split_of_name(head) == split else name,
                split,
            )
        )
    note = (
        f"{len(again)} images are in two splits and are kept in the first (first: {again[0]})"
        if again
        else ""
    )
    return source.done(items, numbers, card, "YOLO images", note=note)


def _yolo_images(
    source: ReaderInput, path: Path, content: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield split and relative path of each image; `path` in the file may be of another machine and is ignored."""
    for split in SPLITS:
        given = content.get(split) or []
        for entry in given if isinstance(given, list) else [given]:
            if not isinstance(entry, str):
                source.problems.append(
                    f"{path}: {split} must name a folder of images, got {one_line(entry)}"
                )
                continue
            # Roboflow writes ../images, but the folder is not one level up
            clean = path_inside(
                entry.removeprefix("../") if entry.startswith("../images") else entry
            )
            if clean is None:
                source.problems.append(
                    f"{path}: {split} {entry!r} is outside of {source.root}"
                )
                continue
            place = source.root / clean
            if os.path.isdir(place):  # False also for a name that is too long
                found = files_by_stem(place, source.adapter.sources[0].extensions)
                if not found:
                    source.problems.append(
                        f"{path}: {split} {entry!r} contains no image"
                    )
                files = (file for _, images in sorted(found.items()) for file in images)
                yield from (
                    (split, file.relative_to(source.root).as_posix()) for file in files
                )
            elif os.path.isfile(place) and place.suffix == ".txt":
                for line in (
                    read_bytes(place, "list of images")
                    .decode(errors="replace")
                    .splitlines()
                ):
                    if line.strip():
                        yield split, posixpath.normpath(line.strip().replace("\\", "/"))
            else:
                source.problems.append(
                    f"{path}: {split} {entry!r}: no such folder in {source.root}"
                )


READERS: Mapping[str, Callable[[ReaderInput], Labels]] = {
    "masks": read_own,
    "coco": read_own,
    "labelme": read_labelme,
    "yolo": read_yolo,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
}


def read_labels(source: ReaderInput, kind: str | None) -> tuple[str, Labels]:
    """Return the format of a folder and its labels.

    Args:
        source: the folder.
        kind: the format; None finds it from the files.

    Raises:
        DataError: the folder has another format, or cannot be read.
        ConfigError: its card is invalid.
    """
    root, found = source.root, formats_in(source.root)
    if not found:
        raise DataError(
            f"{root}: no labels found: no masks/ or manifest.csv (masks), annotations.json or annotations/ (coco), "
            f"json files with shapes (labelme), data.yaml (yolo), {CVAT_FILE} (cvat), {TASKS_FILE} or {EXPORTS} "
            "(label-studio)"
        )
    if kind is None and len(found) > 1:
        raise DataError(
            f"{root}: contains labels of {' and '.join(found)}; choose one with --from"
        )
    if kind not in (None, "labelme", *found):
        raise ConfigError(
            f"--from {kind}: {root} contains no such labels, but labels of {' and '.join(found)}"
        )
    kind = kind or found[0]
    labels = READERS[kind](source)
    if kind == "label-studio":  # which says itself who made a region
        return kind, labels
    predicted = read_predicted(root)
    items = [item.listed_in(predicted) for item in labels.items]
    return kind, replace(labels, items=items)
