"""The model at work for the page: one predictor, a thread for clicks and one for what takes longer."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmat.errors import ConfigError, SimMATError
from simmat.types import Prompt, Window
from simmat_plugin_annotate.masks import encoded, shared
from simmat_plugin_annotate.planes import Planes

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject, Instance
    from simmat.predictor import LargeImage, Predictor

_KEPT = 12
"""Images or views whose suggestions stay in memory."""
_MOST_VALUES = 2**25
"""Pixels of the images whose embeddings stay in memory; those of others are on disk."""
MOST_SUGGESTED = 64
"""Windows, at most, in which suggestions are looked for at once."""
_MOST_WINDOWS = 16
"""Windows of the largest image that is ranked."""
_RANK_GRID = 5
"""Clicks along a side that rank an image where there is no dense head."""
DENSE_HOW = (
    "mean over the measured pixels of 1 - p, p the probability that the class map gives its most likely class "
    "(least confidence)"
)
GRID_HOW = f"1 - mean predicted IoU of the objects that {_RANK_GRID} x {_RANK_GRID} clicks find"


@dataclass(frozen=True)
class Model:
    """A predictor and how the page calls it.

    Attributes:
        predictor: of a bundle, or untuned.
        name: of the run or the foundation model.
        path: of the bundle; None for an untuned model.
        digest: of the weights.
        scores: on validation, where a bundle states them.
    """

    predictor: Predictor
    name: str
    path: Path | None
    digest: str
    scores: Mapping[str, float] | None

    @classmethod
    def of(cls, predictor: Predictor, name: str) -> Model:
        """Describe a loaded predictor."""
        bundle = predictor.bundle
        val = None if bundle is None else bundle.spec.metrics.get("val")
        known = val.items() if isinstance(val, dict) else ()
        scores = {key: float(value) for key, value in known if isinstance(value, int | float)}
        return cls(
            predictor, name, None if bundle is None else Path(bundle.path), predictor.digest[:16], scores or None
        )

    @property
    def knows_classes(self) -> bool:
        """Whether it says what an object is."""
        dense = self.predictor.dense
        return dense is not None and dense.classes != (None,)

    def document(self) -> dict[str, Any]:
        """Return it as the page reads it."""
        dense = self.predictor.dense is not None
        return {
            "name": self.name,
            "kind": "untuned" if self.path is None else "bundle",
            "path": None if self.path is None else str(self.path),
            "digest": self.digest,
            "dense": dense,
            "everything": "dense" if dense else "grid",
            "knows_classes": self.knows_classes,
            "scores": self.scores,
        }


class CancelledError(Exception):
    """Nobody waits for the answer any more."""


class ModelRoom:
    """Answers of the model.

    Clicks are answered one after the other in a thread of their own; suggestions, ranks and images that may be looked
    at next, which take seconds, come from a second one with images of its own, so that no click waits for them.

    Attributes:
        model: at work now.
        thread: where `encode`, `predict` and `take` run.
        slow_thread: where `encode_ahead`, `suggestions` and `uncertainty` run.
        closing: set when the server ends.
        open: tab -> key of the image that it shows.
    """

    def __init__(
        self, model: Model, planes: Callable[[str], Planes], class_names: Callable[[], Mapping[int, str]], cache: Path
    ) -> None:
        """Make a room.

        Args:
            model: that works first.
            planes: key of an image -> its planes.
            class_names: gives id -> name of the folder's classes.
            cache: folder for embeddings.
        """
        self.model = model
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="clicks")
        self.slow_thread = ThreadPoolExecutor(1, thread_name_prefix="objects")
        self.closing = threading.Event()
        self.open: dict[str, str] = {}
        self._planes, self._class_names, self._cache = planes, class_names, cache
        self._images: OrderedDict[str, LargeImage] = OrderedDict()  # by digest, as are the next two with the model's
        self._found: OrderedDict[tuple[object, ...], list[FoundObject]] = OrderedDict()
        self._ready: set[tuple[str, str]] = set()
        self._ranks: dict[tuple[str, str], float | None] = {}  # by the model's digest and key

    def take(self, model: Model) -> None:
        """Work with another model from now on."""
        self.model = model
        self._images.clear()
        self._found.clear()

    def is_ready(self, key: str) -> bool:
        """Return whether an image is encoded."""
        return (self.model.digest, self._planes(key).digest) in self._ready

    def rank(self, key: str) -> float | None:
        """Return how unsure the model is of an image, if it was ranked."""
        return self._ranks.get((self.model.digest, key))

    def encode(self, key: str, tab: str = "") -> dict[str, Any]:
        """Encode an image where one window holds it, unless the tab has opened another one meanwhile."""
        start, whole = time.perf_counter(), False
        skipped = self.open.get(tab, key) != key
        if not skipped:
            image, planes = self._image(key)
            whole = image.encode()
            self._ready.add((self.model.digest, planes.digest))
        return {"ready": not skipped, "seconds": time.perf_counter() - start, "whole": whole}

    def encode_ahead(self, key: str, tab: str) -> None:
        """Encode an image that a tab will perhaps show next; from then on its embedding is on disk."""
        if tab in self.open and not self.closing.is_set():
            self._slow_image(self._planes(key), self.model)

    def predict(
        self, key: str, points: Sequence[tuple[float, float, int]], box: Sequence[float] | None
    ) -> dict[str, Any]:
        """Answer a prompt by every mask the model has.

        Args:
            key: of the image.
            points: x, y and 1 on the object or 0 not on it.
            box: x0, y0, x1, y1 of its outer edges, or None.

        Raises:
            SimMATError: the prompt is wrong, or the image cannot be read.
        """
        model, (image, planes) = self.model, self._image(key)
        coords = np.asarray([point[:2] for point in points], np.float32).reshape(-1, 2)
        labels = np.asarray([point[2] for point in points], np.int64)
        prompt = Prompt(coords, labels, None if box is None else np.asarray(box, np.float32))
        start = time.perf_counter()
        found = image.predict_all(prompt)
        seconds = time.perf_counter() - start
        self._ready.add((model.digest, planes.digest))
        masks = []
        for one in found:
            whole = one.found_object((0.0, 0.0))
            region = None if whole is None else whole.instance
            masks.append(self._answer(model, region, one.score, one.class_id, one.class_probability))
        return {"masks": masks, "doubt": found[0].doubt, "seconds": seconds, "model": model.digest}

    def suggestions(
        self,
        key: str,
        labelled: Iterable[Instance],
        box: tuple[int, int, int, int] | None,
        is_wanted: Callable[[], bool],
    ) -> dict[str, Any]:
        """Return every object the model finds that is not labelled yet, best first.

        Args:
            key: of the image.
            labelled: objects there are; what lies for the most part within one of them is left out.
            box: x0, y0, x1, y1 of what is looked at; None for the whole image.
            is_wanted: asked after each window.

        Raises:
            SimMATError: the image cannot be read.
            ConfigError: too many windows are looked at.
            CancelledError: nobody waits for it any more.
        """
        start, model, planes = time.perf_counter(), self.model, self._planes(key)
        if not is_wanted():
            raise CancelledError
        image = self._slow_image(planes, model)
        view = None if box is None or len(image.windows) == 1 else Window(box[1], box[0], box[3], box[2])
        place = model.digest, planes.digest, view
        found = self._found.get(place)
        if found is None:
            seen = len(image.windows if view is None else image.windows_in(view))
            if seen > MOST_SUGGESTED:
                raise ConfigError(
                    f"suggestions for {seen} windows would take very long, at most {MOST_SUGGESTED} are looked at; "
                    "zoom in, they are for what is in view"
                )

            def go_on(done: int) -> None:
                if self.closing.is_set() or not is_wanted():
                    raise CancelledError

            found = self._found[place] = image.segment_everything(box=view, progress=go_on)
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        known = list(labelled)
        objects = []
        for one in found:
            region = one.instance
            if any(2 * shared(region, other) > min(region.area, other.area) for other in known):
                continue
            answer = self._answer(model, region, one.score, region.class_id, one.class_probability)
            objects.append({**answer, "point": [round(float(value), 2) for value in one.point_xy]})
        how = model.document()["everything"]
        return {"objects": objects, "how": how, "seconds": time.perf_counter() - start, "model": model.digest}

    @property
    def how(self) -> str:
        """How `uncertainty` is computed."""
        return DENSE_HOW if self.model.predictor.dense is not None else GRID_HOW

    def uncertainty(self, key: str) -> float | None:
        """Return how unsure the model is of an image, from 0 to 1, as `how` says; None where that cannot be told.

        It is kept until another model works. Images of more windows than `_MOST_WINDOWS` are not ranked.
        """
        model, value = self.model, None
        place = model.digest, key
        if place not in self._ranks:
            with suppress(SimMATError):  # the page says why when the image is opened
                image = self._slow_image(self._planes(key), model)
                value = uncertainty_of(image, dense=model.predictor.dense is not None)
            self._ranks[place] = value
        return self._ranks[place]

    def _slow_image(self, planes: Planes, model: Model) -> LargeImage:
        """Return an image for the second thread; what the first one encoded is read from the disk."""
        from simmat.predictor import LargeImage

        image = LargeImage(model.predictor, planes, cache=self._cache)
        image.encode()
        return image

    def _image(self, key: str) -> tuple[LargeImage, Planes]:
        """Return an image for the first thread."""
        from simmat.predictor import LargeImage

        planes = self._planes(key)
        image = self._images.pop(planes.digest, None) or LargeImage(self.model.predictor, planes, cache=self._cache)
        self._images[planes.digest] = image
        while len(self._images) > 1 and sum(map(_values, self._images.values())) > _MOST_VALUES:
            gone, _ = self._images.popitem(last=False)
            self._ready.discard((self.model.digest, gone))
        return image, planes

    def _answer(
        self, model: Model, region: Instance | None, score: float, class_id: int | None, probability: float | None
    ) -> dict[str, Any]:
        known = self._known_class(model, class_id)
        return {
            "mask": None if region is None else encoded(region),
            "score": min(max(round(float(score), 5), 0.0), 1.0),
            "area": 0 if region is None else region.area,
            "class": known,
            "class_probability": None if known is None or probability is None else round(float(probability), 5),
        }

    def _known_class(self, model: Model, class_id: int | None) -> int | None:
        """Return the folder's class that a class of the model means: of the same name, or without a name its id."""
        if class_id is None:
            return None
        names, name = self._class_names(), model.predictor.class_names.get(class_id)
        if name is None:
            return class_id if class_id in names else None
        return next((number for number, known in names.items() if known == name), None)


def _values(image: LargeImage) -> int:
    """Return how many values of an image are in memory, at most: those of one window."""
    return math.prod(min(side, image.tile) for side in image.reader.size_hw)


def uncertainty_of(image: LargeImage, *, dense: bool) -> float | None:
    """Return how unsure a model is of an image, from 0 to 1; see `DENSE_HOW` and `GRID_HOW`.

    Args:
        image: opened by its predictor.
        dense: whether the predictor has a dense head.

    Raises:
        SimMATError: it cannot be read.
    """
    from simmat.everything import EverythingSettings

    if len(image.windows) > _MOST_WINDOWS:
        return None
    if dense:
        found = image.segment_semantic()
        measured = found.probability > 0
        return float(1 - found.probability[measured].mean()) if measured.any() else None
    settings = EverythingSettings(grid=_RANK_GRID, min_score=0.0, stability=0.0)
    scores = [one.score for one in image.segment_everything(settings)]
    return 1.0 - float(np.mean(scores)) if scores else 1.0
