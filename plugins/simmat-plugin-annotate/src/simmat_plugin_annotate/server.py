"""The routes of the server."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from simmat.errors import ConfigError, DataError, OutputError, SimMATError
from simmat_plugin_annotate.annotator import Annotator, flush
from simmat_plugin_annotate.drafts import Draft, Edited, StaleError
from simmat_plugin_annotate.forecast import forecast_document
from simmat_plugin_annotate.labels import LabelledImage
from simmat_plugin_annotate.models import (
    BusyError,
    CancelledError,
    ModelService,
    Result,
)
from simmat_plugin_annotate.planes import UnknownError
from simmat_plugin_annotate.requests import (
    AcceptBody,
    AddEdit,
    ClassEdit,
    ClassesBody,
    ConfirmEdit,
    DoneBody,
    EditsBody,
    EncodeBody,
    FollowBody,
    MeasureBody,
    Nothing,
    PredictBody,
    RemoveEdit,
    ReplaceEdit,
    RightBody,
    TrainBody,
    VersionBody,
    body_of,
    box_of,
    number,
    numbers,
)
from simmat_plugin_annotate.security import BodyTooLargeError, error_document
from simmat_plugin_annotate.training import first_steps, last_pace

STATIC = Path(__file__).parent / "static"
_MAX_PLANES = 16
_THUMBNAIL_PX = 64
_PING_INTERVAL_S = 15.0


class RestartedError(Exception):
    """The page belongs to an earlier start of the server, perhaps for another folder."""


class Json(JSONResponse):
    """Json in ASCII: file names that are not UTF-8 contain characters that must be escaped."""

    def render(self, content: Any) -> bytes:
        """Return the text."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode(
            "ascii"
        )


def make_app(annotator: Annotator) -> Starlette:
    """Return the app, with a `Guard` in front of it."""
    routes = Routes(annotator)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        writing = asyncio.create_task(flush(annotator))
        try:
            yield
        finally:
            annotator.service.closing.set()
            await annotator.training.close()
            writing.cancel()
            annotator.close()

    image = "/api/images/{key}"
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/", routes.index),
        ("GET", "/api/session", routes.session),
        ("GET", "/api/images", routes.images),
        ("GET", image, routes.image),
        ("GET", f"{image}/thumbnail", routes.thumbnail),
        ("GET", f"{image}/tiles/{{level}}/{{column}}/{{row}}", routes.tile),
        ("POST", f"{image}/encode", routes.encode),
        ("POST", f"{image}/predict", routes.predict),
        ("GET", f"{image}/suggestions", routes.suggestions),
        ("POST", f"{image}/measure", routes.measure),
        ("GET", f"{image}/objects.csv", routes.table),
        ("POST", f"{image}/edits", routes.edits),
        ("POST", f"{image}/undo", routes.step),
        ("POST", f"{image}/redo", routes.step),
        ("POST", f"{image}/done", routes.done),
        ("POST", f"{image}/follow", routes.follow),
        ("POST", f"{image}/accept", routes.accept),
        ("POST", "/api/follow/stop", routes.stop_following),
        ("POST", "/api/classes", routes.classes),
        ("GET", "/api/train", routes.training),
        ("POST", "/api/train", routes.train),
        ("POST", "/api/train/stop", routes.stop),
        ("GET", "/api/forecast", routes.forecast),
        ("GET", "/api/suspects", routes.suspects),
        ("POST", "/api/suspects/check", routes.check),
        ("POST", "/api/suspects/stop", routes.stop_check),
        ("POST", "/api/suspects/right", routes.right),
        ("GET", "/api/events", routes.events),
    ]
    paths = [Route(path, answer, methods=[method]) for method, path, answer in table]
    files = Mount("/static", StaticFiles(directory=STATIC))
    return Starlette(
        routes=[*paths, files], lifespan=lifespan, exception_handlers=error_handlers()
    )


class Routes:
    """One method per route; docs/annotate.md describes them."""

    def __init__(self, annotator: Annotator) -> None:
        self.annotator, self.folder, self.service = (
            annotator,
            annotator.folder,
            annotator.service,
        )

    async def index(self, request: Request) -> Response:
        """Return the page."""
        return FileResponse(STATIC / "index.html")

    async def session(self, request: Request) -> Response:
        """Return the state of the session: sensor, classes, model."""
        return await json_of(
            await self.annotator.on_files(self.annotator.session_document)
        )

    async def images(self, request: Request) -> Response:
        """Return the list of images."""
        return await json_of(
            {"images": await self.annotator.on_files(self.annotator.images_document)}
        )

    async def image(self, request: Request) -> Response:
        """Return an image with its objects."""
        key = self._key(request)
        return await json_of(
            await self.annotator.on_files(partial(self.annotator.image_document, key))
        )

    async def tile(self, request: Request) -> Response:
        """Return the values of a tile."""
        key = self._key(request)
        level, column, row = (
            number(request.path_params[name]) for name in ("level", "column", "row")
        )
        asked = numbers(request, "channels")

        def read() -> tuple[tuple[int, int, int], bytes, str]:
            planes = self.folder.planes(key)
            channels = asked or range(min(len(planes.channels), _MAX_PLANES))
            if len(channels) > _MAX_PLANES:
                raise ConfigError(
                    f"at most {_MAX_PLANES} channels may be requested at once"
                )
            return *planes.tile(level, column, row, channels), planes.digest

        shape, content, digest = await self.annotator.on_files(read)
        # The next server may have another folder with an image of this name; the digest distinguishes them.
        kept = (
            "private, max-age=3600"
            if request.query_params.get("v") == digest
            else "no-store"
        )
        headers = {"x-tile": ",".join(map(str, shape)), "cache-control": kept}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def thumbnail(self, request: Request) -> Response:
        """Return a small picture of an image."""
        key = self._key(request)
        content = await self.annotator.on_files(
            lambda: self.folder.planes(key).thumbnail(_THUMBNAIL_PX)
        )
        kept = (
            "private, max-age=3600"
            if request.query_params.get("v") == self.annotator.session
            else "no-store"
        )
        return Response(
            content, media_type="image/png", headers={"cache-control": kept}
        )

    async def encode(self, request: Request) -> Response:
        """Encode an image that a tab shows, or with `ahead` may show next."""
        key, body = self._key(request), await body_of(request, EncodeBody)
        if body.ahead:
            await self.service.run(partial(self.service.encode_ahead, key), slow=True)
            return Json({"ready": False})
        if body.tab:
            self.service.open[body.tab] = key
        return Json(await self.service.run(partial(self.service.encode, key, body.tab)))

    async def predict(self, request: Request) -> Response:
        """Return the masks for a prompt."""
        key, body = self._key(request), await body_of(request, PredictBody)
        # Written in the thread that predicts: a click waits for every change of threads on a busy machine.
        return await self.service.run(
            lambda: Json(self.service.predict(key, body.points, body.box))
        )

    async def suggestions(self, request: Request) -> Response:
        """Return the found objects that are not labelled yet, in a box; with `like` those like objects of an image."""
        key, box = self._key(request), box_of(request)
        labels = await self.annotator.on_files(partial(self.folder.labels, key))
        known, like = list(labels.objects.values()), None
        if shown := request.query_params.get("like"):
            self.folder.find(shown)
            source = await self.annotator.on_files(partial(self.folder.labels, shown))
            chosen = numbers(request, "objects")
            like = partial(
                self.service.like, shown, *self.annotator.objects_of(source), chosen
            )
        elif not request.query_params.get("model"):
            imported = await self.annotator.on_files(
                partial(self.annotator.imported, key, known)
            )
            if imported is not None:
                return await json_of(imported)
        return await json_of(
            await search(
                request,
                self.service,
                partial(self.service.suggestions, key, known, box, like=like),
            )
        )

    async def measure(self, request: Request) -> Response:
        """Return the numbers of some objects in one channel."""
        key, body = self._key(request), await body_of(request, MeasureBody)
        return await json_of(
            await self.annotator.on_files(
                lambda: self.annotator.measured(key).document(body.channel, body.ids)
            )
        )

    async def table(self, request: Request) -> Response:
        """Return the table of all objects that `simmat measure` writes."""
        key, names = self._key(request), self.annotator.class_names()
        content = await self.annotator.on_files(
            lambda: self.annotator.measured(key).csv(names)
        )
        headers = {"cache-control": "no-store"}
        return Response(content, media_type="text/csv", headers=headers)

    async def edits(self, request: Request) -> Response:
        """Edit objects."""
        body = await body_of(request, EditsBody)
        key, known = self._key(request), self.annotator.class_names()

        def change(draft: Draft) -> None:
            for edit in body.edits:
                if (
                    isinstance(edit, AddEdit | ClassEdit)
                    and edit.class_id is not None
                    and edit.class_id not in known
                ):
                    raise DataError(
                        f"there is no class {edit.class_id}; add it to the classes first"
                    )
                if isinstance(edit, AddEdit):
                    class_id = edit.class_id
                    if edit.id is not None:
                        tracks = self.folder.frames.tracks(key)
                        if edit.id not in tracks:
                            raise DataError(
                                f"no other frame has an object {edit.id}; leave the id out"
                            )
                        class_id = tracks[edit.id]
                    draft.add(
                        edit.mask,
                        class_id,
                        edit.overlap,
                        edit.id,
                        predicted=edit.predicted,
                    )
                elif isinstance(edit, ReplaceEdit):
                    draft.replace(
                        edit.id, edit.mask, edit.overlap, predicted=edit.predicted
                    )
                elif isinstance(edit, ClassEdit):
                    draft.set_class(edit.id, edit.class_id)
                elif isinstance(edit, RemoveEdit):
                    draft.remove(edit.id)
                elif isinstance(edit, ConfirmEdit):
                    draft.confirm(edit.ids)
                else:
                    draft.accept()

        return await self._changed(
            request, lambda labels: labels.edit(body.version, change)
        )

    async def step(self, request: Request) -> Response:
        """Undo or redo a step."""
        body, kind = (
            await body_of(request, VersionBody),
            request.url.path.rpartition("/")[2],
        )
        return await self._changed(
            request, lambda labels: labels.step(body.version, kind)
        )

    async def done(self, request: Request) -> Response:
        """Mark an image as finished."""
        body = await body_of(request, DoneBody)
        return await self._changed(
            request,
            lambda labels: labels.set_done(body.version, body.done, empty=body.empty),
        )

    async def follow(self, request: Request) -> Response:
        """Fill the frames after or before one with its objects."""
        key, body, following = (
            self._key(request),
            await body_of(request, FollowBody),
            self.annotator.following,
        )
        following.start(
            await self.annotator.on_files(
                partial(following.plan, key, body.frames, body.objects)
            )
        )
        return Json(following.document, status_code=202)

    async def stop_following(self, request: Request) -> Response:
        """Stop filling frames."""
        await body_of(request, Nothing)
        self.annotator.following.stop()
        return Json(self.annotator.following.document)

    async def accept(self, request: Request) -> Response:
        """Accept the followed frames of a sequence whose scores are high enough."""
        key, body = self._key(request), await body_of(request, AcceptBody)
        accepted = await self.annotator.on_files(
            partial(self.annotator.accept_frames, key, body.score)
        )
        for one in accepted:
            self.annotator.publish_image(one)
        return Json({"frames": len(accepted)})

    async def classes(self, request: Request) -> Response:
        """Replace the list of classes."""
        body = await body_of(request, ClassesBody)
        given = [(one.id, one.name, one.colour) for one in body.classes]
        await self.annotator.on_files(partial(self.folder.set_classes, given))
        document = {"classes": self.annotator.classes_document()}
        self.annotator.publish("classes", document)
        return Json(document)

    async def training(self, request: Request) -> Response:
        """Return the state of the training, and what one would take now: split, steps by default, and pace."""

        def planned() -> dict[str, Any]:
            split = self._split()
            return {
                "split": split,
                "predicted": self.folder.predicted_count(),
                "default_steps": first_steps(split.get("train", 0)),
                "pace": last_pace(self.folder.root),
            }

        plan = await self.annotator.on_files(planned)
        return Json({**self.annotator.training.document(), **plan})

    def _split(self) -> dict[str, int]:
        """Return split -> number of labelled images; empty if there are too few to split."""
        return dict(Counter(self.folder.splits().values()))

    async def train(self, request: Request) -> Response:
        """Start a training."""
        body = await body_of(request, TrainBody)

        def prepare() -> tuple[int, int]:
            self.folder.flush()
            self.folder.write_card()
            steps = first_steps(self._split().get("train", 0))
            return self.folder.mask_count(), steps

        images, steps = await self.annotator.on_files(prepare)
        model = self.service.model
        await self.annotator.training.start(
            body.steps, images, model, body.arguments(model.path), planned=steps
        )
        return Json(self.annotator.training.document(), status_code=202)

    async def stop(self, request: Request) -> Response:
        """Stop the training."""
        await body_of(request, Nothing)
        await self.annotator.training.stop()
        return Json(self.annotator.training.document())

    async def forecast(self, request: Request) -> Response:
        """Return what more labels would bring."""
        root = self.folder.root
        return Json(await self.annotator.on_files(partial(forecast_document, root)))

    async def suspects(self, request: Request) -> Response:
        """Return the labels that a training contradicts, by the last check."""
        return await json_of(
            await self.annotator.on_files(self.annotator.suspects.listed)
        )

    async def check(self, request: Request) -> Response:
        """Compare the labels with trainings."""
        await body_of(request, Nothing)
        self.annotator.suspects.start()
        return Json(self.annotator.suspects.document, status_code=202)

    async def stop_check(self, request: Request) -> Response:
        """Stop comparing."""
        await body_of(request, Nothing)
        self.annotator.suspects.stop()
        return Json(self.annotator.suspects.document)

    async def right(self, request: Request) -> Response:
        """Remember that a suspected label is right."""
        body, suspects = await body_of(request, RightBody), self.annotator.suspects
        await self.annotator.on_files(partial(suspects.mark, body.id, right=body.right))
        self.annotator.publish("check", suspects.document)
        return Json(suspects.document)

    async def events(self, request: Request) -> Response:
        """Stream the events of other tabs and the training."""
        return StreamingResponse(
            _stream(self.annotator),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    def _key(self, request: Request) -> str:
        key: str = request.path_params["key"]
        self.folder.find(key)
        return key

    async def _changed(
        self, request: Request, change: Callable[[LabelledImage], Edited]
    ) -> Response:
        key = self._key(request)
        if (
            request.headers.get("x-session", self.annotator.session)
            != self.annotator.session
        ):
            raise RestartedError

        def work() -> tuple[dict[str, Any], list[str]]:
            labels = self.folder.labels(key)
            # without the lock of the image: the folder takes image locks inside its own
            self.folder.write_card()
            with labels.lock:
                edited = change(labels)
                document = self.annotator.change_document(labels, edited)
            for one in document["changed"]:
                self.folder.add_found_class(one["class"])
            return document, [
                key,
                *self.annotator.set_track_classes(key, edited.classes),
            ]

        try:
            document, changed = await self.annotator.on_files(work)
        except StaleError:
            state = await self.annotator.on_files(
                partial(self.annotator.image_document, key)
            )
            text = "another tab or program changed these labels; check them again"
            return await json_of(
                {**error_document("stale", text), "state": state}, status_code=409
            )
        for one in changed:
            self.annotator.publish_image(one)
        return await json_of(document)


async def search(
    request: Request,
    service: ModelService,
    work: Callable[[Callable[[], bool]], Result],
) -> Result:
    """Return what slow work finds, which is given a function that says whether the client still waits for it."""
    left = threading.Event()
    answer = asyncio.ensure_future(
        service.run(partial(work, lambda: not left.is_set()), slow=True)
    )
    while not answer.done():
        await asyncio.wait([answer], timeout=0.3)
        if await request.is_disconnected():
            left.set()
    return answer.result()


async def json_of(document: Any, **more: Any) -> Response:
    """Return a document as json, written in a thread because it may be large."""
    return await asyncio.to_thread(partial(Json, document, **more))


async def _stream(annotator: Annotator) -> AsyncIterator[str]:
    """Yield events as text."""
    async with annotator.listening() as queue:
        yield f"event: hello\ndata: {json.dumps({'session': annotator.session})}\n\n"
        quiet = 0.0
        while not annotator.service.closing.is_set():
            try:
                # short, so that the server can stop
                event, data = await asyncio.wait_for(queue.get(), 0.5)
            except TimeoutError:
                quiet += 0.5
                if quiet >= _PING_INTERVAL_S:
                    quiet = 0.0
                    yield ": here\n\n"
                continue
            yield f"event: {event}\ndata: {json.dumps(data)}\n\n"


_ERRORS: dict[type[Exception], tuple[int, str, str]] = {
    UnknownError: (404, "not_found", ""),
    BusyError: (409, "busy", ""),
    RestartedError: (
        409,
        "restarted",
        "the server was restarted; reload the page first",
    ),
    CancelledError: (409, "cancelled", "the request was cancelled"),
    ClientDisconnect: (408, "timeout", "the body of the request did not arrive"),
    BodyTooLargeError: (413, "size", ""),
    ConfigError: (422, "invalid", ""),
    SimMATError: (422, "data", ""),
    OutputError: (507, "output", ""),
    HTTPException: (404, "not_found", "there is nothing at this address"),
    Exception: (500, "internal", "an error in the server; see its terminal"),
}
"""Error class -> status, code and message; "" means the error's own message. Others reveal nothing of the server."""


def error_handlers(
    shown: Callable[[str], str] = str,
) -> Mapping[Any, Callable[..., Awaitable[Response]]]:
    """Return error class -> what answers it.

    Args:
        shown: returns what a client may read of a message.
    """

    async def answer(request: Request, error: Exception) -> Response:
        status, code, message = next(
            _ERRORS[kind] for kind in type(error).__mro__ if kind in _ERRORS
        )
        if isinstance(error, HTTPException) and error.status_code == 405:
            status, code, message = 405, "method", "use GET or POST"
        elif isinstance(error, HTTPException) and error.status_code == 400:
            status, code, message = 400, "form", str(error.detail)
        message, *more = shown(message or str(error)).splitlines()
        problems = [line.strip().removeprefix("- ") for line in more]
        return Json(error_document(code, message, problems), status_code=status)

    async def no_room(request: Request, error: OSError) -> Response:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        message = "the disk of the server is full; make room on it, or try again later"
        return Json(error_document("output", message), status_code=507)

    return {**dict.fromkeys(_ERRORS, answer), OSError: no_room}
