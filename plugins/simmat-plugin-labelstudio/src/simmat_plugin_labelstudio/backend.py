"""What the model answers to Label Studio: masks for prompts, and all objects or classes of an image."""

from __future__ import annotations

import io
import math
import threading
import xml.etree.ElementTree as ElementTree
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from PIL import Image
from pydantic import ConfigDict, Field
from simmat_plugin_annotate.remote import RemoteImage, RemotePredictor
from simmat_plugin_convert.label_studio import (
    BRUSH,
    POLYGON,
    SAMPLE,
    Region,
    Tags,
    label_config,
    region_of,
    sample_of,
    task_data,
)
from simmat_plugin_convert.labels import NO_CLASS
from simmat_plugin_convert.shapes import turned_box

from simmat.data.dataset import Dataset
from simmat.data.instances import Instance, region_from_mask
from simmat.documents import FromLists, StrictModel, parse
from simmat.drawing.display import display_rgb
from simmat.errors import ConfigError, DataError, SimMATError
from simmat.io.states import file_times
from simmat.predictor import Predictor, TiledImage
from simmat.terminal import echo
from simmat.types import Prompt, Window

_MAX_CACHED_BYTES = 2**29
"""Images and embeddings that stay in memory for the next click."""
MAX_CACHED_IMAGES = 256
"""Most of them: of an image that is read in parts, or is on a server, not all memory is counted."""


class _Table(StrictModel):
    model_config = ConfigDict(extra="ignore")


class _Context(_Table):
    result: FromLists[tuple[Region, ...]] = ()


class _Params(_Table):
    context: _Context | None = None


class _Task(_Table):
    data: dict[str, Any]


class _Setup(_Table):
    label_config: str = Field("", alias="schema")


class _Predict(_Table):
    tasks: FromLists[tuple[_Task, ...]]
    label_config: str
    params: _Params | None = None


_MAX_CONFIG = 2**20
"""Most characters of a labelling configuration."""
_MAX_TAG_DEPTH = 50
"""Most tags around a tag of it."""
_MAX_PERCENT = 1e6
"""Most of a place or side of a prompt; labels may lie beside the image."""


class UnknownSampleError(DataError):
    """No image has the name that a task or an address gives."""


class Backend:
    """A model and the images of a folder, as Label Studio asks for them.

    Attributes:
        samples: path of an image below `images/`, without ending -> its files.
        address: where browsers find this server.
        version: names the model and its weights.
    """

    def __init__(
        self,
        predictor: Predictor | RemotePredictor,
        name: str,
        images: Dataset,
        address: str,
        *,
        semantic: bool = False,
    ) -> None:
        """Take a model of this name and images.

        Args:
            semantic: pre-annotate with the class of every pixel, not with objects.
        """
        self.samples = {
            one.image_id: one.files for one in (*images.samples, *images.unlabelled)
        }
        self.address = address
        self.version = f"{name}-{predictor.digest[:8]}"
        self.predictor, self._semantic = predictor, semantic
        known = () if predictor.dense is None else predictor.dense.classes
        self.class_names = {
            one: predictor.class_names.get(one, str(one))
            for one in known
            if one is not None
        }
        self._images: OrderedDict[tuple[str, bytes], TiledImage | RemoteImage] = (
            OrderedDict()
        )
        self._lock = threading.Lock()

    def tasks(self) -> list[dict[str, Any]]:
        """Return a task for each image."""
        return [{"data": task_data(sample, self.address)} for sample in self.samples]

    def label_config(self) -> str:
        """Return a labelling configuration with the classes of the model."""
        return label_config(list(self.class_names.values()) or [NO_CLASS])

    def picture(self, sample: str) -> bytes:
        """Return an image as PNG of its own size, with the colours of its quantities."""
        reader = self.predictor.reader(self._files(sample))
        stream = io.BytesIO()
        Image.fromarray(display_rgb(reader.read(Window(0, 0, *reader.size_hw)))).save(
            stream, "PNG"
        )
        return stream.getvalue()

    def setup(self, body: object) -> dict[str, str]:
        """Check the labelling configuration of a project, and return the version of the model."""
        tags_of(parse(_Setup, body, "the request of Label Studio").label_config)
        return {"model_version": self.version}

    def predict(self, body: object) -> dict[str, Any]:
        """Return a prediction for each task: the mask of a prompt where there is one, else all that is found.

        Raises:
            SimMATError: a request cannot be answered. Of tasks without a prompt, the others are answered.
        """
        request = parse(_Predict, body, "the request of Label Studio")
        tags, labels = tags_of(request.label_config)
        context = None if request.params is None else request.params.context
        results = []
        for task in request.tasks:
            sample = sample_of(task.data)
            try:
                with self._lock:
                    if context is not None and context.result:
                        found = self._prompted(sample, context.result, labels)
                    else:
                        found = self._unprompted(sample, labels)
                    size_hw = self._image(sample).reader.size_hw
            except SimMATError as error:
                if len(request.tasks) == 1:
                    raise
                echo(f"warning: {sample}: {error}", err=True)
                found, size_hw = [], (1, 1)
            regions = [
                {
                    **region_of(one, size_hw, label, tags, uuid4().hex[:10]),
                    "score": score,
                }
                for one, label, score in found
            ]
            score = float(np.mean([score for _, _, score in found])) if found else 0.0
            results.append(
                {"result": regions, "score": score, "model_version": self.version}
            )
        return {"results": results, "model_version": self.version}

    def _prompted(
        self, sample: str, prompts: Sequence[Region], labels: Sequence[str]
    ) -> list[tuple[Instance, str, float]]:
        """Return the object of a prompt with its label and score; none without a point on it or a box."""
        image = self._image(sample)
        prompt = prompt_of(prompts, image.reader.size_hw)
        if prompt.box is None and not prompt.point_labels.any():
            return []
        found = image.predict(prompt).found_object((0.0, 0.0))
        if found is None:
            return []
        label = prompts[-1].label
        if label is None or label not in labels:
            label = self._label(found.instance.class_id, labels) or labels[0]
        return [(found.instance, label, float(found.score))]

    def _unprompted(
        self, sample: str, labels: Sequence[str]
    ) -> list[tuple[Instance, str, float]]:
        """Return all objects, or the pixels of each class, whose class is a label."""
        image = self._image(sample)
        found: list[tuple[Instance | None, float]]
        if self._semantic:
            classes = image.segment_semantic()
            masks = [(value, classes.labels == value) for value in self.class_names]
            found = [
                (
                    region_from_mask(mask, value),
                    float(classes.probability[mask].mean()) if mask.any() else 0.0,
                )
                for value, mask in masks
            ]
        else:
            found = [
                (one.instance, float(one.score)) for one in image.segment_everything()
            ]
        if not any(self._label(value, labels) for value in self.class_names or (None,)):
            own = ", ".join(self.class_names.values()) or NO_CLASS
            raise ConfigError(
                f"none of the labels {', '.join(labels)} is a class of the model: {own}; add one"
            )
        named = [
            (one, self._label(one.class_id, labels), score)
            for one, score in found
            if one is not None
        ]
        return [(one, label, score) for one, label, score in named if label is not None]

    def _label(self, class_id: int | None, labels: Sequence[str]) -> str | None:
        """Return the label of a class: of its name, or the only one of a model of at most one class."""
        name = (
            NO_CLASS
            if class_id is None
            else self.class_names.get(class_id, str(class_id))
        )
        if name in labels:
            return name
        return labels[0] if len(labels) == 1 and len(self.class_names) < 2 else None

    def _files(self, sample: str) -> dict[str, Path]:
        if sample not in self.samples:
            raise UnknownSampleError(
                f"no image {sample!r} in the folder of --data; its field {SAMPLE!r} is the path below images/ without "
                "ending"
            )
        return self.samples[sample]

    def _image(self, sample: str) -> TiledImage | RemoteImage:
        """Return an image with its embedding, from memory where it was used lately and its files are the same."""
        files = self._files(sample)
        key = sample, file_times(map(str, files.values())).tobytes()
        image = self._images.pop(key, None) or self.predictor.open_image(files)
        self._images[key] = image
        while len(self._images) > 1 and (
            len(self._images) > MAX_CACHED_IMAGES
            or sum(one.cached_bytes for one in self._images.values())
            > _MAX_CACHED_BYTES
        ):
            self._images.popitem(last=False)
        return image


class _ShallowTree(ElementTree.TreeBuilder):
    """Builds XML whose tags are not nested deeper than a person nests them: reading them takes time for each level."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(
        self, tag: str, attributes: dict[Any, Any], /
    ) -> ElementTree.Element[str]:
        """Open a tag."""
        self._depth += 1
        if self._depth > _MAX_TAG_DEPTH:
            raise ConfigError(
                f"the labelling configuration nests more than {_MAX_TAG_DEPTH} tags; leave some out"
            )
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> ElementTree.Element[str]:
        """Close a tag."""
        self._depth -= 1
        return super().end(tag)


def tags_of(config: str) -> tuple[Tags, list[str]]:
    """Return the tags of a labelling configuration that hold masks, the first ones, and their labels.

    Raises:
        ConfigError: it has none, is not XML, or too large.
    """
    if len(config) > _MAX_CONFIG:
        raise ConfigError(
            f"the labelling configuration has {len(config)} characters, at most {_MAX_CONFIG} are allowed; shorten it"
        )
    try:
        # entities can expand without limit
        if "<!DOCTYPE" in config or "<!ENTITY" in config:
            raise ConfigError(
                "the labelling configuration declares entities; write their text"
            )
        parser = ElementTree.XMLParser(target=_ShallowTree())
        view = ElementTree.fromstring(config, parser)
    # a character that is none
    except (ElementTree.ParseError, UnicodeError) as error:
        raise ConfigError(f"the labelling configuration is not XML: {error}") from None
    kinds = {"BrushLabels": BRUSH, "PolygonLabels": POLYGON}
    for tag in view.iter():
        labels = [
            label.get("alias") or label.get("value") or ""
            for label in tag.iter("Label")
        ]
        if tag.tag in kinds and labels:
            return Tags(
                tag.get("toName", ""), tag.get("name", ""), kinds[tag.tag]
            ), labels
    raise ConfigError(
        "the labelling configuration has no BrushLabels and no PolygonLabels, one of which masks need; add one"
    )


def prompt_of(prompts: Sequence[Region], size_hw: tuple[int, int]) -> Prompt:
    """Return key points and the last rectangle of Label Studio, in percent of an image, as a prompt in its pixels.

    Raises:
        ConfigError: a value is missing, not a number, or too large.
    """
    height, width = size_hw
    points, marks, box = [], [], None
    for one in prompts:
        kind = one.type.removesuffix("labels")
        names = {
            "keypoint": ("x", "y"),
            "rectangle": ("x", "y", "width", "height"),
        }.get(kind)
        if names is None:
            continue
        x, y, *sides = (_number_of(one, name) / 100 for name in names)
        degrees = _number_of(one, "rotation", 0)
        x, y = x * width, y * height
        if sides:  # the box around it, as it may be turned about its first corner
            corners = turned_box(
                (x, y, sides[0] * width, sides[1] * height), degrees, (x, y)
            )
            corners = np.clip(corners, 0, [width, height])
            box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        else:  # the centre of the first pixel is (0, 0)
            points.append(np.clip([x - 0.5, y - 0.5], 0, [width - 1, height - 1]))
            marks.append(one.is_positive is None or bool(one.is_positive))
    coords = np.asarray(points, np.float32).reshape(-1, 2)
    return Prompt(
        coords,
        np.asarray(marks, np.int64),
        None if box is None else box.astype(np.float32),
    )


def _number_of(prompt: Region, name: str, missing: float | None = None) -> float:
    """Return a number of a prompt; raise ConfigError if it is none, or not one that a person can draw."""
    value: Any = prompt.value.get(name, missing)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= _MAX_PERCENT:  # also of nan
        kind = prompt.type.removesuffix("labels")
        raise ConfigError(
            f"{name} of a {kind} must be a number up to {_MAX_PERCENT:.0f}, got {str(value)[:50]!r}"
        )
    return number
