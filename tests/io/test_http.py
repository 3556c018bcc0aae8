"""What a web server answers, however it answers: the content, or one error, within the limits."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from simmat.errors import WeightsError
from simmat.io.http import RefusedError, get_bytes

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LIMIT = 1 << 20


@contextmanager
def serving(answers: Iterable[Iterable[bytes]]) -> Iterator[str]:
    """Answer each connection with the next of `answers`, piece by piece, until the client leaves."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                try:
                    connection, _ = server.accept()
                except OSError:  # the test is over
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    for piece in answer:
                        connection.sendall(piece)
                    connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join()


def slowly(head: bytes) -> Iterator[bytes]:
    """Yield a byte a tenth of a second after a head, without end."""
    yield head
    while True:
        threading.Event().wait(0.1)
        yield b"1"


def redirect(location: str) -> list[bytes]:
    """Return an answer that sends the client elsewhere."""
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return [head.encode()]


def test_the_content_is_returned_behind_redirects() -> None:
    answers = [redirect("/b"), redirect("c"), [OK + b"Content-Length: 2\r\n\r\nhi"]]
    with serving(answers) as url:
        assert get_bytes(f"{url}/a", 2, 30) == b"hi"


@pytest.mark.parametrize(
    "answer",
    [
        [CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"],
        [CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n"],
        [CHUNKED + b"9" * 5000 + b"\r\n"],
        [CHUNKED + b"5\r\nhel"],
        [OK + b"Content-Length: 9\r\n\r\nshort"],
        [OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"],
        [b"HTTP/1.1 abc OK\r\n\r\n"],
        [b"HTTP/1.1 99999 OK\r\n\r\n"],
        [b"SSH-2.0-OpenSSH\r\n"],
        [b""],
        [OK, *[b"A: b\r\n"] * 2000, b"\r\n"],
        [OK + b"A: " + b"b" * 100_000 + b"\r\n\r\n"],
        redirect("http://["),
        redirect("http://[::1"),
        redirect("http://a:99999/"),
        redirect("http://"),
        redirect("file:///etc/passwd"),
        redirect("\0"),
    ],
)
def test_an_answer_that_is_not_valid_is_one_error(answer: list[bytes]) -> None:
    """Whatever a server does is no fault of SimMAT, and the message names its address."""
    with (
        serving(itertools.repeat(answer)) as url,
        pytest.raises(WeightsError, match=url),
    ):
        get_bytes(url, LIMIT, 30)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://[", "http://a:99999", "http://a:b", "ftp://a", "a"]
)
def test_an_address_that_is_none_is_one_error(url: str) -> None:
    with pytest.raises(WeightsError, match="address"):
        get_bytes(url, LIMIT, 30)


def test_redirects_without_end_are_one_error() -> None:
    with (
        serving(itertools.repeat(redirect("/again"))) as url,
        pytest.raises(WeightsError, match="redirects more than 5 times"),
    ):
        get_bytes(url, LIMIT, 30)


def test_an_error_of_the_server_has_its_status() -> None:
    answer = [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
    with serving([answer]) as url, pytest.raises(RefusedError) as caught:
        get_bytes(url, LIMIT, 30)
    assert caught.value.status == 404


@pytest.mark.parametrize("head", [OK + b"\r\n", CHUNKED + b"100000\r\n"])
def test_content_without_end_stops_at_the_limit(head: bytes) -> None:
    answer = itertools.chain([head], itertools.repeat(b"x" * 65536))
    with (
        serving([answer]) as url,
        pytest.raises(WeightsError, match=rf"more than {LIMIT} bytes|cannot download"),
    ):
        get_bytes(url, LIMIT, 30)


@pytest.mark.parametrize(
    "head",
    [b"", OK + b"Content-Length: 1000\r\n\r\n", CHUNKED + b"100000\r\n"],
)
def test_an_answer_that_trickles_stops_when_the_time_is_over(head: bytes) -> None:
    """Each byte comes before a limit on silence; only one on all of it ends this."""
    with (
        serving([slowly(head)]) as url,
        pytest.raises(WeightsError, match="takes longer than 1 s"),
    ):
        get_bytes(url, LIMIT, 1)


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laboratories have one."""
    with serving([[OK + b"Content-Length: 2\r\n\r\nhi"]]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.removeprefix("http://"))
        monkeypatch.setenv("no_proxy", "")
        assert get_bytes("http://no-such-host.invalid/a", 2, 30) == b"hi"
