"""A model on another machine: the answers of a predictor, requested from `simmat serve`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simmat.data.instances import FoundObject, Instance
from simmat.errors import DataError
from simmat.io.paths import frame_of
from simmat.model_spec import DenseSpec
from simmat.plugins.loader import installed
from simmat.plugins.registry import Registry
from simmat.predictor import ClassMap, FoundObjects, ImageLike, ImageLoader, prompt_of
from simmat.sensors.adapter import ModalityAdapter, with_data_card
from simmat.sensors.options import (
    is_sensor_file,
    modality_parts,
    options_by_sensor,
    parse_options,
)
from simmat.sensors.sensor_toml import parse_sensor_definition
from simmat.types import BoolArray, Channel, ImageReader, Prompt, SensorImage, Window
from simmat_plugin_annotate.client import Client, check_values, with_crops
from simmat_plugin_annotate.option_paths import paths_among

_WHOLE_SIDE = 4096
"""Largest side of an image that is loaded here as a whole where its files can be read in parts."""


class _Client(Client):
    _error = DataError


@dataclass(frozen=True)
class RemotePrediction:
    """A mask for a prompt, with what `Prediction` has of the same name.

    Attributes:
        mask: (H, W) bool.
        window: the whole image.
        found: the object; None if the mask is empty.
    """

    mask: BoolArray
    score: float
    class_id: int | None
    warning: str
    window: Window
    found: FoundObject | None

    def found_object(self, point_xy: tuple[float, float]) -> FoundObject | None:
        """Return the mask in pixels of the whole image; None if it is empty."""
        return self.found


class RemoteImage:
    """An image on the server.

    Attributes:
        reader: the same image here.
        cached_bytes: memory that it takes.
    """

    def __init__(
        self, client: Client, reader: ImageReader, class_names: Mapping[int, str]
    ) -> None:
        self.reader = reader
        self.client = client
        self._class_names = class_names
        self.cached_bytes = client.sent_bytes
        if isinstance(reader, SensorImage):
            self.cached_bytes += reader.data.nbytes + reader.valid.nbytes

    def predict(self, prompt: Prompt) -> RemotePrediction:
        """Segment the object that a prompt marks; DataError if it has a mask, or the server refuses it."""
        if prompt.mask_input is not None:
            raise DataError(
                "a server takes points and a box, not an earlier mask; leave mask_input out"
            )
        marked = zip(
            prompt.point_coords.tolist(), prompt.point_labels.tolist(), strict=True
        )
        body: dict[str, Any] = {"points": [[x, y, label] for (x, y), label in marked]}
        if prompt.box is not None:
            body["box"] = prompt.box.tolist()
        answer = self.client.ask("POST", "predict", body)
        whole = Window(0, 0, *self.reader.size_hw)
        found = None
        mask = np.zeros(self.reader.size_hw, np.bool_)
        with self.client.valid_answer():
            one = answer["masks"][0]
            check_values(one)
            if one["mask"] is not None:
                (found,) = self._objects([one])
                mask = found.instance.within(whole)
            return RemotePrediction(
                mask,
                float(one["score"]),
                one["class"],
                str(answer["warning"]),
                whole,
                found,
            )

    def segment_everything(self) -> FoundObjects:
        """Find every object, best first; DataError if the server refuses it."""
        answer = self.client.ask("GET", "everything")
        with self.client.valid_answer():
            found = self._objects(answer["objects"])
        return FoundObjects(found, self.reader, self._class_names)

    def segment_semantic(self) -> ClassMap:
        """Return the class of every pixel, with the mean probability of the class; DataError without a dense head."""
        answer = self.client.ask("GET", "classes")
        with self.client.valid_answer():
            return self._class_map(answer)

    def _class_map(self, answer: Mapping[str, Any]) -> ClassMap:
        for one in answer["classes"]:
            check_values(one, "probability")
        values = sorted(
            {0, *self._class_names, *(one["class"] for one in answer["classes"])}
        )
        dtype = np.min_scalar_type(values[-1] + 1)
        nodata = int(np.iinfo(dtype).max)
        labels = np.zeros(self.reader.size_hw, dtype)
        probability = np.zeros(self.reader.size_hw, np.float32)
        unmeasured = {"mask": answer["unmeasured"], "class": nodata, "probability": 0}
        masks = (*answer["classes"], unmeasured)
        for one, crop in with_crops(masks, self.reader.size_hw):
            if crop is None:
                continue
            x0, y0, x1, y1 = one["mask"]["box"]
            labels[y0:y1, x0:x1][crop] = one["class"]
            probability[y0:y1, x0:x1][crop] = one["probability"]
        return ClassMap(
            labels,
            probability,
            tuple(values),
            self.reader,
            self._class_names,
            0,
            nodata,
        )

    def _objects(self, answers: Iterable[dict[str, Any]]) -> list[FoundObject]:
        """Return the objects of an answer."""
        found = []
        for one, crop in with_crops(answers, self.reader.size_hw):
            check_values(one)
            if crop is None:
                raise ValueError("an object has no mask")
            x0, y0, x1, y1 = one["mask"]["box"]
            value = one["class"]
            instance = Instance(value, Window(y0, x0, y1, x1), crop)
            probabilities = None
            if value is not None:
                probabilities = {value: float(one["class_probability"])}
            x, y = one.get("point", (0.0, 0.0))
            point_xy = (float(x), float(y))
            found.append(
                FoundObject(instance, float(one["score"]), point_xy, probabilities)
            )
        return found


class RemotePredictor:
    """A model on a server, used as a `Predictor`: images are sent there. It does not follow objects through frames.

    Attributes:
        adapter: the sensor with the options of the model, which must be installed here.
        inputs: what it takes, with its `channels`.
        dense: classes of its class map; None without one.
        class_names: label value -> name.
        name: name of the bundle on the server.
        digest: identifies the weights.
    """

    def __init__(self, address: str, registry: Registry | None = None) -> None:
        """Connect to the address that `simmat serve` prints.

        Raises:
            DataError: there is no answer, or the token is wrong.
            UnknownNameError: the sensor is not installed here.
        """
        self._client = _Client(address)
        model = self._client.model
        known = registry or installed()
        with self._client.valid_answer():
            self.adapter = _sensor(model, known, self._client.place)
            self.image_loader = ImageLoader(self.adapter, None)
            self.image_loader.channels = tuple(
                Channel(**channel) for channel in model["channels"]
            )
            self.class_names = {
                int(value): name for value, name in model["classes"].items()
            }
            self.dense: DenseSpec | None = None
            if model["has_class_map"]:
                self.dense = DenseSpec(
                    background=True, classes=(*self.class_names,) or (None,)
                )
            self.name: str = model["name"]
            self.digest: str = model["digest"]
        self._current: RemoteImage | None = None

    def open_image(self, image: ImageLike) -> RemoteImage:
        """Send an image: files as they are; an array, a loaded image or a frame in the units of its channels.

        Raises:
            SimMATError: it cannot be read here, or the server refuses it.
        """
        client = copy(self._client)
        reader = self.reader(image)
        if isinstance(image, str | Path):
            image = {self.adapter.source_names()[0]: image}
        if isinstance(image, Mapping) and not any(
            frame_of(Path(file)) for file in image.values()
        ):
            try:
                client.set_image(image, reader.size_hw)
            except OSError as error:
                raise DataError(
                    f"{reader.origin}: cannot be sent: {error.strerror}"
                ) from error
        else:
            whole = reader.read(Window(0, 0, *reader.size_hw))
            client.set_image(np.where(whole.valid, whole.data, np.float32(np.nan)))
        return RemoteImage(client, reader, self.class_names)

    def reader(self, image: ImageLike) -> ImageReader:
        """Load an image on this machine, or open a large one; raise SimMATError if it cannot be read."""
        return self.image_loader.reader(image, (), _WHOLE_SIDE)

    def set_image(self, image: ImageLike) -> None:
        """Send an image, see `open_image`; the other methods then work on it."""
        self._current = None
        self._current = self.open_image(image)

    def predict(
        self,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
    ) -> RemotePrediction:
        """Segment the object that a prompt marks in the current image; see `Predictor.predict`."""
        return self._image.predict(prompt_of(points, labels, box))

    def predict_prompts(self, prompts: Sequence[Prompt]) -> list[RemotePrediction]:
        """Segment the objects that prompts mark."""
        return [self._image.predict(prompt) for prompt in prompts]

    def segment_everything(self) -> FoundObjects:
        """Find every object of the current image."""
        return self._image.segment_everything()

    def segment_semantic(self) -> ClassMap:
        """Return the class of every pixel of the current image."""
        return self._image.segment_semantic()

    @property
    def _image(self) -> RemoteImage:
        if self._current is None:
            raise ValueError("no image is set; call set_image first")
        return self._current


def _sensor(
    model: Mapping[str, Any], registry: Registry, place: str
) -> ModalityAdapter:
    """Return the sensor that a server describes; DataError if a file of this machine would be read for it."""
    for name in modality_parts(model["sensor"]):
        if is_sensor_file(name):
            raise DataError(
                f"{place}: the sensor must be a name, got the path {name!r}; ask the owner of the server"
            )
    definitions = [
        parse_sensor_definition(one, place)
        for one in model.get("sensor_definitions", [])
    ]
    sensor = registry.modality(model["sensor"], sensor_definitions=definitions)
    parts = sensor.sensors()
    options = model["options"]
    of_card = options_by_sensor(
        model["card"].get("modality_options") or {},
        [part.name for part in parts],
        with_others=True,
    )
    for part in parts:
        given = {**of_card.get(part.name, {}), **options.get(part.name, {})}
        parsed = parse_options(part.Options, given, part.name)
        for path in paths_among(parsed.model_dump(exclude_unset=True)):
            raise DataError(
                f"{place}: an option of the sensor {part.name!r} is the path {path!r}, which would be read on this "
                "machine; ask the owner of the server"
            )
    return with_data_card(sensor.with_options(options), model["card"])
