"""State shared by the routes: one folder, one model, any number of tabs; and its json documents for the page."""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from simmat.data.instances import Instance
from simmat.drawing.display import apply_colour_map, display_channels, display_style
from simmat.errors import SimMATError
from simmat.sensors.adapter import channel_spans
from simmat_plugin_annotate.drafts import Draft, Edited, is_predicted, score_of
from simmat_plugin_annotate.folder import LabelFolder
from simmat_plugin_annotate.follow import MIN_SCORE, FollowService
from simmat_plugin_annotate.labels import LabelledImage
from simmat_plugin_annotate.masks import encode_mask
from simmat_plugin_annotate.measured import MeasuredImage
from simmat_plugin_annotate.models import ModelService, ServedModel
from simmat_plugin_annotate.planes import TILE, Planes
from simmat_plugin_annotate.predictions import Predictions
from simmat_plugin_annotate.requests import MAX_EDITS
from simmat_plugin_annotate.security import MAX_BODY
from simmat_plugin_annotate.suspect_service import SuspectService
from simmat_plugin_annotate.training import Training

MAPS = ("gray", "inferno", "turbo", "twilight")
"""Colour maps, which the page gets as base64 of (256, 3) sRGB bytes."""
Result = TypeVar("Result")
_MAX_MEASURED = 4
"""Most images whose measured objects are kept."""


class Annotator:
    """State shared by the routes.

    Attributes:
        session: random id, new at each start.
        predictions: objects from elsewhere, to correct.
        following: fills frames with the objects of others.
        suspects: compares the labels with trainings.
    """

    def __init__(
        self,
        root: Path,
        adapter: Any,
        overrides: Mapping[str, object],
        model: Callable[[LabelFolder], ServedModel],
        train: Callable[[LabelFolder, ServedModel], list[str]],
        load: Callable[[Path], ServedModel],
        predictions: Path | None = None,
        defaults: Mapping[str, object] | None = None,
    ) -> None:
        """Open a folder, locked by `locked_folder`, and load a model for it.

        Args:
            overrides: fields of the card from the command line.
            train: returns the arguments of `simmat train`.
            load: loads the bundle of a training.
            predictions: COCO file, or folder of `simmat predict`.
            defaults: fields of the card that it leaves out.

        Raises:
            SimMATError: folder, card or model cannot be used.
        """
        self.session = secrets.token_hex(8)
        self.folder = LabelFolder(root, adapter, overrides, defaults)
        first = model(self.folder)
        self.folder.recover()
        self.service = ModelService(first, self.folder.planes, self.class_names)
        self.training = Training(
            self.folder.root,
            lambda: train(self.folder, self.service.model),
            lambda: self.publish("training", self.training.document()),
            self._adopt,
        )
        self.predictions = Predictions()
        if predictions is not None:
            self._take_predictions(Predictions.read(predictions, self.folder.images))
        self.following = FollowService(
            self.folder,
            self.service,
            partial(self.publish_image, followed=True),
            lambda: self.publish("follow", self.following.document),
        )
        self.suspects = SuspectService(
            self.folder,
            self.service,
            load,
            self.on_files,
            lambda: self.publish("check", self.suspects.document),
        )
        self.files = ThreadPoolExecutor(4, thread_name_prefix="files")
        self._load = load
        self._listeners: set[asyncio.Queue[tuple[str, Any]]] = set()
        # most recently used last
        self._measured: dict[str, MeasuredImage] = {}
        self._measured_lock = threading.Lock()

    def class_names(self) -> dict[int, str]:
        """Return id -> name of the folder's classes."""
        return {one.id: one.name for one in self.folder.state.classes}

    def _take_predictions(self, found: Predictions) -> None:
        """Use predictions as suggestions; the folder gets their classes unless it has labels without classes."""
        state = self.folder.state
        known = [(one.id, one.name, one.colour) for one in state.classes]
        new = [
            name
            for name in found.class_names
            if name not in {one.name for one in state.classes}
        ]
        if new and (known or not any(map(self.folder.is_labelled, self.folder.images))):
            self.folder.set_classes(
                [*known, *((None, name[:100], None) for name in new)]
            )
        self.predictions = found

    def imported(self, key: str, labelled: Sequence[Instance]) -> dict[str, Any] | None:
        """Return the imported objects of an image that are not labelled yet, as suggestions; None if there are none."""
        ids = {name: number for number, name in self.class_names().items()}
        objects = self.predictions.suggestions(
            key, self.folder.planes(key).size_hw, labelled, ids
        )
        return {"objects": objects, "imported": True} if objects else None

    def publish(self, event: str, data: Any) -> None:
        """Send an event to every tab; call it on the event loop."""
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((event, data))

    def publish_image(self, key: str, *, followed: bool = False) -> None:
        """Tell every tab that the labels of an image have changed; `followed` if by following."""
        self.publish(
            "image",
            {
                "key": key,
                **self._progress(key),
                **({"follow": True} if followed else {}),
            },
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncio.Queue[tuple[str, Any]]]:
        """Yield a queue that gets all events inside the block."""
        queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(256)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    async def on_files(self, work: Callable[[], Result]) -> Result:
        """Run work that reads or writes files."""
        return await asyncio.get_running_loop().run_in_executor(self.files, work)

    def close(self) -> None:
        """End the threads, after running writes have finished."""
        self.service.closing.set()
        self.files.shutdown(wait=True, cancel_futures=True)
        self.folder.flush()
        self.service.close()

    async def _adopt(self, bundle: Path) -> None:
        model = await self.service.run(partial(self._load, bundle))
        await self.service.run(partial(self.service.take, model))
        name = bundle.relative_to(self.folder.root).as_posix()
        await self.on_files(partial(self.folder.keep_bundle, name))
        self.publish("model", model.document())

    def session_document(self) -> dict[str, Any]:
        """Return the state of the session: sensor, classes, model, training."""
        folder, ramp = self.folder, np.linspace(0, 1, 256, dtype=np.float32)[None]
        return {
            "session": self.session,
            "folder": str(folder.root),
            "name": folder.root.name,
            "classes": self.classes_document(),
            "regions": folder.card.regions,
            "notice": folder.notice,
            "model": self.service.model.document(),
            "maps": {
                name: base64.b64encode(apply_colour_map(ramp, name).tobytes()).decode()
                for name in MAPS
            },
            "limits": {"body": MAX_BODY, "edits": MAX_EDITS, "score": MIN_SCORE},
            "following": self.following.document,
            "training": self.training.document(),
            "check": self.suspects.document,
        }

    def classes_document(self) -> list[dict[str, Any]]:
        """Return the classes in their order."""
        return [one.model_dump() for one in self.folder.state.classes]

    def images_document(self) -> list[dict[str, Any]]:
        """Return the list of images with their progress."""
        folder, splits = self.folder, self.folder.splits()
        return [
            {
                "key": key,
                "name": sample.id,
                "sequence": sample.sequence,
                "split": splits.get(sample.id, sample.split),
                **self._progress(key),
                "predicted": self.predictions.of_image(key),
                "problem": folder.problems.get(key, ""),
            }
            for key, sample in folder.images.items()
        ]

    def _progress(self, key: str) -> dict[str, Any]:
        """Return how far an image is; of a frame also how many objects were followed, and their lowest score."""
        last_step, labelled = self.folder.last_step(key), self.folder.is_labelled(key)
        progress: dict[str, Any] = {
            "labelled": labelled,
            "done": last_step is not None and last_step.done,
            "objects": last_step.objects
            if last_step is not None
            else None
            if labelled
            else 0,
            "version": 0 if last_step is None else last_step.version,
            "of_model": self._of_model(key),
        }
        if self.folder.find(key).sequence and last_step is not None:
            progress |= {"followed": last_step.followed, "score": last_step.score}
        return progress

    def _of_model(self, key: str) -> int | None:
        """Return the number of objects that a model found; None if there are some, but their number is not known."""
        last_step = self.folder.last_step(key)
        if last_step is not None and last_step.predicted:
            return last_step.predicted
        if self.folder.is_predicted(key):
            return None
        return 0

    def set_track_classes(
        self, key: str, classes: Mapping[int, int | None]
    ) -> list[str]:
        """Give objects their class in the other frames of a sequence; return the frames that have changed."""
        changed = []
        for one, step in self.folder.frames.steps(key).items() if classes else ():
            if one != key and any(
                number in classes and classes[number] != known
                for number, known in step.ids or ()
            ):
                labels = self.folder.labels(one)
                with labels.lock:
                    labels.edit(labels.version, partial(_set_classes, classes))
                changed.append(one)
        return changed

    def accept_frames(self, key: str, score: float) -> list[str]:
        """Accept the followed frames of a sequence whose lowest score is at least `score`; return them."""
        steps = self.folder.frames.steps(key).items()
        keys = [
            one for one, step in steps if step.followed and (step.score or 0) >= score
        ]
        for one in keys:
            labels = self.folder.labels(one)
            with labels.lock:
                labels.edit(labels.version, Draft.accept)
        return keys

    def image_document(self, key: str) -> dict[str, Any]:
        """Return an image with its objects; keep the error of one that cannot be read, for the list of images."""
        try:
            self.folder.read_frames(key)
            labels, planes = self.folder.labels(key), self.folder.planes(key)
            with labels.lock:
                labels.refresh()
                document = {
                    "key": key,
                    "name": self.folder.find(key).id,
                    "digest": planes.digest,
                    "size_hw": list(planes.size_hw),
                    "levels": planes.levels,
                    "tile": TILE,
                    "channels": _channels(planes),
                    "shown": display_channels(planes.channels),
                    "sensors": _sensors(planes),
                    "objects": [
                        _object(number, region, labels)
                        for number, region in sorted(labels.objects.items())
                    ],
                    "tracks": sorted(self.folder.frames.tracks(key).items()),
                    **_progress(labels),
                    "ready": self.service.is_ready(key),
                    "notice": labels.problem,
                }
        except SimMATError as error:
            self.folder.problems[key] = str(error)
            raise
        self.folder.problems.pop(key, None)
        return document

    def measured(self, key: str) -> MeasuredImage:
        """Return the objects of an image in numbers."""
        labels = self.folder.labels(key)
        planes = self.folder.planes(key)
        with self._measured_lock:
            found = self._measured.pop(key, None)
            if (
                found is None
                or found.labels is not labels
                or found.planes is not planes
            ):
                found = MeasuredImage(labels, planes)
            self._measured[key] = found
            for old in list(self._measured)[:-_MAX_MEASURED]:
                del self._measured[old]
        return found

    def objects_of(self, labels: LabelledImage) -> tuple[int, dict[int, Instance]]:
        """Return the version of the labels of an image, and its objects with their classes."""
        with labels.lock:
            objects = labels.objects.items()
            return labels.version, {
                number: replace(one, class_id=labels.class_of(one))
                for number, one in objects
            }

    def change_document(self, labels: LabelledImage, edited: Edited) -> dict[str, Any]:
        """Return the changes of a step; the caller holds the lock of the labels."""
        ids, objects = [one.id for one in edited.changes], labels.objects
        return {
            "changed": [
                _object(number, objects[number], labels)
                for number in ids
                if number in objects
            ],
            "removed": [number for number in ids if number not in objects],
            "added": [number for number in edited.added if number in objects],
            **_progress(labels),
        }


def _progress(labels: LabelledImage) -> dict[str, Any]:
    return {
        "version": labels.version,
        **{kind: len(steps) for kind, steps in labels.steps.items()},
        "labelled": labels.mask is not None or labels.unwritten,
        "done": labels.done,
        "lost": sorted(labels.lost),
    }


def _object(number: int, region: Any, labels: LabelledImage) -> dict[str, Any]:
    return {
        "id": number,
        "class": labels.class_of(region),
        "mask": encode_mask(region),
        "area": region.area,
        "score": score_of(region),
        "predicted": is_predicted(region),
    }


def _set_classes(classes: Mapping[int, int | None], draft: Draft) -> None:
    for number in classes.keys() & draft.objects.keys():
        draft.set_class(number, classes[number])


def _channels(planes: Planes) -> list[dict[str, Any]]:
    return [
        {
            "name": channel.name,
            "quantity": channel.quantity,
            "unit": channel.unit,
            "wavelength_um": channel.wavelength_um,
            "valid_range": None
            if channel.valid_range is None
            else list(channel.valid_range),
            "range": None if limits is None else list(limits),
            "look": asdict(display_style(channel)),
        }
        for channel, limits in zip(planes.channels, planes.ranges, strict=True)
    ]


def _sensors(planes: Planes) -> list[dict[str, Any]]:
    """Return each sensor of the image, and its channels that are shown: one, or three as red, green and blue."""
    found = []
    for sensor, span in channel_spans(planes.adapter, planes.channels):
        own = display_channels(planes.channels[span.start : span.stop])
        found.append({"name": sensor.name, "channels": [span[at] for at in own]})
    return found


FLUSH_INTERVAL_S = 1.0
_IDLE_S = 2.0
"""Seconds without an edit after which the mask file of a large image is written."""


async def flush(annotator: Annotator) -> None:
    """Regularly write the mask files of large images that are not up to date."""
    while True:
        await asyncio.sleep(FLUSH_INTERVAL_S)
        await annotator.on_files(partial(annotator.folder.flush, _IDLE_S))
