"""Who may ask: only who has the token, from this machine's own page, and in small pieces."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 8 * 2**20
"""Bytes of the largest request."""
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class TooLargeError(Exception):
    """A body is larger than `MOST_BODY`."""


class Guard:
    """Refuses requests before anything reads them.

    A page of another site may make a browser send requests here: it has no token, since the cookie is SameSite=Strict,
    and its Origin is another one. A name that an attacker lets point to this machine (DNS rebinding) is in Host.
    """

    def __init__(self, app: ASGIApp, *, token: str, port: int, hosts: Iterable[str]) -> None:
        """Guard an app.

        Args:
            app: the app.
            token: that every request needs.
            port: of the server.
            hosts: names and addresses by which it may be called, without port.
        """
        self._app, self._token = app, token
        self._hosts = {f"{host}:{port}".lower() for host in hosts}
        self.cookie = f"simmat_annotate_{port}"  # cookies of one host are shared by all its ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websocket here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        if scope["method"] in ("GET", "HEAD") and scope["path"] == "/" and self._in_query(scope):
            await self._enter(send)
            return
        if not self._has_token(headers):
            await _answer(send, 401, "token", "open the address that `simmat annotate` printed; it holds the token")
            return
        taken = 0
        started = False

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BODY:
                raise TooLargeError
            return message

        async def headed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = {name.encode(): value.encode() for name, value in HEADERS.items()}
                message = {**message, "headers": [*message.get("headers", []), *own.items()]}
            await send(message)

        try:
            await self._app(scope, limited, headed)
        except TooLargeError:
            if not started:
                await _answer(send, 413, "size", f"a request may have at most {MOST_BODY} bytes")

    def _refused(self, scope: Scope, headers: dict[str, list[str]]) -> tuple[int, str, str] | None:
        """Return why a request is refused whoever sends it; None if it is not."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, "host", "the address in Host is not one of this server"
        site = headers.get("sec-fetch-site", ["same-origin"])
        origins = headers.get("origin", [])
        foreign = len(origins) > 1 or any(not self._is_own(origin) for origin in origins)
        is_link = scope["method"] == "GET" and scope["path"] == "/"
        if foreign or (site[0] not in ("same-origin", "none") and not is_link):
            return 403, "origin", "the request comes from another page"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "method", f"{scope['method'][:20]} is not answered; use GET or POST"
        if scope["method"] == "POST":
            kinds = headers.get("content-type", [""])
            if len(kinds) != 1 or kinds[0].split(";")[0].strip().lower() != "application/json":
                return 415, "type", "the body must be json, with Content-Type: application/json"
            lengths = headers.get("content-length", ["0"])
            if not all(length.isascii() and length.isdigit() and int(length[:20]) <= MOST_BODY for length in lengths):
                return 413, "size", f"a request may have at most {MOST_BODY} bytes"
        return None

    def _is_own(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:  # such as "http://["
            return False
        return parts.scheme == "http" and parts.netloc.lower() in self._hosts and not parts.path

    def _in_query(self, scope: Scope) -> bool:
        try:
            query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8)
        except ValueError:  # more fields
            return False
        return self._is_token(query.get("token", [""])[0])

    def _has_token(self, headers: dict[str, list[str]]) -> bool:
        for value in headers.get("authorization", []):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and self._is_token(token.strip()):
                return True
        cookies = map(cookie_parser, headers.get("cookie", []))  # with what other servers of the host left
        return any(self._is_token(found.get(self.cookie, "")) for found in cookies)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self._token.encode())

    async def _enter(self, send: Send) -> None:
        """Give the browser the token as a cookie, and take it out of the address."""
        cookie = f"{self.cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        headers = {**HEADERS, "location": "/", "set-cookie": cookie, "cache-control": "no-store"}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 303, "headers": pairs})
        await send({"type": "http.response.body", "body": b""})


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def error_document(code: str, message: str, problems: Iterable[str] = ()) -> dict[str, Any]:
    """Return an error as the page reads it."""
    return {"error": {"code": code, "message": message, "problems": list(problems)}}


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps(error_document(code, message)).encode()
    headers = {**HEADERS, "content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
