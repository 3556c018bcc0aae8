"""Run the server: its address, its token, its end."""

from __future__ import annotations

import errno
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from simmat.errors import ConfigError
from simmat_plugin_annotate.security import Guard
from simmat_plugin_annotate.server import Annotator, make_app

LOCAL = ("127.0.0.1", "localhost")
FIRST_PORT = 8765


def listen(host: str, port: int | None) -> socket.socket:
    """Open the socket of the server.

    Args:
        host: name or address to bind.
        port: None takes `FIRST_PORT`, or any free one.

    Raises:
        ConfigError: the port is taken, or the address is not one of this machine.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [FIRST_PORT, 0] if port is None else [port]:
        found = socket.socket(kind, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, number))
            found.listen(128)
        except OSError as error:
            found.close()
            if error.errno == errno.EADDRINUSE and port is None and number:
                continue
            hint = "choose another --port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "check --host"
            raise ConfigError(f"cannot listen on {host}:{number}: {error.strerror or error}; {hint}") from error
        return found
    raise ConfigError(f"no port of {host} is free; give one with --port")


def serve(
    annotator: Annotator,
    listener: socket.socket,
    *,
    host: str,
    browser: bool,
    say: Callable[[str], object],
    token: str | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        annotator: what is served.
        listener: of `listen`.
        host: as it was bound.
        browser: open the page.
        say: told the address.
        token: that requests need; None makes one.
    """
    token = token or secrets.token_urlsafe(32)
    port = int(listener.getsockname()[1])
    names = [*LOCAL] if host in LOCAL else [*LOCAL, f"[{host}]" if ":" in host else host]
    app = Guard(make_app(annotator), token=token, port=port, hosts=names)
    shown = LOCAL[0] if host in ("localhost", "0.0.0.0") else names[-1] if host not in LOCAL else host
    address = f"http://{shown}:{port}/?token={token}"
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        h11_max_incomplete_event_size=16 * 1024,
        limit_concurrency=256,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    with annotator.folder.claimed():
        say(address)
        if browser:
            threading.Thread(target=_open, args=(address,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _open(address: str) -> None:
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(address)
