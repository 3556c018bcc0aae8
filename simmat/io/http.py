"""Read what web servers answer, with a limit on time; who takes the pieces counts their bytes.

Proxies are those of the environment: HTTP_PROXY, HTTPS_PROXY, NO_PROXY.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException
from threading import Timer
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from simmat.errors import WeightsError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager
    from urllib3.connection import HTTPConnection

_PIECE_BYTES = 1 << 20
_SILENCE_S = 30.0
_MAX_REDIRECTS = 5


class RefusedError(WeightsError):
    """A server answers with a status that is an error.

    Attributes:
        status: such as 404.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Answer:
    """What a server answers to one request.

    Attributes:
        status: 200, or 206 for a part of the content.
        headers: by name, in any case.
    """

    def __init__(
        self, url: str, response: BaseHTTPResponse, deadline: _Deadline
    ) -> None:
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self._url = url
        self._response = response
        self._deadline = deadline

    def pieces(self) -> Iterator[bytes]:
        """Yield the content as it arrives, of any size: the caller stops at its limit.

        Raises:
            WeightsError: it is cut off, not valid, or takes too long.
        """
        while piece := self._next_piece():
            yield piece

    def _next_piece(self) -> bytes:
        with _network_errors(self._url, self._deadline):
            piece = self._response.read1(_PIECE_BYTES, decode_content=False)
            self._deadline.check()
        return piece


@contextmanager
def get(
    url: str, seconds: float, headers: Mapping[str, str] | None = None
) -> Iterator[Answer]:
    """Ask for an address, follow redirects, and yield the answer; the block reads its pieces.

    Args:
        seconds: for all of it, from the first connection to the last piece.
        headers: what is sent besides the usual ones.

    Raises:
        RefusedError: its status is an error.
        WeightsError: there is no answer, it is not valid, or it takes too long.
    """
    sent = {"User-Agent": "simmat", "Accept-Encoding": "identity", **(headers or {})}
    with _Deadline(seconds) as deadline:
        with _network_errors(url, deadline):
            response = _follow(url, sent, deadline)
        with closing(response):
            if response.status >= 300:
                raise RefusedError(
                    f"{url} answers {response.status} {response.reason}; check the address",
                    response.status,
                )
            yield Answer(url, response, deadline)


def get_bytes(url: str, limit: int, seconds: float) -> bytes:
    """Return the content of an address.

    Raises:
        WeightsError: see `get`; or there are more than `limit` bytes.
    """
    content = bytearray()
    with get(url, seconds) as answer:
        for piece in answer.pieces():
            content += piece
            if len(content) > limit:
                raise WeightsError(
                    f"{url} sends more than {limit} bytes; check the address"
                )
    return bytes(content)


def _follow(
    url: str, headers: Mapping[str, str], deadline: _Deadline
) -> BaseHTTPResponse:
    """Return the answer behind all redirects; their bodies are not read."""
    for _ in range(_MAX_REDIRECTS + 1):
        manager = _manager(url)
        deadline.watch(manager, url)
        response = manager.urlopen(
            "GET",
            url,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=_SILENCE_S,
        )
        deadline.response = response
        deadline.check()
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        url = urljoin(url, location)
    raise ValueError(f"it redirects more than {_MAX_REDIRECTS} times")


def _manager(url: str) -> PoolManager:
    """Return what connects to an address: directly, or through the proxy of the environment."""
    import urllib3

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"it names {url}, which is not an http or https address")
    proxy = getproxies().get(parts.scheme)
    if proxy is None or proxy_bypass(parts.netloc):
        return urllib3.PoolManager()
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    return urllib3.ProxyManager(proxy)


class _Deadline:
    """Ends the connections of a transfer when its time is over, whatever they wait for."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_over = False
        self.response: BaseHTTPResponse | None = None
        self._connections: list[HTTPConnection] = []
        self._timer = Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()

    def watch(self, manager: PoolManager, url: str) -> None:
        """End the connections that a manager makes to an address, too."""
        pool = manager.connection_from_url(url)
        kind: Any = pool.ConnectionCls

        def connect(*args: Any, **options: Any) -> HTTPConnection:
            connection: HTTPConnection = kind(*args, **options)
            self._connections.append(connection)
            return connection

        vars(pool)["ConnectionCls"] = connect

    def check(self) -> None:
        """Raise TimeoutError if the time is over: a connection that was ended looks like an end of the content."""
        if self.is_over:
            raise TimeoutError

    def _end(self) -> None:
        self.is_over = True
        for connection in self._connections:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        # a connection may drop its socket before the content is read
        if self.response is not None:
            with suppress(OSError, RuntimeError, ValueError):
                self.response.shutdown()


@contextmanager
def _network_errors(url: str, deadline: _Deadline) -> Iterator[None]:
    """Turn what a transfer raises into a WeightsError."""
    from urllib3.exceptions import HTTPError

    try:
        yield
    # ValueError: an address, length or size of a chunk that is none
    except (HTTPError, HTTPException, OSError, ValueError) as error:
        cause = type(error).__name__
        if error.args and str(error.args[0]):
            cause = str(error.args[0])
        if deadline.is_over:
            cause = f"it takes longer than {deadline.seconds:.0f} s"
        raise WeightsError(
            f"cannot download {url}: {cause}; check the network and the address"
        ) from error
