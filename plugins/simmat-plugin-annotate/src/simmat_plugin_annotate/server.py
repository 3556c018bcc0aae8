"""The server: one folder, one model, any number of tabs."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import simmat
from simmat.documents import parse
from simmat.errors import ConfigError, DataError, OutputError, SimMATError
from simmat.io.files import parse_json
from simmat.report.colour_maps import look_of
from simmat.report.display import display_channels
from simmat.results import ImageRecords, ImageResult, coco_document, object_records
from simmat.sensors.normalize import rgb_indices
from simmat.types import Channel
from simmat_plugin_annotate.folder import LabelFolder
from simmat_plugin_annotate.labels import Draft, Edited, ImageLabels, StaleError
from simmat_plugin_annotate.masks import encoded
from simmat_plugin_annotate.models import Model, ModelRoom
from simmat_plugin_annotate.planes import TILE, Memory, Planes
from simmat_plugin_annotate.requests import (
    MOST_EDITS,
    MOST_POINTS,
    AddEdit,
    ClassEdit,
    ClassesBody,
    DoneBody,
    EditsBody,
    NextBody,
    Nothing,
    PredictBody,
    ReplaceEdit,
    TrainBody,
    VersionBody,
)
from simmat_plugin_annotate.security import MOST_BODY, TooLargeError, error_document
from simmat_plugin_annotate.training import BusyError, Training

STATIC = Path(__file__).parent / "static"
API = 1
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
_NEXT_S = 5.0
"""Seconds that `next` ranks images before it answers by those it knows."""
_MOST_PLANES = 16
_PING_S = 15.0
_FLUSH_S = 1.0

_log = logging.getLogger(__name__)
Found = TypeVar("Found")
Answer = Callable[[Request], Awaitable[Response]]


class Json(JSONResponse):
    """Json in ASCII: file names that are not UTF-8 hold characters that only an escape can write."""

    def render(self, content: Any) -> bytes:
        """Return the text."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Annotator:
    """What the routes share.

    Attributes:
        folder: that is labelled.
        room: the model at work.
        training: in the background.
        session: random, another one after each start.
    """

    def __init__(
        self,
        root: Path,
        adapter: Any,
        overrides: Mapping[str, object],
        model: Callable[[LabelFolder], Model],
        train: Callable[[LabelFolder, Model], list[str]],
    ) -> None:
        """Open a folder and load a model for it.

        Args:
            root: the folder.
            adapter: the sensor.
            overrides: fields of the card from the command line.
            model: loads the first model.
            train: gives the arguments of `simmat train`.

        Raises:
            SimMATError: folder, card or model cannot be used.
        """
        self.session = secrets.token_hex(8)
        self._memory = Memory()
        self._planes: dict[str, Planes] = {}
        self.folder = LabelFolder(root, adapter, overrides, lambda key: self.planes(key).size_hw)
        self.room = ModelRoom(model(self.folder), self.planes, self.class_names, self.folder.home / "embeddings")
        self.training = Training(
            self.folder.root, lambda: train(self.folder, self.room.model), self._training_changed, self._adopt
        )
        self.files = ThreadPoolExecutor(4, thread_name_prefix="files")
        self._listeners: set[asyncio.Queue[tuple[str, Any]]] = set()
        self.closing = False
        self.load: Callable[[Path], Model] | None = None

    def planes(self, key: str) -> Planes:
        """Return the planes of an image."""
        if key not in self._planes:
            folder = self.folder
            sample = folder.find(key).sample
            self._planes[key] = Planes(folder.adapter, sample.files, folder.card, self._memory, folder.home)
        return self._planes[key]

    def class_names(self) -> dict[int, str]:
        """Return id -> name of the folder's classes."""
        return {one.id: one.name for one in self.folder.state.classes}

    def publish(self, event: str, data: Any) -> None:
        """Tell every tab; called on the event loop."""
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((event, data))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncio.Queue[tuple[str, Any]]]:
        """Give a queue of events while the block runs."""
        queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(256)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    async def on_files(self, work: Callable[[], Found]) -> Found:
        """Run work that reads or writes files."""
        return await asyncio.get_running_loop().run_in_executor(self.files, work)

    async def on_model(self, work: Callable[[], Found], *, slow: bool = False) -> Found:
        """Run work that asks the network; `slow` where it takes seconds."""
        thread = self.room.slow_thread if slow else self.room.thread
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    def _training_changed(self) -> None:
        self.publish("training", self.training.document(log=False))

    async def _adopt(self, bundle: Path) -> None:
        assert self.load is not None
        model = await self.on_model(partial(self.load, bundle))
        await self.on_model(partial(self.room.take, model))
        name = bundle.relative_to(self.folder.root).as_posix()
        await self.on_files(partial(self.folder.keep_bundle, name))
        self.publish("model", model.document())


def make_app(annotator: Annotator) -> Starlette:
    """Return the app; a `Guard` stands before it."""
    routes = Routes(annotator)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        flushing = asyncio.create_task(_flush(annotator))
        try:
            yield
        finally:
            annotator.closing = True
            await annotator.training.close()
            flushing.cancel()
            for labels in annotator.folder.unwritten():
                _try_flush(labels)
            annotator.files.shutdown(wait=False, cancel_futures=True)
            for thread in (annotator.room.thread, annotator.room.slow_thread):
                thread.shutdown(wait=False, cancel_futures=True)

    image = "/api/images/{key}"
    table: list[tuple[str, str, Answer]] = [
        ("GET", "/", routes.index),
        ("GET", "/static/{name}", routes.static),
        ("GET", "/api/session", routes.session),
        ("GET", "/api/images", routes.images),
        ("GET", image, routes.image),
        ("GET", f"{image}/tiles/{{level}}/{{column}}/{{row}}", routes.tile),
        ("POST", f"{image}/encode", routes.encode),
        ("POST", f"{image}/predict", routes.predict),
        ("GET", f"{image}/suggestions", routes.suggestions),
        ("POST", f"{image}/edits", routes.edits),
        ("POST", f"{image}/undo", routes.undo),
        ("POST", f"{image}/redo", routes.redo),
        ("POST", f"{image}/done", routes.done),
        ("POST", "/api/classes", routes.classes),
        ("GET", "/api/export/coco", routes.export),
        ("GET", "/api/train", routes.training),
        ("POST", "/api/train", routes.train),
        ("POST", "/api/train/stop", routes.stop),
        ("POST", "/api/next", routes.next),
        ("GET", "/api/events", routes.events),
    ]
    paths = [Route(path, _answering(answer), methods=[method]) for method, path, answer in table]
    return Starlette(
        routes=paths, lifespan=lifespan, exception_handlers={HTTPException: _http_error, Exception: _http_error}
    )


class Routes:
    """One method a route; see `docs/annotate.md` for what each answers."""

    def __init__(self, annotator: Annotator) -> None:
        self.annotator, self.folder, self.room = annotator, annotator.folder, annotator.room

    async def index(self, request: Request) -> Response:
        """Return the page."""
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    async def static(self, request: Request) -> Response:
        """Return a file of the page."""
        name = request.path_params["name"]
        known = {path.name: path for path in STATIC.iterdir() if path.suffix in _KINDS and path.is_file()}
        if name not in known:
            raise LookupError("there is no such file")
        kind = _KINDS[known[name].suffix]
        return FileResponse(known[name], media_type=kind, headers={"cache-control": "no-cache"})

    async def session(self, request: Request) -> Response:
        """Return what there is: sensor, classes, model."""
        return Json(await self.annotator.on_files(self._session))

    async def images(self, request: Request) -> Response:
        """Return the list of images."""
        return Json({"images": await self.annotator.on_files(self._images)})

    async def image(self, request: Request) -> Response:
        """Return an image with its objects."""
        key = self._key(request)
        return Json(await self.annotator.on_files(partial(self._image, key)))

    async def tile(self, request: Request) -> Response:
        """Return the values of a tile."""
        key = self._key(request)
        level, column, row = (_number(request.path_params[name]) for name in ("level", "column", "row"))
        planes = self.annotator.planes(key)
        text = request.query_params.get("channels", "")
        if text and (len(text) > 200 or not all(part.isascii() and part.isdigit() for part in text.split(","))):
            raise ConfigError(f"channels must be numbers separated by commas, got {text[:50]!r}")

        def read() -> tuple[tuple[int, int, int], bytes, str]:
            every = range(min(len(planes.channels), _MOST_PLANES))
            channels = [int(part) for part in text.split(",")] if text else every
            if len(channels) > _MOST_PLANES:
                raise ConfigError(f"at most {_MOST_PLANES} channels may be asked for at once")
            return *planes.tile(level, column, row, channels), planes.digest

        shape, content, digest = await self.annotator.on_files(read)
        # Another folder may be served here next, with an image of this name: only the digest tells them apart.
        kept = "private, max-age=3600" if request.query_params.get("v") == digest else "no-store"
        headers = {"x-tile": ",".join(map(str, shape)), "cache-control": kept}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def encode(self, request: Request) -> Response:
        """Encode an image."""
        key = self._key(request)
        await _body(request, Nothing)
        return Json(await self.annotator.on_model(partial(self.room.encode, key)))

    async def predict(self, request: Request) -> Response:
        """Answer a prompt."""
        key = self._key(request)
        body = await _body(request, PredictBody)
        return Json(await self.annotator.on_model(partial(self.room.predict, key, body.points, body.box)))

    async def suggestions(self, request: Request) -> Response:
        """Return every object that is not labelled yet."""
        key = self._key(request)
        labels = await self.annotator.on_files(partial(self.folder.labels, key))
        known = list(labels.objects.values())
        return Json(await self.annotator.on_model(partial(self.room.suggestions, key, known), slow=True))

    async def edits(self, request: Request) -> Response:
        """Change objects."""
        body = await _body(request, EditsBody)
        known = self.annotator.class_names()

        def change(draft: Draft) -> None:
            for edit in body.edits:
                if isinstance(edit, AddEdit | ClassEdit) and edit.class_id is not None and edit.class_id not in known:
                    raise DataError(f"there is no class {edit.class_id}; add it to the classes first")
                if isinstance(edit, AddEdit):
                    draft.add(edit.mask, edit.class_id, edit.overlap)
                elif isinstance(edit, ReplaceEdit):
                    draft.replace(edit.id, edit.mask, edit.overlap)
                elif isinstance(edit, ClassEdit):
                    draft.set_class(edit.id, edit.class_id)
                else:
                    draft.remove(edit.id)

        return await self._changed(request, lambda labels: labels.edit(body.version, change))

    async def undo(self, request: Request) -> Response:
        """Take back a step."""
        body = await _body(request, VersionBody)
        return await self._changed(request, lambda labels: labels.undo(body.version))

    async def redo(self, request: Request) -> Response:
        """Do a step again."""
        body = await _body(request, VersionBody)
        return await self._changed(request, lambda labels: labels.redo(body.version))

    async def done(self, request: Request) -> Response:
        """Mark an image as finished."""
        body = await _body(request, DoneBody)
        return await self._changed(request, lambda labels: labels.set_done(body.version, body.done))

    async def classes(self, request: Request) -> Response:
        """Replace the list of classes."""
        body = await _body(request, ClassesBody)
        given = [(one.id, one.name, one.colour) for one in body.classes]
        await self.annotator.on_files(partial(self.folder.set_classes, given))
        document = {"classes": self._classes()}
        self.annotator.publish("classes", document)
        return Json(document)

    async def export(self, request: Request) -> Response:
        """Return a COCO document of what is labelled."""
        document = await self.annotator.on_files(self._coco)
        name = "".join(letter for letter in self.folder.root.name if letter.isascii() and letter.isalnum()) or "labels"
        return Json(document, headers={"content-disposition": f'attachment; filename="{name}-coco.json"'})

    async def training(self, request: Request) -> Response:
        """Return the state of the training."""
        return Json(self.annotator.training.document())

    async def train(self, request: Request) -> Response:
        """Start a training."""
        body = await _body(request, TrainBody)

        def prepare() -> int:
            for labels in self.folder.unwritten():
                labels.flush()
            self.folder.write_card()
            return sum(self.folder.mask_of(key) is not None for key in self.folder.images)

        images = await self.annotator.on_files(prepare)
        await self.annotator.training.start(body.steps, images, self.room.model)
        return Json(self.annotator.training.document(), status_code=202)

    async def stop(self, request: Request) -> Response:
        """Stop the training."""
        await _body(request, Nothing)
        await self.annotator.training.stop()
        return Json(self.annotator.training.document())

    async def next(self, request: Request) -> Response:
        """Return the image that the model is least sure of, among those that are neither labelled nor open."""
        body = await _body(request, NextBody)
        start = time.perf_counter()
        waiting = [key for key in self.folder.images if self.folder.mask_of(key) is None and key != body.after]
        for key in waiting:
            if time.perf_counter() - start > _NEXT_S:
                break
            if self.room.rank(key) is None:
                await self.annotator.on_model(partial(self.room.uncertainty, key), slow=True)
        ranked = {key: value for key in waiting if (value := self.room.rank(key)) is not None}
        best = max(ranked, key=lambda key: ranked[key], default=waiting[0] if waiting else None)
        return Json(
            {
                "key": best,
                "name": None if best is None else self.folder.find(best).sample.id,
                "uncertainty": None if best is None else ranked.get(best),
                "ranked": len(ranked),
                "of": len(waiting),
                "how": self.room.how,
                "seconds": time.perf_counter() - start,
            }
        )

    async def events(self, request: Request) -> Response:
        """Tell what other tabs and the training do."""
        return StreamingResponse(
            _stream(self.annotator), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    def _key(self, request: Request) -> str:
        key: str = request.path_params["key"]
        if key not in self.folder.images:
            raise LookupError("there is no such image")
        return key

    async def _changed(self, request: Request, change: Callable[[ImageLabels], Edited]) -> Response:
        key = self._key(request)

        def work() -> tuple[dict[str, Any], int]:
            labels = self.folder.labels(key)
            self.folder.write_card()  # not under the image's lock: the folder asks images under its own
            with labels.lock:
                edited = change(labels)
                document, count = self._change(labels, edited), len(labels.objects)
            for region in edited.changed.values():
                self.folder.class_seen(labels.class_of(region))
            return document, count

        try:
            document, count = await self.annotator.on_files(work)
        except StaleError:
            state = await self.annotator.on_files(partial(self._image, key))
            text = "another tab or program changed these labels; look at them as they are now"
            return Json({**error_document("stale", text), "state": state}, status_code=409)
        told = {"key": key, "objects": count}
        self.annotator.publish("image", told | {name: document[name] for name in ("version", "labelled", "done")})
        return Json(document)

    def _change(self, labels: ImageLabels, edited: Edited) -> dict[str, Any]:
        return {
            "version": labels.version,
            "changed": [_object(number, region, labels) for number, region in edited.changed.items()],
            "removed": edited.removed,
            "added": edited.added,
            "undo": labels.undo_steps,
            "redo": labels.redo_steps,
            "labelled": labels.mask is not None or labels.unwritten,
            "done": labels.done,
        }

    def _session(self) -> dict[str, Any]:
        folder, adapter = self.folder, self.folder.adapter
        notice = folder.notice
        channels: tuple[Channel, ...] = adapter.channels
        ranges: list[tuple[float, float] | None] = [None] * len(channels)
        placed = False
        first = next(iter(folder.images))
        try:
            planes = self.annotator.planes(first)
            channels, ranges, placed = planes.channels, planes.ranges(), planes.georeference is not None
        except SimMATError as error:
            notice = f"{notice} {error}".strip()
        images = self._images()
        return {
            "api": API,
            "simmat": simmat.__version__,
            "folder": str(folder.root),
            "name": folder.root.name,
            "modality": {"name": adapter.name, "description": adapter.description},
            "channels": _channels(channels, ranges),
            **_shown(channels),
            "georeferenced": placed,
            "classes": self._classes(),
            "regions": folder.card.regions,
            "notice": notice,
            "model": self.room.model.document(),
            "tile": TILE,
            "limits": {"body": MOST_BODY, "points": MOST_POINTS, "edits": MOST_EDITS},
            "images": len(images),
            "labelled": sum(image["labelled"] for image in images),
            "done": sum(image["done"] for image in images),
            "training": self.annotator.training.document(),
        }

    def _classes(self) -> list[dict[str, Any]]:
        counts: dict[int | None, int] = {}
        for key in self.folder.images:
            labels = self.folder.known_labels(key)
            for region in () if labels is None else list(labels.objects.values()):
                number = None if labels is None else labels.class_of(region)
                counts[number] = counts.get(number, 0) + 1
        return [{**one.model_dump(), "objects": counts.get(one.id, 0)} for one in self.folder.state.classes]

    def _images(self) -> list[dict[str, Any]]:
        splits = self.folder.splits()
        found = []
        for key, image in self.folder.images.items():
            labels, noted = self.folder.known_labels(key), self.folder.noted(key)
            labelled = self.folder.mask_of(key) is not None
            objects, done, version = (None if labelled else 0), False, 0
            if labels is not None:
                objects, done, version = len(labels.objects), labels.done, labels.version
            elif noted is not None:
                objects, done, version = noted.objects, noted.done, noted.version
            found.append(
                {
                    "key": key,
                    "name": image.sample.id,
                    "split": splits.get(image.sample.id, image.sample.split),
                    "labelled": labelled or (labels is not None and labels.unwritten),
                    "done": done,
                    "objects": objects,
                    "uncertainty": self.room.rank(key),
                    "version": version,
                }
            )
        return found

    def _image(self, key: str) -> dict[str, Any]:
        planes, labels = self.annotator.planes(key), self.folder.labels(key)
        with labels.lock:
            labels.refresh()
            place = planes.georeference
            return {
                "key": key,
                "name": self.folder.find(key).sample.id,
                "digest": planes.digest,
                "size_hw": list(planes.size_hw),
                "levels": planes.levels,
                "channels": _channels(planes.channels, planes.ranges()),
                **_shown(planes.channels),
                "version": labels.version,
                "objects": [_object(number, region, labels) for number, region in sorted(labels.objects.items())],
                "done": labels.done,
                "labelled": labels.mask is not None or labels.unwritten,
                "undo": labels.undo_steps,
                "redo": labels.redo_steps,
                "ready": self.room.is_ready(key),
                "georeference": None if place is None else {"crs": place.crs, "transform": list(place.transform)},
                "notice": labels.problem,
            }

    def _coco(self) -> dict[str, Any]:
        from dataclasses import replace

        from simmat.data.instances import FoundObject

        records = []
        for key, image in self.folder.images.items():
            if self.folder.mask_of(key) is None or image.sample.has_polygons:
                continue
            labels = self.folder.labels(key)
            with labels.lock:
                objects = tuple(
                    FoundObject(replace(region, class_id=labels.class_of(region)), 1.0, _inside(region))
                    for _, region in sorted(labels.objects.items())
                )
            reference = image.sample.reference
            name = reference.relative_to(self.folder.root).as_posix() if reference.is_absolute() else str(reference)
            result = ImageResult(
                image.sample.id,
                name,
                labels.size_hw,
                None,
                self.annotator.class_names(),
                objects,
                None,
                None,
                _no_picture,
            )
            records.append(ImageRecords(name, labels.size_hw, object_records(result)))
        document = coco_document(records, self.annotator.class_names())
        for annotation in document["annotations"]:
            del annotation["score"]  # these are labels, not answers
        return document


def _object(number: int, region: Any, labels: ImageLabels) -> dict[str, Any]:
    return {"id": number, "class": labels.class_of(region), "mask": encoded(region), "area": region.area}


def _channels(channels: Any, ranges: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": channel.name,
            "quantity": channel.quantity,
            "unit": channel.unit,
            "wavelength_um": channel.wavelength_um,
            "valid_range": None if channel.valid_range is None else list(channel.valid_range),
            "range": None if limits is None else list(limits),
            "look": asdict(look_of(channel)),
        }
        for channel, limits in zip(channels, ranges, strict=True)
    ]


def _shown(channels: tuple[Channel, ...]) -> dict[str, Any]:
    """Return which channels are shown at first."""
    if not channels:
        return {"shown": [], "rgb": None, "temperature": False}
    rgb, shown = rgb_indices(channels), display_channels(channels)
    return {
        "shown": list(shown),
        "rgb": None if rgb is None else list(rgb),
        "temperature": len(shown) == 1 and look_of(channels[shown[0]]).colours == "inferno",
    }


def _inside(region: Any) -> tuple[float, float]:
    """Return the first pixel of an object, as x and y."""
    y0, x0, _, _ = region.box
    row, column = (int(part[0]) for part in region.crop.nonzero())
    return float(x0 + column), float(y0 + row)


def _no_picture() -> Any:
    raise NotImplementedError("labels are exported without a picture")


def _number(text: str) -> int:
    """Return a whole number of an address.

    Raises:
        LookupError: it is none, or a huge one.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise LookupError("there is no such tile")
    return int(text)


async def _body(request: Request, model: type[Found]) -> Found:
    """Read the body of a request.

    Raises:
        ConfigError: it is not json, or not what is expected.
    """
    content = await request.body()
    try:
        values = parse_json(content)
    except ValueError as error:
        raise ConfigError(f"the body is not valid json: {error}") from None
    return parse(model, values, "the request")  # type: ignore[type-var]


async def _stream(annotator: Annotator) -> AsyncIterator[str]:
    """Yield events as text."""
    async with annotator.listening() as queue:
        yield f"event: hello\ndata: {json.dumps({'session': annotator.session})}\n\n"
        quiet = 0.0
        while not annotator.closing:
            try:
                event, data = await asyncio.wait_for(queue.get(), 0.5)  # often, so that the server can end
            except TimeoutError:
                quiet += 0.5
                if quiet >= _PING_S:
                    quiet = 0.0
                    yield ": here\n\n"
                continue
            yield f"event: {event}\ndata: {json.dumps(data)}\n\n"


async def _flush(annotator: Annotator) -> None:
    """Write the mask files that are behind, of large images, again and again."""
    while True:
        await asyncio.sleep(_FLUSH_S)
        for labels in annotator.folder.unwritten():
            await annotator.on_files(partial(_try_flush, labels))


def _try_flush(labels: ImageLabels) -> None:
    """Write the mask file of an image; where that fails, the journal has its labels, and it is tried again."""
    try:
        labels.flush()
    except Exception as error:  # of one image; the others are written nevertheless
        problem = f"the labels are kept, but their mask file cannot be written yet: {error}"
        if problem != labels.problem:
            labels.problem = problem
            _log.warning("%s", problem, exc_info=not isinstance(error, SimMATError | OSError))


def _answering(answer: Answer) -> Answer:
    """Turn errors into answers with a code and a message, and none of the server's insides."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except LookupError as error:
            return _error(404, "not_found", str(error.args[0]) if error.args else "there is no such thing")
        except BusyError:
            return _error(409, "busy", "a training runs already; stop it first")
        except ConfigError as error:
            return _error(422, "invalid", str(error))
        except OutputError as error:
            return _error(507, "output", str(error))
        except SimMATError as error:
            return _error(422, "data", str(error))
        except TooLargeError:
            return _error(413, "size", f"a request may have at most {MOST_BODY} bytes")
        except (HTTPException, asyncio.CancelledError):
            raise
        except Exception:
            _log.exception("%s %s", request.method, request.url.path)
            return _error(500, "internal", "a fault in the annotator; its terminal says more")

    return answered


def _error(status: int, code: str, message: str) -> Response:
    lines = message.splitlines() or [""]
    problems = [line.strip().removeprefix("- ") for line in lines[1:]]
    return Json(error_document(code, message, problems), status_code=status)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    codes = {
        404: ("not_found", "there is nothing at this address"),
        405: ("method", "use GET or POST"),
        500: ("internal", "a fault in the annotator; its terminal says more"),
    }
    return _error(status, *codes.get(status, ("invalid", "the request cannot be answered")))
