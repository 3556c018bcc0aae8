"""The addresses of the server."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

from anyio import CapacityLimiter, to_thread
from simmat_plugin_annotate.security import BodyTooLargeError, Limits
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from simmat.errors import ConfigError, OutputError, SimMATError
from simmat.io.reading import parse_json
from simmat.terminal import echo
from simmat_plugin_labelstudio.backend import Backend, UnknownSampleError

MAX_BODY = 32 * 2**20
"""Most bytes of a request: a task is sent with all its labels, brushes as lists of numbers."""
_ANSWERS = 4
"""Requests that are answered, or pictures that are drawn, at once; others wait."""
_LARGE_BODY = 2**20
"""Bytes of a body that is answered alone: parsed, it takes up to thirty times as much memory."""
_STATUS: dict[type[Exception], int] = {
    UnknownSampleError: 404,
    ClientDisconnect: 408,
    BodyTooLargeError: 413,
    OutputError: 507,
    SimMATError: 400,
}
PAGE = """<!doctype html><title>SimMAT for Label Studio</title>
<h1>SimMAT for Label Studio</h1>
<p>Model {version}, {count} images. In a project of Label Studio:
<ol><li>Settings, Labeling Interface, Code: paste the <a href="/label-config.xml">labelling configuration</a>
<li>Import: the <a href="/tasks.json" download>tasks</a>
<li>Settings, Model: connect {address}, with interactive preannotations
</ol>"""


def make_app(
    backend: Backend, hosts: Sequence[str], origins: Sequence[str]
) -> Starlette:
    """Return the app.

    Args:
        hosts: names by which it is reached; others are refused, so that no web page reaches it by a name of its own.
        origins: addresses whose pages may read the images.
    """
    answering = CapacityLimiter(_ANSWERS)
    answering_large = CapacityLimiter(1)

    def json(answer: Callable[[Any], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            if (
                request.headers.get("content-type", "").partition(";")[0]
                != "application/json"
            ):
                raise ConfigError(
                    "the body must be json, with Content-Type: application/json"
                )
            content = await request.body()

            def read_and_answer() -> Any:
                try:
                    body = parse_json(content)
                except ValueError as error:
                    raise ConfigError(f"the body is not valid json: {error}") from None
                return answer(body)

            limiter = answering
            if len(content) > _LARGE_BODY:
                limiter = answering_large
            return JSONResponse(
                await to_thread.run_sync(read_and_answer, limiter=limiter)
            )

        return endpoint

    def index(request: Request) -> Response:
        values = {
            "version": backend.version,
            "count": len(backend.samples),
            "address": backend.address,
        }
        return HTMLResponse(
            PAGE.format(
                **{name: html.escape(str(value)) for name, value in values.items()}
            )
        )

    async def picture(request: Request) -> Response:
        sample = request.path_params["sample"]
        content = await to_thread.run_sync(backend.picture, sample, limiter=answering)
        return Response(content, media_type="image/png")

    def failed(request: Request, error: Exception) -> Response:
        kind = next(kind for kind in type(error).__mro__ if kind in _STATUS)
        message = str(error) or "the body of the request did not arrive"
        echo(f"warning: {message}", err=True)  # Label Studio shows the status alone
        return JSONResponse({"detail": message}, _STATUS[kind])

    return Starlette(
        routes=[
            Route("/", index),
            Route(
                "/health",
                lambda _: JSONResponse({"status": "UP", "model_class": "SimMAT"}),
            ),
            Route("/setup", json(backend.setup), methods=["POST"]),
            Route("/predict", json(backend.predict), methods=["POST"]),
            # nothing is trained
            Route("/webhook", json(lambda _: {}), methods=["POST"]),
            Route("/tasks.json", lambda _: JSONResponse(backend.tasks())),
            Route(
                "/label-config.xml",
                lambda _: Response(backend.label_config(), media_type="text/plain"),
            ),
            Route("/images/{sample:path}.png", picture),
        ],
        middleware=[
            Middleware(Limits, sizes={}, largest=MAX_BODY),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
            Middleware(CORSMiddleware, allow_origins=list(origins)),
        ],
        exception_handlers=dict.fromkeys(_STATUS, failed),
    )
