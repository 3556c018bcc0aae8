"""Write labels in each format, into a new folder."""

from __future__ import annotations

import base64
import io
import posixpath
import shutil
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

from simmat.data.card import DataCard, write_card
from simmat.data.instances import PANOPTIC, region_from_mask, visible_part
from simmat.data.samples import SPLITS
from simmat.errors import ConfigError, DataError, OutputError
from simmat.inference import run_lengths
from simmat.io.files import atomic_write_json, atomic_write_text
from simmat.io.images import write_image
from simmat.io.paths import require_file
from simmat.types import RegionRule
from simmat_plugin_convert.label_studio import (
    BRUSH,
    CONFIG_FILE,
    POLYGON,
    TASKS_FILE,
    Tags,
    label_config,
    region_of,
    save_tasks,
    task_data,
)
from simmat_plugin_convert.labels import (
    IGNORE,
    NO_CLASS,
    ImageLabels,
    Item,
    Labels,
    Losses,
    drawn_labels,
    named_class,
    named_regions,
    overlapping,
)
from simmat_plugin_convert.outlines import Ring, one_polygon, part_polygons
from simmat_plugin_convert.readers import LABELME_LABELS

Images = Literal["copy", "link", "none"]
_SIDECAR = ".aux.xml"
"""Ending of the file that GDAL writes beside an image, with scales."""


@dataclass(frozen=True)
class WriterInput:
    """The input of a writer.

    Attributes:
        folder: the empty folder to write.
        labels: the labels to write.
        names: class -> name, of all classes; objects without a class are `NO_CLASS`.
        polygons: write outlines if a format has both outlines and masks.
        images: copy image files, link them, or write labels only.
        regions: meaning of a mask value; None takes a rule that keeps objects and classes.
        losses: counts what the format cannot store.
        progress: called for each image.
    """

    folder: Path
    labels: Labels
    names: Mapping[int, str]
    polygons: bool
    images: Images
    regions: RegionRule | None
    losses: Losses
    progress: Callable[[], object]

    def place(
        self, item: Item, folder: str, *, split_last: bool = False, every: bool = True
    ) -> str:
        """Put the image files of an item into the new folder; return the relative path of the first.

        Args:
            item: the image.
            folder: relative path, such as "images".
            split_last: put the folder of the split inside that of the source.
            every: write all sources; otherwise only the first, and count the others as lost.
        """
        named = list(item.files.items())
        if not every and len(named) > 1:
            self.losses.add(
                "images have files of further sources, which are left out", item.where
            )
            named = named[:1]
        first = ""
        for source, file in named:
            inner = [source] if len(named) > 1 else []
            split = [item.split] if item.split else []
            place = "/".join(
                [folder, *(inner + split if split_last else split + inner)]
            ).strip("/")
            place = posixpath.join(place, f"{item.name}{file.suffix}")
            first = first or place
            if self.images != "none":
                self._put(file, place)
        return first

    def new_file(self, place: str, image: Path) -> Path:
        """Return the path of a file, given by its relative path; raise DataError if another image has it."""
        path = self.folder / place
        if path.exists():
            raise DataError(
                f"{image}: two images would have the file {place}; rename one"
            )
        return path

    def _put(self, file: Path, place: str) -> None:
        require_file(
            file,
            "image",
            hint="frames of a file are not copied; use --images none, or save each frame as a file",
        )
        for ending in ("", _SIDECAR):
            one = file.with_name(file.name + ending)
            if ending and not one.is_file():
                continue
            there = self.new_file(place + ending, file)
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                if self.images == "link":
                    there.symlink_to(one.resolve())
                else:
                    shutil.copyfile(one, there)
            except OSError as error:
                raise OutputError(
                    f"{one} cannot be copied to {there}: {error.strerror}"
                ) from None

    def all(self) -> Iterable[tuple[Item, ImageLabels]]:
        """Yield all images with their labels."""
        for item, drawn in drawn_labels(self.labels):
            yield item, drawn
            self.progress()

    def write_card(self, regions: RegionRule, *, ignore: int | None = None) -> None:
        """Write `card.toml` with the rule for mask values and the other facts of the data set."""
        changed = {
            "regions": regions,
            "ignore": ignore,
            "class_names": {}
            if set(self.names.values()) <= {NO_CLASS}
            else dict(self.names),
            "zero_means": "background",
            "class_attribute": None,
        }
        write_card(
            self.folder,
            DataCard.model_validate({**self.labels.card.model_dump(), **changed}),
        )


def write_masks(target: WriterInput) -> None:
    """Write `masks/` by a rule that keeps objects and classes, and `card.toml` with this rule."""
    classless = set(target.names.values()) <= {NO_CLASS}
    regions = target.regions or ("instances" if classless else "panoptic")
    if regions != "instances" and min(target.names) < 1:
        raise ConfigError(
            f"class {min(target.names)} cannot be a value of a mask, in which 0 is background; renumber it"
        )
    ignore = _ignore_value(target, regions)
    ignores = False
    for item, drawn in target.all():
        overlaps = overlapping(drawn.objects, drawn.size_hw)
        target.losses.add(
            "objects overlap, and the later one takes the pixels", item.where, overlaps
        )
        if regions == "instances" and not classless:
            target.losses.add(
                "objects lose their class", item.where, len(drawn.objects)
            )
        values = np.zeros(drawn.size_hw, np.int64)
        for value, instance in zip(
            _mask_values(target, regions, ignore, item, drawn),
            drawn.objects,
            strict=True,
        ):
            values[instance.window.slices][instance.crop] = value
        if drawn.ignore is not None:
            hidden = sum(
                visible_part(one, drawn.ignore) is not one for one in drawn.objects
            )
            target.losses.add(
                "objects reach into areas to ignore, which take the pixels",
                item.where,
                hidden,
            )
            values[drawn.ignore] = ignore
            ignores = True
        target.place(item, "images")
        kind = np.min_scalar_type(int(values.max()))
        ending = ".png" if kind.itemsize <= 2 else ".tif"
        write_image(
            target.new_file(f"masks/{item.where}{ending}", item.reference),
            values.astype(kind)[None],
        )
    target.write_card(regions, ignore=ignore if ignores else None)


def _mask_values(
    target: WriterInput,
    regions: RegionRule,
    ignore: int,
    item: Item,
    drawn: ImageLabels,
) -> list[int]:
    """Return the mask value of each object.

    Raises:
        ConfigError: one class has more objects than "panoptic" counts.
    """
    if regions == "instances":
        return list(
            islice(
                (number for number in count(1) if number != ignore), len(drawn.objects)
            )
        )
    numbers = {name: number for number, name in target.names.items()}
    classes = [numbers[named_class(one, target.names)] for one in drawn.objects]
    if regions != "panoptic":
        return classes
    values, last = [], Counter[int]()
    for number in classes:
        last[number] += 1 + (number * PANOPTIC + last[number] + 1 == ignore)
        values.append(number * PANOPTIC + last[number])
    if max(last.values(), default=0) >= PANOPTIC:
        raise ConfigError(
            f"{item.where}: a mask with classes can store at most {PANOPTIC - 1} objects of a class. SimMAT can train "
            "on COCO json directly (--to coco). To convert with a loss, use --to-regions instances (no classes) or "
            "--to-regions components (objects that touch become one)"
        )
    return values


def _ignore_value(target: WriterInput, regions: RegionRule) -> int:
    """Return the value of ignored pixels: that of the card, else 255, or 65535 if masks may need more values."""
    stated, taken = (
        target.labels.card.ignore,
        target.names if regions in ("classes", "components") else (),
    )
    if stated is not None and 0 < stated < 65536 and stated not in taken:
        return stated
    return 65535 if regions == "instances" or max(taken, default=0) >= 255 else 255


def write_coco(target: WriterInput) -> None:
    """Write `annotations.json`, or `annotations/SPLIT.json`; masks become run lengths, ignored areas crowds."""
    documents: dict[str, dict[str, list[dict[str, Any]]]] = {}
    numbers = {name: number for number, name in target.names.items()}
    for item, drawn in target.all():
        document = documents.setdefault(item.split, {"images": [], "annotations": []})
        height, width = drawn.size_hw
        image = len(document["images"]) + 1
        target.place(item, "images", split_last=True)
        name = f"{item.name}{item.reference.suffix}"
        document["images"].append(
            {"id": image, "file_name": name, "height": height, "width": width}
        )
        area = (
            None
            if drawn.ignore is None
            else region_from_mask(drawn.ignore, min(target.names))
        )
        for instance in drawn.objects if area is None else (*drawn.objects, area):
            is_crowd = instance is area
            y0, x0, y1, x1 = instance.window
            outline: Any = run_lengths(instance, drawn.size_hw)
            if target.polygons and not is_crowd:
                outline = [ring.ravel().tolist() for ring in part_polygons(instance)]
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image,
                    "category_id": instance.class_id
                    if is_crowd
                    else numbers[named_class(instance, target.names)],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": instance.area,
                    "iscrowd": int(is_crowd),
                    "segmentation": outline,
                }
            )
    categories = [
        {"id": number, "name": name} for number, name in sorted(target.names.items())
    ]
    for split, document in documents.items():
        path = target.folder / (
            f"annotations/{split}.json" if split else "annotations.json"
        )
        atomic_write_json(path, {**document, "categories": categories})
    target.write_card("instances")


def write_labelme(target: WriterInput) -> None:
    """Write a json beside each image, with masks in the form of LabelMe 5.2 and later."""
    for item, drawn in target.all():
        place = target.place(item, "", every=False)
        shapes: list[dict[str, Any]] = []
        for number, (name, instance) in enumerate(named_regions(drawn, target.names)):
            shape: dict[str, Any] = {
                "label": name,
                "group_id": None,
                "description": "",
                "flags": {},
            }
            if target.polygons and name != IGNORE:
                rings = part_polygons(instance)
                for ring in rings:
                    group = number if len(rings) > 1 else None
                    shapes.append(
                        {
                            **shape,
                            "group_id": group,
                            "points": ring.tolist(),
                            "shape_type": "polygon",
                        }
                    )
                continue
            y0, x0, y1, x1 = instance.window
            crop = io.BytesIO()
            Image.fromarray(instance.crop.astype(np.uint8)).save(crop, "PNG")
            shapes.append(
                {
                    **shape,
                    "points": [[x0, y0], [x1 - 1, y1 - 1]],
                    "shape_type": "mask",
                    "mask": base64.b64encode(crop.getvalue()).decode(),
                }
            )
        height, width = drawn.size_hw
        document: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": posixpath.basename(place),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        atomic_write_json(
            target.new_file(f"{item.where}.json", item.reference), document
        )
    listed = [
        "__ignore__",
        "_background_",
        *(name for _, name in sorted(target.names.items())),
    ]
    atomic_write_text(
        target.folder / LABELME_LABELS, "".join(f"{name}\n" for name in listed)
    )
    target.write_card("instances")


def write_cvat(target: WriterInput) -> None:
    """Write `annotations.xml`, "CVAT for images 1.1"."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    listed = ElementTree.SubElement(
        ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels"
    )
    has_ignore = False
    for number, (item, drawn) in enumerate(target.all()):
        place = target.place(item, "images", every=False).removeprefix("images/")
        height, width = drawn.size_hw
        image = ElementTree.SubElement(
            root,
            "image",
            {
                "id": str(number),
                "name": place,
                "width": str(width),
                "height": str(height),
            },
        )
        if item.split:
            image.set("name", place.removeprefix(f"{item.split}/"))
            image.set("subset", item.split)
        has_ignore |= drawn.ignore is not None
        for order, (name, instance) in enumerate(named_regions(drawn, target.names)):
            shape = {
                "label": name,
                "source": "auto" if item.predicted else "file",
                "occluded": "0",
                "z_order": str(order),
            }
            if target.polygons and name != IGNORE:
                rings = part_polygons(instance)
                for ring in rings:
                    points = ";".join(f"{x},{y}" for x, y in ring.tolist())
                    group = {"group_id": str(order + 1)} if len(rings) > 1 else {}
                    ElementTree.SubElement(
                        image, "polygon", {**shape, "points": points, **group}
                    )
                continue
            y0, x0, y1, x1 = instance.window
            box = {
                "left": str(x0),
                "top": str(y0),
                "width": str(x1 - x0),
                "height": str(y1 - y0),
            }
            flat = instance.crop.ravel()  # (h * w,); the runs start with background
            runs = np.diff(
                np.flatnonzero(np.diff(flat)) + 1, prepend=0, append=flat.size
            ).tolist()
            rle = ", ".join(map(str, [0, *runs] if flat[0] else runs))
            ElementTree.SubElement(image, "mask", {**shape, "rle": rle, **box})
    for name in [name for _, name in sorted(target.names.items())] + [
        IGNORE
    ] * has_ignore:
        ElementTree.SubElement(
            ElementTree.SubElement(listed, "label"), "name"
        ).text = name
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    atomic_write_text(
        target.folder / "annotations.xml",
        f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n',
    )
    target.write_card("instances")


def write_yolo(target: WriterInput) -> None:
    """Write `data.yaml`, `images/SPLIT/` and `labels/SPLIT/` with one polygon per object."""
    order = sorted(target.names)
    places = {target.names[number]: place for place, number in enumerate(order)}
    used: set[str] = set()
    for item, drawn in target.all():
        split = item.split or "train"
        used.add(split)
        item = replace(item, split=split)
        target.place(item, "images", every=False)
        height, width = drawn.size_hw
        lines = []
        for instance in drawn.objects:
            ring: Ring = one_polygon(instance)
            values = " ".join(
                f"{value:.8g}" for value in (ring / (width, height)).ravel().tolist()
            )
            lines.append(f"{places[named_class(instance, target.names)]} {values}\n")
        if drawn.ignore is not None:
            target.losses.add(
                "images have areas to ignore, which YOLO treats as background",
                item.where,
            )
        atomic_write_text(
            target.new_file(f"labels/{item.where}.txt", item.reference), "".join(lines)
        )
    names = dict(enumerate(target.names[number] for number in order))
    content = {
        "path": ".",
        **{split: f"images/{split}" for split in SPLITS if split in used},
        "names": names,
    }
    atomic_write_text(
        target.folder / "data.yaml",
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
    )
    target.write_card("instances")


def write_label_studio(target: WriterInput) -> None:
    """Write `label-studio.json`, tasks with an annotation each, and the labelling configuration."""
    tags = Tags(kind=POLYGON if target.polygons else BRUSH)
    tasks, has_ignore = [], False
    for item, drawn in target.all():
        target.place(item, "images")
        has_ignore |= drawn.ignore is not None
        regions = []
        for number, (name, instance) in enumerate(
            named_regions(drawn, target.names), start=1
        ):
            region = region_of(instance, drawn.size_hw, name, tags, str(number))
            region["origin"] = "prediction" if item.predicted else "manual"
            regions.append(region)
        tasks.append(
            {"data": task_data(item.where), "annotations": [{"result": regions}]}
        )
    names = [name for _, name in sorted(target.names.items())] + [IGNORE] * has_ignore
    save_tasks(target.folder / TASKS_FILE, tasks)
    atomic_write_text(target.folder / CONFIG_FILE, label_config(names, tags.kind))
    target.write_card("instances")


WRITERS: Mapping[str, Callable[[WriterInput], None]] = {
    "masks": write_masks,
    "coco": write_coco,
    "labelme": write_labelme,
    "yolo": write_yolo,
    "cvat": write_cvat,
    "label-studio": write_label_studio,
}
