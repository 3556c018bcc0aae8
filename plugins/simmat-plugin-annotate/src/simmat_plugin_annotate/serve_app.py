"""The routes of `simmat serve`: a model over HTTP, for files that clients send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import numpy as np
from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from simmat.data.instances import region_from_mask
from simmat.errors import DataError
from simmat.sensors.adapter import options_of, sensor_definitions_of
from simmat_plugin_annotate.masks import MaskDocument, encode_mask
from simmat_plugin_annotate.models import ModelService, ServedModel
from simmat_plugin_annotate.requests import PredictBody, body_of, box_of
from simmat_plugin_annotate.security import SMALL
from simmat_plugin_annotate.server import Json, error_handlers, json_of, search
from simmat_plugin_annotate.uploads import Uploads

MAX_PROMPT = 2**17
"""Most bytes of a json request; all are prompts."""
_UPLOADS = 4
"""Images that are read at once; others wait. Any number arrives at once."""
_FORM = {
    "type": "object",
    "additionalProperties": {"type": "string", "format": "binary"},
}


class ChannelDocument(BaseModel):
    """A channel of the sensor."""

    name: str
    quantity: str
    unit: str
    wavelength_um: float | None


class ModelDocument(BaseModel):
    """The model and what it takes; an image is a file for each of `sources`, or an array.

    `options` of the sensor, the data `card` of the training, and the definitions of sensors that a sensor.toml
    describes say how files are read.
    """

    name: str
    digest: str
    sensor: str
    sensor_definitions: list[dict[str, Any]]
    options: dict[str, dict[str, Any]]
    card: dict[str, Any]
    sources: list[str]
    channels: list[ChannelDocument]
    classes: dict[int, str]
    has_class_map: bool
    limits: dict[str, int]


class ImageDocument(BaseModel):
    """An image that is encoded: its id, and size in pixels; `window` is the side of its windows if it is cut.

    `warning` says how its values differ from those of the training.
    """

    id: str
    size_hw: tuple[int, int]
    window: int | None
    warning: str


class MaskAnswer(BaseModel):
    """A mask with its predicted IoU and the class that it most likely has; `mask` is null where it is empty."""

    mask: MaskDocument | None
    score: float
    area: int
    class_id: int | None = Field(alias="class")
    class_probability: float | None


class FoundAnswer(MaskAnswer):
    """A found object, with a point on it."""

    point: tuple[float, float]


class PredictAnswer(BaseModel):
    """Every mask of the model for a prompt: the single one, then by falling score."""

    masks: list[MaskAnswer]
    warning: str


class EverythingAnswer(BaseModel):
    """The objects of an image, by falling score."""

    objects: list[FoundAnswer]


class ClassArea(BaseModel):
    """The pixels of a class, and its mean probability there."""

    class_id: int = Field(alias="class")
    name: str
    area: int
    probability: float
    mask: MaskDocument


class ClassesAnswer(BaseModel):
    """The class of every pixel: pixels in none are of the background, or without a measurement."""

    size_hw: tuple[int, int]
    classes: list[ClassArea]
    unmeasured: MaskDocument | None


def make_serve_app(
    model: ServedModel, uploads: Uploads, limits: dict[str, int]
) -> FastAPI:
    """Return the app, with a `Guard` in front of it.

    Args:
        uploads: the images; its folder is removed by the caller.
        limits: what clients are told of them.
    """
    names = _class_names(model)
    service = ModelService(model, uploads.find, lambda: names)
    files = ThreadPoolExecutor(_UPLOADS, thread_name_prefix="files")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()
        files.shutdown(wait=True, cancel_futures=True)

    app = FastAPI(
        title="SimMAT",
        version=version("simmat-plugin-annotate"),
        lifespan=lifespan,
        docs_url=None,  # its page is fetched from elsewhere
        redoc_url=None,
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        exception_handlers=cast(Any, error_handlers(uploads.without_paths)),
    )

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return RedirectResponse("/openapi.json")

    @app.get("/model", response_model=ModelDocument)
    async def describe() -> Response:
        """Return what the model is, the files that it takes, and its classes."""
        predictor = model.predictor
        channels = [
            {name: getattr(one, name) for name in ChannelDocument.model_fields}
            for one in predictor.channels
        ]
        return Json(
            {
                "name": model.name,
                "digest": model.digest,
                "sensor": predictor.adapter.name,
                "sensor_definitions": [
                    definition.model_dump(mode="json")
                    for definition in sensor_definitions_of(predictor.adapter)
                ],
                "options": options_of(predictor.adapter),
                "card": predictor.image_loader.card.model_dump(mode="json"),
                "sources": list(predictor.adapter.source_names()),
                "channels": channels,
                "classes": names,
                "has_class_map": predictor.dense is not None,
                "limits": limits,
            }
        )

    body = {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}

    @app.post(
        "/images", response_model=ImageDocument, openapi_extra={"requestBody": body}
    )
    async def send(request: Request) -> Response:
        """Store and encode an image: a form with a file for each source of the sensor, as the sensor wrote it.

        Or with one npy file `array`: float32 (C, H, W) in the units of the channels, NaN where nothing was measured.
        The same files have the same id, and are encoded once.
        """
        sources = len(model.predictor.adapter.source_names())
        form = await _form_of(request, sources)
        try:
            parts = form.multi_items()
            given = {
                name: (part.filename or "", part.file)
                for name, part in parts
                if isinstance(part, UploadFile)
            }
            if len(given) < len(parts):
                raise DataError(
                    "a part of the form is not a file, or a source has two files"
                )
            key = await asyncio.get_running_loop().run_in_executor(
                files, partial(uploads.add, given)
            )
        finally:
            await form.close()
        try:
            encode = partial(service.encode_ahead, key)
            warning = await service.run(encode, slow=True)
            size_hw = uploads.find(key).size_hw
        finally:
            uploads.release(key)
        tile = model.predictor.tile_size(size_hw)
        return Json(
            {
                "id": key,
                "size_hw": size_hw,
                "window": tile if tile < max(size_hw) else None,
                "warning": warning,
            }
        )

    @contextmanager
    def in_use(image: str) -> Iterator[None]:
        uploads.use(image)
        try:
            yield
        finally:
            uploads.release(image)

    prompt = {"schema": PredictBody.model_json_schema()}

    @app.post(
        "/images/{image}/predict",
        response_model=PredictAnswer,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": prompt}}
        },
    )
    async def predict(image: str, request: Request) -> Response:
        """Return the masks for points, a box, or both, in pixels of the image."""
        body = await body_of(request, PredictBody)
        with in_use(image):
            return await service.run(
                lambda: Json(service.predict(image, body.points, body.box))
            )

    box = {
        "name": "box",
        "in": "query",
        "schema": {"type": "string"},
        "description": "x0,y0,x1,y1: search this part",
    }

    @app.get(
        "/images/{image}/everything",
        response_model=EverythingAnswer,
        openapi_extra={"parameters": [box]},
    )
    async def everything(image: str, request: Request) -> Response:
        """Return every object of the image, or of a part of it, that the model finds."""
        part = box_of(request)
        with in_use(image):
            found = await search(
                request, service, partial(service.suggestions, image, (), part)
            )
        objects = found["objects"]
        if part is not None:  # an image of one window is searched as a whole
            x0, y0, x1, y1 = part
            boxes = [(one, *one["mask"]["box"]) for one in objects]
            objects = [
                one
                for one, a, b, c, d in boxes
                if a < x1 and b < y1 and c > x0 and d > y0
            ]
        return await json_of({"objects": objects})

    @app.get("/images/{image}/classes", response_model=ClassesAnswer)
    async def classes(image: str) -> Response:
        """Return the class of every pixel, as a mask for each class."""
        with in_use(image):
            return await service.run(
                lambda: Json(_classes(service, image, names)), slow=True
            )

    return app


class _FormParser(MultiPartParser):
    """Keeps little of each file in memory, as the forms of all clients may arrive at once."""

    spool_max_size = SMALL


async def _form_of(request: Request, files: int) -> FormData:
    """Read a form with at most that many files; HTTPException if it is not one."""
    parser = _FormParser(
        request.headers,
        request.stream(),
        max_files=files,
        max_fields=files,
        max_part_size=SMALL,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error


def _class_names(model: ServedModel) -> dict[int, str]:
    """Return label value -> name of the classes that answers may have; a class without a name has its number."""
    dense, known = model.predictor.dense, model.predictor.class_names
    values = [value for value in (dense.classes if dense else ()) if value is not None]
    return {value: known.get(value, str(value)) for value in values} or dict(known)


def _classes(service: ModelService, key: str, names: dict[int, str]) -> dict[str, Any]:
    found = service.class_map(key)
    known = [
        value
        for value in np.unique(found.labels).tolist()
        if value not in (found.background, found.nodata)
    ]
    regions = {value: region_from_mask(found.labels == value, value) for value in known}
    unmeasured = (
        None
        if found.nodata is None
        else region_from_mask(found.labels == found.nodata, None)
    )
    return {
        "size_hw": found.labels.shape,
        "classes": [
            {
                "class": value,
                "name": names.get(value, str(value)),
                "area": region.area,
                "probability": round(
                    float(found.probability[found.labels == value].mean()), 5
                ),
                "mask": encode_mask(region),
            }
            for value, region in regions.items()
            if region is not None
        ],
        "unmeasured": None if unmeasured is None else encode_mask(unmeasured),
    }
