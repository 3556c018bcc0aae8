"""Admit only requests with the token, from pages of this server, and of limited size and duration."""

from __future__ import annotations

import asyncio
import hmac
import html
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 8 * 2**20
"""Most bytes of a json request."""
BODY_TIMEOUT_S = 30
"""Seconds in which the next `BODY_PART` of a body must arrive; slow uploads keep others waiting."""
BODY_PART = 2**18
"""Bytes of a body, or all that is left of it."""
MAX_HELD = 128 * 2**20
"""Bytes of bodies and answers that are in memory at once, of all clients; others are refused."""
SMALL = 2**16
"""Bytes of a body or an answer that do not count towards it, and of a part in which an answer is sent."""
MAX_FORMS = 16
"""Forms of full size that are on the disk at once, of all clients; others are refused."""
_FORM = "multipart/form-data"
"""Files of a form are written to the disk as they arrive."""
POLICY = (
    "default-src 'self'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PORTS = {"http": 80, "https": 443}
"""The port of an address without one."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class BodyTooLargeError(Exception):
    """A body has more bytes than its kind may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a request may have at most {limit} bytes")


class Limits:
    """Middleware that ends requests whose body is too large or too slow, and answers those of a server that stops.

    Where an app reads the body, it raises `BodyTooLargeError`, or ClientDisconnect of a body that does not arrive.
    Bodies and answers of all requests together take at most `MAX_HELD` bytes of memory, and forms at most `MAX_FORMS`
    times their limit of the disk. A body waits until it has room, up to `BODY_TIMEOUT_S`; what gets none is refused
    with 503.
    """

    def __init__(
        self, app: ASGIApp, *, sizes: Mapping[str, int], largest: int = MAX_BODY
    ) -> None:
        """Limit the requests of an app.

        Args:
            sizes: most bytes of a body, by its type.
            largest: most bytes of other bodies.
        """
        self._app, self._sizes, self._largest = app, sizes, largest
        self._memory = _Room(MAX_HELD)
        self._disk = _Room(MAX_FORMS * sizes.get(_FORM, 0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        kind = _kind(headers)
        lengths = headers.getlist("content-length")
        share = _Share()
        room = self._disk if kind == _FORM else self._memory
        body = _Body(receive, self._sizes.get(kind, self._largest), share, room)
        if not _all_within(lengths, body.limit):
            too_large = error_document("size", str(BodyTooLargeError(body.limit)))
            answer = JSONResponse(too_large, 413, {"connection": "close"})
            await answer(scope, receive, send)
            return
        if kind == _FORM:
            body.is_counted_as_it_arrives = True
        elif lengths:
            body.held = int(lengths[0])
        elif "transfer-encoding" in headers:
            body.held = body.limit
        sender = _Sender(send, share, self._memory)
        refused: Response | None = None
        try:
            await self._app(scope, body.receive, sender.send)
        except asyncio.CancelledError:  # the server stops, and waits no longer
            stopped = error_document(
                "stopped", "the server was stopped before it could answer"
            )
            refused = JSONResponse(stopped, 503, {"connection": "close"})
        finally:
            await share.release()
        if share.is_refused:
            busy = error_document(
                "busy",
                "the server has too many large requests at once; try again later",
            )
            refused = JSONResponse(busy, 503, {"connection": "close"})
        if refused is not None and not sender.is_started:
            await refused(scope, receive, send)


class _Room:
    """The bytes of all requests that are in memory, or on the disk."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.held = 0
        self.changed = asyncio.Condition()

    def has(self, size: int) -> bool:
        """Return whether as many bytes fit; of a single request any number, as its kind has a limit."""
        return self.held == 0 or self.held + size <= self._size


class _Share:
    """The bytes of one request.

    Attributes:
        is_refused: whether something of it got no room.
    """

    def __init__(self) -> None:
        self._taken: dict[_Room, int] = {}
        self.is_refused = False

    async def wait_for(self, room: _Room, size: int) -> None:
        """Take as many bytes as soon as they fit; set `is_refused` if they do not in time."""
        if size <= SMALL:
            return
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S), room.changed:
                await room.changed.wait_for(lambda: room.has(size))
                self._take(room, size)
        except TimeoutError:
            self.is_refused = True

    def take(self, room: _Room, size: int) -> None:
        """Take as many bytes; set `is_refused` if they do not fit."""
        if size <= SMALL:
            return
        if room.has(size):
            self._take(room, size)
        else:
            self.is_refused = True

    def _take(self, room: _Room, size: int) -> None:
        room.held += size
        self._taken[room] = self._taken.get(room, 0) + size

    async def release(self) -> None:
        """Give all back."""
        for room, size in self._taken.items():
            room.held -= size
            async with room.changed:
                room.changed.notify_all()
        self._taken.clear()


class _Sender:
    """The answer to a request, as it is sent.

    Attributes:
        is_started: whether the client has got a part of it.
    """

    def __init__(self, send: Send, share: _Share, memory: _Room) -> None:
        self._send, self._share, self._memory = send, share, memory
        self.is_started = False
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """Send a message in parts, each when the client has read most of those before it.

        The start waits for the first part of the content, so that an answer that is too large can be refused.
        """
        if self._share.is_refused and not self.is_started:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        content = message.get("body", b"")
        is_last = not message.get("more_body", False)
        if not self.is_started:
            self._share.take(self._memory, len(content))
            if self._share.is_refused:
                return
            self.is_started = True
            assert self._start is not None
            await self._send(self._start)
        for start in range(0, max(len(content), 1), SMALL):
            end = start + SMALL
            more = not is_last or end < len(content)
            part = {"body": content[start:end], "more_body": more}
            await self._send({"type": message["type"], **part})


class _Body:
    """The body of a request, as it arrives.

    Attributes:
        limit: most bytes of it.
        held: how many of them take room from the start.
        is_counted_as_it_arrives: whether they take room only when they arrive.
    """

    def __init__(
        self, receive: Receive, limit: int, share: _Share, room: _Room
    ) -> None:
        self._receive, self.limit = receive, limit
        self._share, self._room = share, room
        self.held = 0
        self.is_counted_as_it_arrives = False
        self._is_held = False
        self._received = 0
        self._uncounted = 0
        self._complete = False
        self._part, self._left_s = 0, float(BODY_TIMEOUT_S)

    async def receive(self) -> Message:
        """Return the next message, or the end of the connection where the body takes too long.

        Only the time counts in which the app waits for the client.
        """
        if self._complete:
            return await self._receive()
        if not self._is_held:
            self._is_held = True
            await self._share.wait_for(self._room, self.held)
        if self.is_counted_as_it_arrives and self._uncounted > SMALL:
            await self._share.wait_for(self._room, self._uncounted)
            self._uncounted = 0
        if self._share.is_refused:
            return {"type": "http.disconnect"}
        clock = asyncio.get_running_loop().time
        before = clock()
        try:
            async with asyncio.timeout(self._left_s):
                message = await self._receive()
        except TimeoutError:
            message = {"type": "http.disconnect"}
        content = message.get("body", b"")
        self._complete = not message.get("more_body", False)
        self._received += len(content)
        self._uncounted += len(content)
        if self._received > self.limit:
            raise BodyTooLargeError(self.limit)
        self._part += len(content)
        self._left_s -= clock() - before
        if self._part >= BODY_PART:
            self._part, self._left_s = 0, float(BODY_TIMEOUT_S)
        return message


def _all_within(lengths: Iterable[str], limit: int) -> bool:
    """Return whether each Content-Length is a number up to a limit."""
    return all(
        length.isascii() and length.isdigit() and int(length[:20]) <= limit
        for length in lengths
    )


class Guard:
    """Middleware that refuses requests before the app reads them.

    A page of another site can make a browser send requests here, but without the token, as the cookie is
    SameSite=Strict, and with another Origin. Host contains a name that an attacker made point to this machine (DNS
    rebinding).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        port: int,
        hosts: Iterable[str],
        upload: int = 0,
        body: int = MAX_BODY,
    ) -> None:
        """Guard an app.

        Args:
            hosts: names and addresses that Host may contain; without a port they have `port`. Of those with 80 or 443
                Host needs no port.
            upload: most bytes of a request with files; 0 refuses files.
            body: most bytes of a json request.
        """
        self._sizes = {"application/json": body}
        if upload:
            self._sizes["multipart/form-data"] = upload
        self._app, self._token = Limits(app, sizes=self._sizes), token
        self._hosts = {with_port(host, port).lower() for host in hosts}
        # cookies of one host are shared by all its ports
        self.cookie = f"simmat_annotate_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        answer = self._answer(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer to a request that the app must not get; None if the app gets it."""
        headers, given = (
            Headers(scope=scope),
            QueryParams(scope["query_string"]).get("token", ""),
        )
        refused = self._refused(scope, headers)
        if (
            refused is None
            and scope["method"] in ("GET", "HEAD")
            and scope["path"] == "/"
            and self._is_token(given)
        ):
            # A page removes the token from the address: after a redirect the browser would not send the new cookie.
            text = '<!doctype html><meta http-equiv="refresh" content="0; url=/"><title>SimMAT</title>'
            response = HTMLResponse(text, headers={"cache-control": "no-store"})
            response.set_cookie(
                self.cookie, self._token, httponly=True, samesite="strict"
            )
            return response
        if refused is None and not self._has_token(headers):
            printed = (
                "open the address that `simmat annotate` or `simmat serve` printed"
            )
            refused = (
                401,
                "token",
                f"{printed}; it contains the token, which scripts send as Authorization: Bearer TOKEN",
            )
        if refused is None:
            return None
        status, code, message = refused
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            text = f"<!doctype html><title>SimMAT</title><h1>No access</h1><p>{html.escape(message)}."
            return HTMLResponse(text, status, {"connection": "close"})
        return JSONResponse(
            error_document(code, message), status, {"connection": "close"}
        )

    def _refused(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        """Return status, code and message for a request that is refused even with the token, else None."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._hosts & {
            with_port(hosts[0].lower(), port) for port in _PORTS.values()
        }:
            return (
                403,
                "host",
                "this server answers only to its own address; see --allow-host",
            )
        site, origins = headers.get("sec-fetch-site", "none"), headers.getlist("origin")
        foreign = len(origins) > 1 or any(
            not self._is_own(origin) for origin in origins
        )
        is_link = scope["method"] == "GET" and scope["path"] == "/"
        if foreign or (site not in ("same-origin", "none") and not is_link):
            return 403, "origin", "the request comes from another page"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return (
                405,
                "method",
                f"{scope['method'][:20]} is not allowed; use GET or POST",
            )
        if scope["method"] == "POST" and _kind(headers) not in self._sizes:
            return (
                415,
                "type",
                f"the body must have Content-Type: {' or '.join(self._sizes)}",
            )
        return None

    def _is_own(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:  # for example "http://["
            return False
        port = _PORTS.get(parts.scheme)
        return (
            port is not None
            and with_port(parts.netloc.lower(), port) in self._hosts
            and not parts.path
        )

    def _has_token(self, headers: Headers) -> bool:
        for value in headers.getlist("authorization"):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and self._is_token(token.strip()):
                return True
        # including cookies of other servers on this host
        cookies = map(cookie_parser, headers.getlist("cookie"))
        return any(self._is_token(found.get(self.cookie, "")) for found in cookies)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self._token.encode())


def _kind(headers: Headers) -> str:
    """Return the type of a body; "" if it is missing or stated twice."""
    kinds = headers.getlist("content-type")
    return kinds[0].split(";")[0].strip().lower() if len(kinds) == 1 else ""


def with_port(host: str, port: int) -> str:
    """Return a name or address in the form of Host: IPv6 in brackets, and with a port."""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    return host if ":" in host.rpartition("]")[2] else f"{host}:{port}"


def error_document(
    code: str, message: str, problems: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the json document of an error."""
    return {"error": {"code": code, "message": message, "problems": list(problems)}}
