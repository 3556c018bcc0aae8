"""Labels as tasks of Label Studio: masks as its brush paints them, and polygons in percent of the image."""

from __future__ import annotations

import json
import posixpath
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import Field

from simmat.data.dataset import open_images
from simmat.data.instances import Instance
from simmat.documents import FromLists, StrictModel, parse
from simmat.errors import DataError
from simmat.io.files import atomic_write_text
from simmat.io.reading import read_json
from simmat_plugin_convert.brush import encode_brush
from simmat_plugin_convert.image_files import stem_of
from simmat_plugin_convert.labels import (
    NO_CLASS,
    ClassNumbers,
    Item,
    Labels,
    ReaderInput,
)
from simmat_plugin_convert.outlines import one_polygon
from simmat_plugin_convert.shapes import Shapes

TASKS_FILE = "label-studio.json"
"""The file of tasks that is written."""
CONFIG_FILE = "label-config.xml"
"""The labelling configuration with its classes."""
EXPORTS = "project-*-at-*.json"
"""Pattern of the names of Label Studio's exports."""
SAMPLE = "sample"
"""Field of a task: path of the image below `images/`, without ending."""
ADDRESS = "http://localhost:9090"
"""Default address at which `simmat labelstudio` shows images as pictures."""
BRUSH, POLYGON = "brushlabels", "polygonlabels"
"""Types of regions."""


class Region(StrictModel, extra="ignore"):
    """A region of an annotation or a prediction, or a prompt; `value` depends on `type`.

    `origin` is "manual", "prediction", or "prediction-changed" if a person has corrected it.
    """

    type: str = ""
    id: str | None = None
    origin: str | None = None
    value: dict[str, Any] = Field(default_factory=dict)
    original_width: float | None = None
    original_height: float | None = None
    image_rotation: float | None = None
    is_positive: bool | int | None = None

    @property
    def label(self) -> str | None:
        """Its class; None if it has none."""
        names = self.value.get(self.type)
        return (
            names[0]
            if isinstance(names, list) and names and isinstance(names[0], str)
            else None
        )


class _TaskAnnotation(StrictModel, extra="ignore"):
    result: FromLists[tuple[Region, ...]]
    was_cancelled: bool = False
    ground_truth: bool = False


class _LabelledTask(StrictModel, extra="ignore"):
    data: dict[str, Any]
    id: int | str | None = None
    annotations: FromLists[tuple[_TaskAnnotation, ...]] = ()
    predictions: Any = None


class _Tasks(StrictModel, extra="ignore"):
    tasks: FromLists[tuple[_LabelledTask, ...]]


@dataclass(frozen=True)
class Tags:
    """The tags of a labelling configuration that regions belong to.

    Attributes:
        image: name of the image.
        labels: name of the labels.
        kind: `BRUSH` or `POLYGON`.
    """

    image: str = "image"
    labels: str = "mask"
    kind: str = BRUSH


def region_of(
    instance: Instance, size_hw: tuple[int, int], label: str, tags: Tags, number: str
) -> dict[str, Any]:
    """Return an object as a region of a task.

    Args:
        number: its id, which no other region of the task has.
    """
    height, width = size_hw
    value: dict[str, Any]
    if tags.kind == BRUSH:
        value = {"format": "rle", "rle": encode_brush(instance.mask(size_hw))}
    else:
        value = {
            "points": (one_polygon(instance) * 100 / [width, height]).tolist(),
            "closed": True,
        }
    return {
        "id": number,
        "type": tags.kind,
        "from_name": tags.labels,
        "to_name": tags.image,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, tags.kind: [label]},
    }


def task_data(sample: str, address: str = ADDRESS) -> dict[str, Any]:
    """Return the data of a task: the sample, and the address at which `simmat labelstudio` shows it as a picture."""
    return {"image": f"{address}/images/{quote(sample)}.png", SAMPLE: sample}


def save_tasks(path: Path, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Write tasks in one line: indented, each byte of a brush would have one."""
    atomic_write_text(
        path, json.dumps(tasks, separators=(",", ":"), allow_nan=False) + "\n"
    )


def label_config(names: Collection[str], kind: str = BRUSH) -> str:
    """Return a labelling configuration with these classes, and with clicks and boxes that ask the model."""
    view = ElementTree.Element("View")
    tags = Tags(kind=kind)
    shapes = "BrushLabels" if kind == BRUSH else "PolygonLabels"
    for tag, name in (
        (shapes, tags.labels),
        ("KeyPointLabels", "click"),
        ("RectangleLabels", "box"),
    ):
        smart = {} if tag == shapes else {"smart": "true", "smartOnly": "true"}
        ElementTree.SubElement(view, "Header", {"value": name, "size": "6"})
        listed = ElementTree.SubElement(
            view, tag, {"name": name, "toName": tags.image, **smart}
        )
        for one in names:
            ElementTree.SubElement(listed, "Label", {"value": one})
    picture = {
        "name": tags.image,
        "value": "$image",
        "zoom": "true",
        "zoomControl": "true",
    }
    ElementTree.SubElement(view, "Image", picture)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def read_label_studio(source: ReaderInput) -> Labels:
    """Read tasks as Label Studio exports them in its format JSON: what is painted or drawn.

    The image of a task is the one that its field `sample` names, or else the name of its picture. Of several
    annotations the one marked as ground truth counts, or else the last. A task without an annotation is skipped, even
    if it has predictions: they are no labels until a person accepts them.
    """
    paths = task_files(source.root)
    if len(paths) != 1:
        listed = (
            ", ".join(path.name for path in paths)
            or f"no {EXPORTS} and no {TASKS_FILE}"
        )
        raise DataError(
            f"{source.root}: expected one file of tasks, got {listed}; keep the one to read"
        )
    where = f"{paths[0]} (as Label Studio exports JSON, not JSON-MIN)"
    tasks = parse(
        _Tasks, {"tasks": read_json(paths[0], "tasks of Label Studio")}, where
    ).tasks
    card = source.known_card()
    numbers = ClassNumbers(card.class_names)
    dataset = open_images(source.root, source.adapter, source.card)
    samples = {
        sample.image_id: sample for sample in (*dataset.samples, *dataset.unlabelled)
    }
    items: list[Item] = []
    skipped = 0
    for task in tasks:
        name = sample_of(task.data)
        where = f"task {name if task.id is None else task.id}"
        done = [one for one in task.annotations if not one.was_cancelled]
        if name not in samples:
            source.problems.append(
                f"{paths[0]}: {where}: no image {name!r} in {source.root}, see its field {SAMPLE!r}"
            )
        elif not done:
            skipped += 1
            if task.predictions:
                source.losses.add("tasks have predictions that nobody accepted", where)
        else:
            source.losses.add(
                "annotations of images that have another annotation",
                where,
                len(done) - 1,
            )
            chosen = next((one for one in done if one.ground_truth), done[-1])
            item = Shapes(source, paths[0], samples[name].files, numbers, where)
            # where shapes and classes are tags of their own, a region is two with the same id
            classes = {
                one.id: one.label for one in chosen.result if one.label is not None
            }
            for number, region in enumerate(chosen.result, start=1):
                item.check_stated(region.original_height, region.original_width)
                item.predicted |= region.origin == "prediction"
                item.label_studio(
                    number, region.type, region.value, classes.get(region.id, NO_CLASS)
                )
                if region.image_rotation:
                    source.problems.append(
                        f"{paths[0]}: {where} was labelled on its side; turn it back and label again"
                    )
            items.append(item.item(name, ""))
    if skipped and not items and not source.problems:
        raise DataError(
            f"{paths[0]}: no task has an annotation; label the images, or accept their predictions, and export again"
        )
    return source.done(items, numbers, card, "tasks of Label Studio", skipped=skipped)


def task_files(root: Path) -> list[Path]:
    """Return what Label Studio exported, or else the tasks that were written for it."""
    return sorted(root.glob(EXPORTS)) or [
        path for path in (root / TASKS_FILE,) if path.is_file()
    ]


def sample_of(data: Mapping[str, Any]) -> str:
    """Return the sample of a task; an uploaded picture has 8 digits and a dash before its own name."""
    if isinstance(name := data.get(SAMPLE), str):
        return name
    picture = next(
        (
            value
            for value in (data.get("image"), *data.values())
            if isinstance(value, str)
        ),
        "",
    )
    try:
        path = urlsplit(picture).path
    except ValueError:  # such as "http://[", which then names no image
        path = picture
    return re.sub(
        r"^[0-9a-f]{8}-",
        "",
        stem_of(posixpath.basename(unquote(path))),
    )
