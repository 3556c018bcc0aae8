"""Run the server: open its socket, print its address, stop it."""

from __future__ import annotations

import asyncio
import errno
import html
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from simmat.errors import ConfigError
from simmat_plugin_annotate.annotator import Annotator
from simmat_plugin_annotate.security import (
    MAX_BODY,
    Guard,
    error_document,
    with_port,
)
from simmat_plugin_annotate.server import make_app

LOCAL = ("127.0.0.1", "localhost")
ALL_ADDRESSES = ("0.0.0.0", "::")
"""Addresses that mean all addresses of a machine."""
FIRST_PORT = 8765
MAX_CLIENTS = 256
"""Most connections at once."""
REQUEST_TIMEOUT_S = 30
"""Seconds that a connection may take to send its first request, or the next one."""
READ_TIMEOUT_S = 30
"""Seconds that a client may take to read a part of an answer, see `security.SMALL`."""
STOP_TIMEOUT_S = 20
"""Seconds after a signal in which the server has ended, whatever it still computes."""


def listen(host: str, port: int | None, allowed: Sequence[str] = ()) -> socket.socket:
    """Open the socket of the server.

    Args:
        port: None means `FIRST_PORT`, or any free port.
        allowed: names by which browsers reach the server.

    Raises:
        ConfigError: the port is in use, the address is not of this machine, or it means all addresses and `allowed` is
            empty.
    """
    if host in ALL_ADDRESSES and not allowed:
        raise ConfigError(
            f"--host {host} listens on every address of this machine, but the server answers only to names that it "
            "knows: add --allow-host NAME, the name in the browser, such as --allow-host node7 or --allow-host 10.0.0.5"
        )
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    for number in [FIRST_PORT, 0] if port is None else [port]:
        try:
            return socket.create_server(
                (host, number), family=kind, backlog=128, dualstack_ipv6=both
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None and number:
                continue
            hint = (
                "choose another --port"
                if error.errno in (errno.EADDRINUSE, errno.EACCES)
                else "check --host"
            )
            # create_server adds the address
            reason = (error.strerror or str(error)).partition(" (while attempting")[0]
            raise ConfigError(
                f"cannot listen on {host}:{number}: {reason}; {hint}"
            ) from error
    raise ConfigError(f"no port of {host} is free; give one with --port")


class TimedProtocol(H11Protocol):
    """Ends connections that send no request, or do not read their answer, so that they cannot use up the server."""

    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: object) -> None:
        """Start the timeout for the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.loop.call_later(REQUEST_TIMEOUT_S, self._close_idle, self.cycle)

    def on_response_complete(self) -> None:
        """Start the timeout for the next request, also where a part of it has arrived."""
        answered = self.cycle
        super().on_response_complete()
        self.loop.call_later(REQUEST_TIMEOUT_S, self._close_idle, answered)

    def pause_writing(self) -> None:
        """Start the timeout in which the client must read most of what is written."""
        super().pause_writing()
        self._unread = self.loop.call_later(READ_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop it."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        super().connection_lost(exc)
        if self._unread is not None:
            self._unread.cancel()

    def _close_idle(self, before: object) -> None:
        if self.cycle is not before:
            return
        if self.transport.get_write_buffer_size():
            # the last of an answer; `close` would wait until it is read
            self.transport.abort()
        else:
            self.transport.close()


class EndingServer(uvicorn.Server):
    """Ends its process some time after a signal, even if a thread still computes."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, and start the timeout."""
        super().handle_exit(sig, frame)
        end = threading.Timer(STOP_TIMEOUT_S, os._exit, [128 + sig])
        end.daemon = True
        end.start()


class ConnectionLimit:
    """Middleware that answers with 503 while the server has too many connections or requests."""

    def __init__(self, app: ASGIApp, state: ServerState, clients: int) -> None:
        """Limit the connections of a server.

        Args:
            state: its connections and the tasks of its requests.
            clients: most connections at once.
        """
        self._app, self._state, self._clients = app, state, clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app, or refuse it."""
        used = max(len(self._state.connections), len(self._state.tasks))
        if scope["type"] != "http" or used <= self._clients:
            await self._app(scope, receive, send)
            return
        message = f"the server has its {self._clients} connections in use; ask later"
        full = error_document("busy", message)
        answer = JSONResponse(full, 503, {"connection": "close"})
        await answer(scope, receive, send)


def limited_server(app: ASGIApp, *, clients: int = MAX_CLIENTS) -> uvicorn.Server:
    """Return the server of an app, with the limits of connections and times that all servers have.

    Args:
        app: with `security.Limits` around it.
        clients: most connections at once; others are answered with 503.
    """
    config = uvicorn.Config(
        app,
        # its own limit would answer in plain text
        limit_concurrency=None,
        http=TimedProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        h11_max_incomplete_event_size=16 * 1024,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
    )
    server = EndingServer(config)
    config.app = ConnectionLimit(app, server.server_state, clients)
    return server


def server_of(
    app: ASGIApp,
    listener: socket.socket,
    *,
    host: str,
    allowed: Sequence[str] = (),
    token: str | None = None,
    upload: int = 0,
    body: int = MAX_BODY,
    clients: int = MAX_CLIENTS,
) -> tuple[uvicorn.Server, str]:
    """Return the server of an app, and its address with the token.

    Args:
        listener: the socket from `listen`.
        allowed: other names by which clients reach the server, with a port if it differs.
        token: the token that requests need; None makes a random one.
        upload: most bytes of a request with files.
        body: most bytes of a json request.
        clients: most connections at once; others are answered with 503.
    """
    token, port = token or secrets.token_urlsafe(32), int(listener.getsockname()[1])
    own = [] if host in (*LOCAL, *ALL_ADDRESSES) else [host]
    # by a proxy with TLS, which passes Host on
    proxied = [with_port(name, 443) for name in allowed]
    first = next(iter([*own, *allowed, LOCAL[0]]))
    hosts = [*LOCAL, *own, *allowed, *proxied]
    guard = Guard(app, token=token, port=port, hosts=hosts, upload=upload, body=body)
    server = limited_server(guard, clients=clients)
    return server, f"http://{with_port(first, port)}/?token={token}"


def serve(
    annotator: Annotator,
    listener: socket.socket,
    *,
    host: str,
    browser: bool,
    echo: Callable[[str], object],
    allowed: Sequence[str] = (),
    token: str | None = None,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; arguments as of `server_of`."""
    server, address = server_of(
        make_app(annotator), listener, host=host, allowed=allowed, token=token
    )
    echo(address)
    page = annotator.folder.home / "open.html"
    if browser:
        threading.Thread(
            target=open_in_browser, args=(address, page), daemon=True
        ).start()
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        page.unlink(missing_ok=True)


def open_in_browser(address: str, page: Path) -> None:
    """Open an address through a file that only this user can read: all users see the browser's command line."""
    link = html.escape(address)
    text = f'<!doctype html><meta http-equiv="refresh" content="0; url={link}"><a href="{link}">SimMAT annotate</a>'
    with suppress(webbrowser.Error, OSError):
        page.unlink(missing_ok=True)
        page.touch(mode=0o600)
        page.write_text(text, encoding="utf-8")
        webbrowser.open(page.as_uri())
