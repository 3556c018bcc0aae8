"""Answers of the model for the page: one predictor, one thread for clicks and one for slow requests."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from simmat.data.instances import PANOPTIC
from simmat.errors import ConfigError, DataError, SimMATError
from simmat.types import Prompt, Window
from simmat_plugin_annotate.masks import encode_mask, is_known
from simmat_plugin_annotate.planes import Planes

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject, Instance
    from simmat.predictor import ClassMap, Predictor, Reference, TiledImage

Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_MAX_SUGGESTIONS_CACHED = 12
"""Number of images or views whose suggestions stay in memory."""
_EMBEDDINGS = "embeddings"
"""Folder of the embeddings, beside the tiles of the planes."""
_MAX_CACHED_BYTES = 2**29
"""Images and embeddings that stay in memory for clicks; all embeddings are on disk."""
_MAX_SHOWN_PX = 2**24
"""Most pixels of the part of an image that shows what to look for."""
MAX_SUGGESTED = 64
"""Most windows for one request of suggestions."""


@dataclass(frozen=True)
class ServedModel:
    """A predictor and its description for the page.

    Attributes:
        predictor: predictor of a bundle or of an untuned model.
    """

    predictor: Predictor
    name: str

    @property
    def path(self) -> Path | None:
        """Path of the bundle; None for an untuned model."""
        return None if self.predictor.bundle is None else self.predictor.bundle.path

    @property
    def digest(self) -> str:
        """Identifies the weights and how images are read."""
        return self.predictor.digest[:16]

    def document(self) -> dict[str, Any]:
        """Return the description for the page; `knows_classes` if the model predicts the class of an object."""
        dense = self.predictor.dense
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "knows_classes": dense is not None and dense.classes != (None,),
            "image_size": self.predictor.pipeline.size,
        }


@dataclass(frozen=True)
class Like:
    """A reference to search for, and the folder's class for each of its classes."""

    reference: Reference
    classes: Mapping[int | None, int | None]


class BusyError(Exception):
    """It is already running."""


class CancelledError(Exception):
    """The client no longer waits for the answer."""


async def state_after(work: Awaitable[Any], what: str) -> dict[str, str]:
    """Wait for work in the background, and return how it ended, as the page shows it.

    Args:
        work: raises CancelledError if it was stopped.
        what: names it in the log of the server, where an unexpected error goes.
    """
    try:
        await work
    except CancelledError:
        return {"state": "stopped"}
    except (SimMATError, OSError) as error:
        return {"state": "failed", "message": str(error)}
    except Exception:
        _log.exception("%s failed", what)
        message = "an error in the server; see its terminal"
        return {"state": "failed", "message": message}
    return {"state": "done"}


class ModelService:
    """Answers of the model.

    One thread answers clicks, one after the other. A second thread with its own images does what takes seconds, so that
    no click waits for it: suggestions, and encoding the images that may be shown next.

    Attributes:
        thread: runs `encode`, `predict` and `take`.
        slow_thread: runs `encode_ahead` and `suggestions`.
        closing: set when the server stops.
        open: tab -> key of the image that it shows.
    """

    def __init__(
        self,
        model: ServedModel,
        planes: Callable[[str], Planes],
        class_names: Callable[[], Mapping[int, str]],
    ) -> None:
        """Start the threads.

        Args:
            planes: key of an image -> its planes.
            class_names: returns id -> name of the classes that answers may have.
        """
        import torch

        self.model = model
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="clicks")
        # else it may start with one, in a click
        all_threads = partial(torch.set_num_threads, torch.get_num_threads())
        self.slow_thread = ThreadPoolExecutor(
            1, thread_name_prefix="objects", initializer=all_threads
        )
        self.closing = threading.Event()
        self.open: dict[str, str] = {}
        self._planes, self._class_names = planes, class_names
        # by digest of the planes
        self._images: OrderedDict[str, TiledImage] = OrderedDict()
        self._found: OrderedDict[tuple[object, ...], list[FoundObject]] = OrderedDict()
        self._ready: set[tuple[str, str]] = set()
        self._like: tuple[tuple[object, ...], Like] | None = None

    def take(self, model: ServedModel) -> None:
        """Replace the model."""
        self.model = model
        self._images.clear()
        self._found.clear()

    async def run(self, work: Callable[[], Result], *, slow: bool = False) -> Result:
        """Run work that uses the network in one of the threads; `slow` if it takes seconds."""
        return await asyncio.get_running_loop().run_in_executor(
            self.slow_thread if slow else self.thread, work
        )

    def is_ready(self, key: str) -> bool:
        """Return whether an image is encoded."""
        return (self.model.digest, self._planes(key).digest) in self._ready

    def encode(self, key: str, tab: str = "") -> dict[str, Any]:
        """Encode an image that fits one window, unless the tab shows another image by now."""
        start, window = time.perf_counter(), None
        skipped = self.open.get(tab, key) != key
        if not skipped:
            image, planes = self._image(key)
            window = None if image.encode_untiled() else image.tile
            self._ready.add((self.model.digest, planes.digest))
        return {
            "ready": not skipped,
            "seconds": time.perf_counter() - start,
            "window": window,
        }

    def encode_ahead(self, key: str) -> str:
        """Encode an image that a tab may show next, unless the server stops, and store its embedding on disk.

        Returns:
            How its values differ from those of the training; "" if they do not.
        """
        if self.closing.is_set():
            return ""
        return self._slow_image(self._planes(key), self.model).values_warning()

    def predict(
        self,
        key: str,
        points: Sequence[tuple[float, float, int]],
        box: Sequence[float] | None,
    ) -> dict[str, Any]:
        """Predict all masks for a prompt.

        Args:
            points: (x, y, label) with label 1 on the object and 0 beside it.
            box: (x0, y0, x1, y1), outer edges in pixels, or None.

        Raises:
            SimMATError: the prompt is invalid, or the image cannot be read.
        """
        import torch

        model, (image, planes) = self.model, self._image(key)
        coords = np.asarray([point[:2] for point in points], np.float32).reshape(-1, 2)
        labels = np.asarray([point[2] for point in points], np.int64)
        prompt = Prompt(
            coords, labels, None if box is None else np.asarray(box, np.float32)
        )
        image.encode_untiled()  # with all threads
        threads = torch.get_num_threads()
        # of several, each waits in short loops for one that has no core while a training runs
        torch.set_num_threads(1)
        try:
            found = image.predict_all(prompt)
        finally:
            torch.set_num_threads(threads)
        self._ready.add((model.digest, planes.digest))
        masks = []
        for one in found:
            whole = one.found_object((0.0, 0.0))
            region = None if whole is None else whole.instance
            masks.append(
                self._answer(
                    model, region, one.score, one.class_id, one.class_probability
                )
            )
        return {"masks": masks, "warning": found[0].warning}

    def suggestions(
        self,
        key: str,
        labelled: Iterable[Instance],
        box: tuple[int, int, int, int] | None,
        is_wanted: Callable[[], bool],
        like: Callable[[], Like] | None = None,
    ) -> dict[str, Any]:
        """Return the objects that the model finds and that are not labelled yet, best first.

        Args:
            labelled: labelled objects; found objects that mostly overlap one of them are left out.
            box: (x0, y0, x1, y1) of the part to search; None for the whole image.
            is_wanted: called after each window; returns False to cancel.
            reference: returns what to look for; None for every object.

        Raises:
            SimMATError: the image cannot be read.
            ConfigError: the part has too many windows.
            CancelledError: `is_wanted` returned False, or the server stops.
        """
        model, planes = self.model, self._planes(key)
        if not is_wanted():
            raise CancelledError
        image = self._slow_image(planes, model)
        view = (
            None
            if box is None or len(image.windows) == 1
            else Window(box[1], box[0], box[3], box[2])
        )
        shown = None if like is None else like()
        reference = None if shown is None else shown.reference
        cache_key = (
            model.digest,
            planes.digest,
            view,
            None if reference is None else reference.digest,
        )
        found = self._found.get(cache_key)
        if found is None:
            _check_count(len(image.windows if view is None else image.windows_in(view)))

            def check_wanted(done: int) -> None:
                if self.closing.is_set() or not is_wanted():
                    raise CancelledError

            found = self._found[cache_key] = list(
                image.segment_everything(
                    reference=reference, box=view, progress=check_wanted
                )
            )
            while len(self._found) > _MAX_SUGGESTIONS_CACHED:
                self._found.popitem(last=False)
        known = list(labelled)
        objects = []
        for one in found:
            region = one.instance
            if is_known(region, known):
                continue
            answer = self._answer(
                model, region, one.score, region.class_id, one.class_probability
            )
            if shown is not None:
                answer["class"] = shown.classes.get(region.class_id)
            objects.append(
                {**answer, "point": [round(float(value), 2) for value in one.point_xy]}
            )
        return {"objects": objects, "imported": False}

    def like(
        self,
        key: str,
        version: int,
        objects: Mapping[int, Instance],
        chosen: Collection[int],
    ) -> Like:
        """Return what to look for in other images, or in the rest of this one: the objects of an image.

        Args:
            version: of the labels.
            objects: id -> object.
            chosen: ids; empty for all. Others of their classes are neither like them nor background.

        Raises:
            DataError: the objects are not there, or show too little.
        """
        chosen = objects.keys() & set(chosen) if chosen else objects.keys()
        if not chosen:
            raise DataError(
                "the objects to look for are no longer in their image; select one there again"
            )
        model, planes = self.model, self._planes(key)
        cache_key = model.digest, planes.digest, version, tuple(sorted(chosen))
        if self._like is None or self._like[0] != cache_key:
            self._like = cache_key, _like_of(model.predictor, planes, objects, chosen)
        return self._like[1]

    def class_map(self, key: str) -> ClassMap:
        """Return the class of every pixel of an image.

        Raises:
            SimMATError: the image cannot be read, has too many windows, or the model has no dense head.
        """
        image = self._slow_image(self._planes(key), self.model)
        _check_count(len(image.windows))
        return image.segment_semantic()

    def close(self) -> None:
        """End the threads, without what waits for them."""
        self.closing.set()
        for thread in (self.thread, self.slow_thread):
            thread.shutdown(wait=False, cancel_futures=True)

    def _slow_image(self, planes: Planes, model: ServedModel) -> TiledImage:
        """Return an image for the slow thread; embeddings of the first thread are read from disk."""
        image = model.predictor.open_reader(planes, cache=planes.home / _EMBEDDINGS)
        image.encode_untiled()
        return image

    def _image(self, key: str) -> tuple[TiledImage, Planes]:
        """Return an image for the click thread."""
        planes = self._planes(key)
        image = self._images.pop(planes.digest, None)
        if image is None:
            image = self.model.predictor.open_reader(
                planes, cache=planes.home / _EMBEDDINGS
            )
        self._images[planes.digest] = image
        while (
            len(self._images) > 1
            and sum(one.cached_bytes for one in self._images.values())
            > _MAX_CACHED_BYTES
        ):
            digest, _ = self._images.popitem(last=False)
            self._ready.discard((self.model.digest, digest))
        return image, planes

    def _answer(
        self,
        model: ServedModel,
        region: Instance | None,
        score: float,
        class_id: int | None,
        probability: float | None,
    ) -> dict[str, Any]:
        known = self._known_class(model, class_id)
        return {
            "mask": None if region is None else encode_mask(region),
            "score": min(max(round(float(score), 5), 0.0), 1.0),
            "area": 0 if region is None else region.area,
            "class": known,
            "class_probability": None
            if known is None or probability is None
            else round(float(probability), 5),
        }

    def _known_class(self, model: ServedModel, class_id: int | None) -> int | None:
        """Return the class of the folder for a class of the model: by name, or by id if the model has no name."""
        if class_id is None:
            return None
        names, name = self._class_names(), model.predictor.class_names.get(class_id)
        if name is None:
            return class_id if class_id in names else None
        return next((number for number, known in names.items() if known == name), None)


def _like_of(
    predictor: Predictor,
    planes: Planes,
    objects: Mapping[int, Instance],
    chosen: Collection[int],
) -> Like:
    """Return what to look for: some objects of an image, with their classes."""
    tile = predictor.tile_size(planes.size_hw)
    windows = [objects[number].window for number in chosen]
    y0, x0 = (max(min(one[side] for one in windows) - tile, 0) for side in (0, 1))
    y1, x1 = (
        min(max(one[2 + side] for one in windows) + tile, planes.size_hw[side])
        for side in (0, 1)
    )
    part = Window(y0, x0, y1, x1)
    if (y1 - y0) * (x1 - x0) > _MAX_SHOWN_PX:
        raise ConfigError(
            "the objects to look for are too far apart in this large image; select one of them"
        )
    # Values that mean the same class by every rule of a card, see `label_from_mask`; what is below 0 is not looked at.
    values = {
        one: PANOPTIC * place + 1
        for place, one in enumerate(
            dict.fromkeys(objects[n].class_id for n in chosen), 1
        )
    }
    mask = np.zeros(part.size_hw, np.int64)
    for number, one in objects.items():
        if one.class_id in values:
            mask[one.within(part)] = values[one.class_id] if number in chosen else -1
    several = predictor.image_loader.card.regions == "instances" and len(values) > 1
    reference = predictor.reference(
        [(planes.read(part), mask)],
        classes=list(values.values()) if several else (),
        tile=tile,
    )
    by_class = {value: one for one, value in values.items()} | {
        value // PANOPTIC: one for one, value in values.items()
    }
    return Like(reference, by_class | {None: next(iter(values))})


def _check_count(windows: int) -> None:
    """Raise ConfigError for more windows than are searched at once."""
    if windows > MAX_SUGGESTED:
        raise ConfigError(
            f"searching {windows} windows would take too long, at most {MAX_SUGGESTED} are allowed; zoom in, or "
            "give a box, so that only this part is searched"
        )
