"""Who may ask: only who has the token, from this machine's own page, and in small pieces."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 8 * 2**20
"""Bytes of the largest request."""
POLICY = (
    "default-src 'self'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
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
            hosts: names and addresses by which it may be called; without a port of their own they have `port`.
        """
        self._app, self._token = app, token
        self._hosts = {with_port(host, port).lower() for host in hosts}
        self.cookie = f"simmat_annotate_{port}"  # cookies of one host are shared by all its ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websocket here
            await send({"type": "websocket.close", "code": 1008})
            return
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BODY:
                raise TooLargeError
            return message

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        await (self._answer(scope) or self._app)(scope, limited, headed)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer to a request that the app must not see; None lets it through."""
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is None and scope["method"] in ("GET", "HEAD") and scope["path"] == "/" and self._in_query(scope):
            # Out of the address again, by a page: a redirect of a link from elsewhere would come without the cookie.
            text = '<!doctype html><meta http-equiv="refresh" content="0; url=/"><title>SimMAT annotate</title>'
            entered = HTMLResponse(text, headers={"cache-control": "no-store"})
            entered.set_cookie(self.cookie, self._token, httponly=True, samesite="strict")
            return entered
        if refused is None and not self._has_token(headers):
            refused = 401, "token", "open the address that `simmat annotate` printed; it holds the token"
        if refused is None:
            return None
        status, code, message = refused
        return JSONResponse(error_document(code, message), status, {"connection": "close"})

    def _refused(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        """Return why a request is refused whoever sends it; None if it is not."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, "host", "this server answers to its own address alone; see --allow-host"
        site, origins = headers.get("sec-fetch-site", "none"), headers.getlist("origin")
        foreign = len(origins) > 1 or any(not self._is_own(origin) for origin in origins)
        is_link = scope["method"] == "GET" and scope["path"] == "/"
        if foreign or (site not in ("same-origin", "none") and not is_link):
            return 403, "origin", "the request comes from another page"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "method", f"{scope['method'][:20]} is not answered; use GET or POST"
        if scope["method"] == "POST":
            kinds = headers.getlist("content-type")
            if len(kinds) != 1 or kinds[0].split(";")[0].strip().lower() != "application/json":
                return 415, "type", "the body must be json, with Content-Type: application/json"
            lengths = headers.getlist("content-length")
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

    def _has_token(self, headers: Headers) -> bool:
        for value in headers.getlist("authorization"):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and self._is_token(token.strip()):
                return True
        cookies = map(cookie_parser, headers.getlist("cookie"))  # with what other servers of the host left
        return any(self._is_token(found.get(self.cookie, "")) for found in cookies)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self._token.encode())


def with_port(host: str, port: int) -> str:
    """Return a name or address as it stands in Host: an IPv6 address in brackets, and a port unless it has one."""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    return host if ":" in host.rpartition("]")[2] else f"{host}:{port}"


def error_document(code: str, message: str, problems: Iterable[str] = ()) -> dict[str, Any]:
    """Return an error as the page reads it."""
    return {"error": {"code": code, "message": message, "problems": list(problems)}}
