"""Requests that no page of ours sends: each is refused, says why, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from annotate_server import TOKEN, Client, gray_images, served, square
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

JSON = {"Content-Type": "application/json"}
OWN = {"Authorization": f"Bearer {TOKEN}"}
ADD = {"op": "add", "mask": square(0, 0, 4, 4)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = gray_images(tmp_path_factory.mktemp("hostile") / "set")
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def client(root: Path, bundle: Path) -> Iterator[Client]:
    with served(root, bundle) as found:
        yield found


STRANGERS: list[tuple[str, str, str, dict[str, str], int]] = [
    ("no token", "GET", "/api/session", {}, 401),
    ("no token for the page", "GET", "/", {}, 401),
    ("many fields instead of a token", "GET", "/?a&b&c&d&e&f&g&h&i&j&k", {}, 401),
    (
        "an origin that is no address",
        "GET",
        "/api/session",
        {**OWN, "Origin": "http://["},
        403,
    ),
    ("no token for its files", "GET", "/static/index.html", {}, 401),
    ("no token for events", "GET", "/api/events", {}, 401),
    ("another token", "GET", "/api/session", {"Authorization": "Bearer guess"}, 401),
    ("an empty token", "GET", "/api/session", {"Authorization": "Bearer "}, 401),
    (
        "a token that starts right",
        "GET",
        "/api/session",
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        401,
    ),
    (
        "a token that is not ASCII",
        "GET",
        "/api/session",
        {"Authorization": "Bearer \xff\xfe"},
        401,
    ),
    ("another scheme", "GET", "/api/session", {"Authorization": f"Basic {TOKEN}"}, 401),
    ("another token in the address", "GET", "/?token=guess", {}, 401),
    ("the token in another address", "GET", f"/api/session?token={TOKEN}", {}, 401),
    (
        "a cookie of another port",
        "GET",
        "/api/session",
        {"Cookie": f"simmat_annotate_1={TOKEN}"},
        401,
    ),
    ("a cookie that is none", "GET", "/api/session", {"Cookie": ";;=;\x7f"}, 401),
    (
        "a name that points here",
        "GET",
        "/api/session",
        {**OWN, "Host": "evil.example:80"},
        403,
    ),
    ("a name without port", "GET", "/api/session", {**OWN, "Host": "localhost"}, 403),
    ("another port", "GET", "/api/session", {**OWN, "Host": "127.0.0.1:1"}, 403),
    ("an empty name", "GET", "/api/session", {**OWN, "Host": ""}, 403),
    (
        "another page",
        "GET",
        "/api/session",
        {**OWN, "Origin": "http://evil.example"},
        403,
    ),
    ("a page without origin", "GET", "/api/session", {**OWN, "Origin": "null"}, 403),
    (
        "another page of this machine",
        "POST",
        "/api/train/stop",
        {**OWN, **JSON, "Origin": "http://127.0.0.1:1"},
        403,
    ),
    (
        "another site, says the browser",
        "POST",
        "/api/train/stop",
        {**OWN, **JSON, "Sec-Fetch-Site": "cross-site"},
        403,
    ),
    (
        "an image tag of another site",
        "GET",
        "/api/images",
        {**OWN, "Sec-Fetch-Site": "cross-site"},
        403,
    ),
    ("DELETE", "DELETE", "/api/images", OWN, 405),
    ("PUT", "PUT", "/api/session", OWN, 405),
    (
        "OPTIONS, before a foreign request",
        "OPTIONS",
        "/api/train/stop",
        {**OWN, "Origin": "http://evil.example"},
        403,
    ),
    ("TRACE", "TRACE", "/", OWN, 405),
    ("GET where POST is meant", "GET", "/api/train/stop", OWN, 405),
    (
        "a form",
        "POST",
        "/api/train/stop",
        {**OWN, "Content-Type": "application/x-www-form-urlencoded"},
        415,
    ),
    ("text", "POST", "/api/train/stop", {**OWN, "Content-Type": "text/plain"}, 415),
    ("no type", "POST", "/api/train/stop", OWN, 415),
    (
        "a length of a gigabyte",
        "POST",
        "/api/train/stop",
        {**OWN, **JSON, "Content-Length": str(2**30)},
        413,
    ),
    ("nothing there", "GET", "/api/nothing", OWN, 404),
    ("a path out of the folder", "GET", "/static/../../../pyproject.toml", OWN, 404),
    ("the same, encoded", "GET", "/static/..%2f..%2fserver.py", OWN, 404),
    ("the same, twice encoded", "GET", "/static/%252e%252e%252fserver.py", OWN, 404),
    ("a file beside the page's", "GET", "/static/py.typed", OWN, 404),
    ("an image by its path", "GET", "/api/images/images%2fs0.png", OWN, 404),
    (
        "a file of the folder as an image",
        "GET",
        "/api/images/..%2fsecret.txt",
        OWN,
        404,
    ),
    ("an image with a null", "GET", "/api/images/%00", OWN, 404),
    ("a name of 8000 letters", "GET", "/api/images/" + "a" * 8000, OWN, 404),
    ("a tile at a negative place", "GET", "/api/images/KEY/tiles/0/-1/0", OWN, 404),
    ("a tile far outside", "GET", f"/api/images/KEY/tiles/0/{10**12}/0", OWN, 404),
    ("a level that is not there", "GET", "/api/images/KEY/tiles/99/0/0", OWN, 404),
    (
        "a level of 5000 digits",
        "GET",
        f"/api/images/KEY/tiles/{'9' * 5000}/0/0",
        OWN,
        404,
    ),
    (
        "a channel that is not there",
        "GET",
        "/api/images/KEY/tiles/0/0/0?channels=7",
        OWN,
        404,
    ),
    (
        "a channel that is no number",
        "GET",
        "/api/images/KEY/tiles/0/0/0?channels=a",
        OWN,
        422,
    ),
    (
        "a million channels",
        "GET",
        "/api/images/KEY/tiles/0/0/0?channels=" + "0," * 90 + "0",
        OWN,
        422,
    ),
]


def test_a_browser_without_the_token_is_shown_a_page(client: Client) -> None:
    """Whoever opens the address without it is no program that reads json."""
    status, headers, content = client.raw(
        "GET", "/", headers={"Accept": "text/html,*/*"}
    )
    assert (status, headers["content-type"].split(";")[0]) == (401, "text/html")
    assert b"simmat annotate" in content


MASK = ADD["mask"]
BODIES: list[tuple[str, str, Any, int]] = [
    ("no json", "train/stop", b"{", 422),
    ("no object", "train/stop", [], 422),
    ("nested deeply", "train/stop", b"[" * 100_000, 422),
    ("NaN", "predict", b'{"points": [[NaN, 1, 1]]}', 422),
    (
        "a number of 400 digits",
        "predict",
        b'{"points": [[1' + b"0" * 400 + b", 1, 1]]}",
        422,
    ),
    ("not UTF-8", "train/stop", b'{"steps": "\xff"}', 422),
    ("an unknown key", "train/stop", {"afterwards": None}, 422),
    ("a text for a number", "undo", {"version": "0"}, 422),
    ("true for a number", "undo", {"version": True}, 422),
    ("a negative version", "undo", {"version": -1}, 422),
    ("no prompt", "predict", {}, 422),
    ("a point outside", "predict", {"points": [[1000, 1, 1]]}, 422),
    ("a label of 2", "predict", {"points": [[1, 1, 2]]}, 422),
    ("300 points", "predict", {"points": [[1, 1, 1]] * 300}, 422),
    ("a box inside out", "predict", {"box": [20, 20, 10, 10]}, 422),
    ("no edit", "edits", {"version": 0, "edits": []}, 422),
    ("600 edits", "edits", {"version": 0, "edits": [ADD] * 600}, 422),
    ("an unknown edit", "edits", {"version": 0, "edits": [{"op": "drop"}]}, 422),
    (
        "an object that is not there",
        "edits",
        {"version": 0, "edits": [{"op": "remove", "id": 9}]},
        422,
    ),
    (
        "a class that is not there",
        "edits",
        {"version": 0, "edits": [{**ADD, "class": 5}]},
        422,
    ),
    (
        "a mask outside",
        "edits",
        {"version": 0, "edits": [{"op": "add", "mask": square(0, 0, 400, 4)}]},
        422,
    ),
    (
        "a mask without pixels",
        "edits",
        {"version": 0, "edits": [{"op": "add", "mask": {**MASK, "runs": [16]}}]},
        422,
    ),
    (
        "runs that overflow",
        "edits",
        {"version": 0, "edits": [{"op": "add", "mask": {**MASK, "runs": [2**31]}}]},
        422,
    ),
    (
        "runs that are too few",
        "edits",
        {"version": 0, "edits": [{"op": "add", "mask": {**MASK, "runs": [0, 3]}}]},
        422,
    ),
    (
        "a negative run",
        "edits",
        {"version": 0, "edits": [{"op": "add", "mask": {**MASK, "runs": [-1, 17]}}]},
        422,
    ),
    (
        "one bad edit of two",
        "edits",
        {"version": 0, "edits": [ADD, {"op": "remove", "id": 9}]},
        422,
    ),
    ("a class without a name", "classes", {"classes": [{"name": ""}]}, 422),
    (
        "two classes of one name",
        "classes",
        {"classes": [{"name": "a"}, {"name": "a"}]},
        422,
    ),
    (
        "markup as a colour",
        "classes",
        {"classes": [{"name": "a", "colour": "</style>"}]},
        422,
    ),
    ("a training of no steps", "train", {"steps": 0}, 422),
    ("a training without labels", "train", {}, 422),
]


def snapshot(root: Path) -> set[str]:
    """The files of the folder; its card and embeddings may come to be."""
    every = {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
    }
    return {name for name in every if name != "card.toml" and "embeddings" not in name}


@pytest.mark.parametrize(
    ("what", "method", "path", "headers", "status"),
    STRANGERS,
    ids=[row[0] for row in STRANGERS],
)
def test_a_request_from_elsewhere_is_refused(
    client: Client,
    root: Path,
    what: str,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    """Whatever another site, a rebound name or a script without the token sends."""
    before = snapshot(root)
    path = path.replace("KEY", client.keys()["s0"])
    body = b"{}" if method == "POST" and "Content-Length" not in headers else None
    found, answered, content = client.raw(method, path, body, headers)
    assert found == status, content
    assert b"Traceback" not in content
    assert b"secret" not in content
    assert "frame-ancestors 'none'" in answered["content-security-policy"]
    assert json.loads(content)["error"]["message"] or method == "TRACE"
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("what", "place", "body", "status"), BODIES, ids=[row[0] for row in BODIES]
)
def test_a_body_that_no_page_sends_is_refused(
    client: Client, root: Path, what: str, place: str, body: Any, status: int
) -> None:
    """All or nothing, with one clear message."""
    before = snapshot(root)
    path = (
        f"/api/{place}"
        if place in ("train/stop", "classes", "train")
        else f"/api/images/{client.keys()['s0']}/{place}"
    )
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    found, _, answer = client.raw("POST", path, content, {**OWN, **JSON})
    assert found == status, answer
    error = json.loads(answer)["error"]
    assert error["code"] in ("invalid", "data")
    assert error["message"]
    assert b"Traceback" not in answer
    assert snapshot(root) == before


def test_a_body_without_a_length_is_cut_off(client: Client) -> None:
    """A stream of chunks states no size; it is counted while it comes."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as stream:
        head = f"POST /api/train/stop HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        stream.sendall(
            (
                head
                + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            ).encode()
        )
        chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
        try:
            for _ in range(12):
                stream.sendall(chunk)
            answer = stream.recv(200)
        except (BrokenPipeError, ConnectionResetError):  # it is not read any further
            answer = b"413"
    assert b"413" in answer


def test_the_first_link_gives_a_cookie_that_other_sites_cannot_send(
    client: Client,
) -> None:
    """Then the address in the bar, in the history and in screenshots holds no token."""
    status, headers, content = client.raw("GET", f"/?token={TOKEN}", headers={})
    assert (status, b"url=/" in content, TOKEN.encode() in content) == (
        200,
        True,
        False,
    )
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=strict" in headers["set-cookie"]
    cookie = headers["set-cookie"].split(";")[0]
    assert client.raw("GET", "/", headers={"Cookie": cookie})[0] == 200
    own = {
        "Cookie": cookie,
        "Origin": f"http://127.0.0.1:{client.port}",
        "Sec-Fetch-Site": "same-origin",
        **JSON,
    }
    assert (
        client.raw(
            "POST", "/api/images/" + client.keys()["s0"] + "/encode", b"{}", own
        )[0]
        == 200
    )


def test_cookies_of_other_servers_do_not_lock_the_page_out(client: Client) -> None:
    """A browser sends those of every port of the host, in whatever form they are."""
    cookies = (
        f'theme={{"x":1}}; a b; é=ü; simmat_annotate_{client.port}={TOKEN}; last=[1, 2]'
    )
    status, _, _ = client.raw(
        "GET", "/api/session", headers={"Cookie": cookies.encode().decode("latin-1")}
    )
    assert status == 200


class Recorded:
    """An app that answers nothing, and knows whether it was asked."""

    def __init__(self) -> None:
        self.asked = False

    async def __call__(self, *given: object) -> None:
        """Take a request."""
        self.asked = True

    def gets(self, guard: Any, headers: dict[str, str]) -> bool:
        """Return whether the guard before this app lets a request with the token through."""

        async def ignored(*given: object) -> None:
            """Take an answer."""

        self.asked = False
        asyncio.run(guard(request_with(headers), ignored, ignored))
        return self.asked


def request_with(headers: dict[str, str]) -> dict[str, Any]:
    """Return a request with these headers and the token, as a server gives it to an app."""
    sent = {"authorization": f"Bearer {TOKEN}"} | headers
    return {
        "type": "http",
        "method": "GET",
        "path": "/model",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("node7", "node7:8765"),
        ("localhost:9000", "localhost:9000"),
        ("::1", "[::1]:8765"),
        ("[fe80::1]:80", "[fe80::1]:80"),
    ],
)
def test_a_server_answers_to_allowed_names(name: str, host: str) -> None:
    """Of another machine, and of a port that is forwarded."""
    from simmat_plugin_annotate.security import Guard

    app = Recorded()
    guard = Guard(app, token=TOKEN, port=8765, hosts=["127.0.0.1", name])
    for given, known in ((host, True), ("evil.example:8765", False)):
        headers = {"host": given, "origin": f"http://{given}"}
        assert app.gets(guard, headers) is known


@pytest.mark.parametrize("name", ["seg.example.org", "seg.example.org:443"])
def test_a_server_answers_behind_a_proxy_with_tls(name: str) -> None:
    """A client of an https address sends a name without a port, and a browser that address as the origin."""
    from simmat_plugin_annotate.serve import listen, server_of

    app = Recorded()
    with listen("127.0.0.1", 0) as listener:
        guard: Any = server_of(
            app, listener, host="127.0.0.1", allowed=[name], token=TOKEN
        )[0].config.app
    own = {"host": "seg.example.org"}
    for given, known in (
        ({}, True),
        ({"host": "seg.example.org:443"}, True),
        ({"origin": "https://seg.example.org"}, True),
        ({"origin": "http://seg.example.org"}, False),  # another server of that machine
        ({"origin": "https://evil.example"}, False),
        ({"host": "evil.example"}, False),
    ):
        assert app.gets(guard, own | given) is known, given


def test_a_request_that_a_stopped_server_leaves_gets_an_answer() -> None:
    """And its terminal shows no traceback."""
    from simmat_plugin_annotate.security import Guard

    async def left(*given: object) -> None:
        raise asyncio.CancelledError

    sent: list[Any] = []

    async def send(message: object) -> None:
        sent.append(message)

    guard: Any = Guard(left, token=TOKEN, port=8765, hosts=["127.0.0.1"])
    asyncio.run(guard(request_with({"host": "127.0.0.1:8765"}), send, send))
    assert (sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]) == (
        503,
        "stopped",
    )


def test_a_connection_that_asks_nothing_is_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else 256 of them lock the page out."""
    from simmat_plugin_annotate import serve

    monkeypatch.setattr(serve, "REQUEST_TIMEOUT_S", 0.1)
    with socket.create_connection(("127.0.0.1", client.port), timeout=5) as idle:
        idle.sendall(b"GET / HT")
        assert idle.recv(10) == b""


def test_a_client_that_hardly_reads_its_answer_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it holds a connection for ever, and the answer with it; one that reads on gets all of it."""
    from simmat_plugin_annotate import serve
    from simmat_plugin_annotate.security import Limits

    monkeypatch.setattr(serve, "READ_TIMEOUT_S", 1)
    monkeypatch.setattr(serve, "REQUEST_TIMEOUT_S", 1)
    size = 2**24

    app = Starlette(routes=[Route("/", lambda request: Response(bytes(size)))])
    with serve.listen("127.0.0.1", 0) as listener:
        server = serve.limited_server(Limits(app, sizes={}))
        thread = threading.Thread(
            target=uvicorn.Server.run, args=(server, [listener]), daemon=True
        )
        thread.start()
        port = listener.getsockname()[1]
        ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as quick:
            quick.sendall(ask)
            with quick.makefile("rb") as answer:
                assert len(answer.read()) > size
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            slow.sendall(ask)
            slow.recv(1)
            connections = server.server_state.connections
            assert connections
            ended = threading.Event()
            for _ in range(100):
                if not connections:
                    break
                slow.recv(1)
                ended.wait(0.1)
            assert not connections
        server.should_exit = True
        thread.join(20)


def test_the_bodies_and_answers_of_all_clients_share_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each within its own limit, fifty of them took 7 GB; a body waits for room, and an answer is refused."""
    from simmat_plugin_annotate import security

    monkeypatch.setattr(security, "MAX_HELD", 5 * 2**17)
    monkeypatch.setattr(security, "BODY_TIMEOUT_S", 0.5)
    size = 2**17
    held: list[int] = []

    async def ask(limits: security.Limits, path: str, body: bytes = bytes(size)) -> int:
        parts = [body[: len(body) // 2], body[len(body) // 2 :]]
        sent: list[Message] = []

        async def receive() -> Message:
            await asyncio.sleep(0.01)
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Message) -> None:
            sent.append(message)

        length = str(len(body)).encode()
        scope = {"type": "http", "path": path, "headers": [(b"content-length", length)]}
        await limits(scope, receive, send)
        kinds = [one["type"] for one in sent]
        assert kinds.count("http.response.start") == 1
        assert not sent[-1].get("more_body")
        status: int = sent[0]["status"]
        return status

    async def work(go: asyncio.Event) -> None:
        in_memory = 0
        waiting = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal in_memory, waiting
            body = await Request(scope, receive).body()
            in_memory += len(body)
            held.append(in_memory)
            if scope["path"] == "/slow":
                waiting += 1
                await go.wait()
            await asyncio.sleep(0.01)
            in_memory -= len(body)
            large = scope["path"] == "/large"
            await Response(bytes(size if large else 1))(scope, receive, send)

        async def handled(scope: Scope, receive: Receive, send: Send) -> None:
            with suppress(ClientDisconnect):
                await app(scope, receive, send)

        limits = security.Limits(handled, sizes={})
        asked = [ask(limits, "/") for _ in range(50)]
        assert set(await asyncio.gather(*asked)) == {200}
        slow = [asyncio.create_task(ask(limits, "/slow")) for _ in range(5)]
        while waiting < len(slow):
            await asyncio.sleep(0.01)
        assert await ask(limits, "/") == 503
        assert await ask(limits, "/", b"small") == 200
        assert await ask(limits, "/large", b"small") == 503
        go.set()
        assert set(await asyncio.gather(*slow)) == {200}
        assert await ask(limits, "/large") == 200

    async def main() -> None:
        await work(asyncio.Event())

    asyncio.run(asyncio.wait_for(main(), 60))
    assert max(held) <= 5 * size + len(b"small")


def test_the_forms_of_all_clients_share_a_part_of_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any number of them arrives at once; a form takes its part as it arrives, so one that stalls takes little."""
    from simmat_plugin_annotate import security

    monkeypatch.setattr(security, "MAX_FORMS", 2)
    monkeypatch.setattr(security, "BODY_TIMEOUT_S", 0.5)
    size, part = 2**20, 2**16
    headers = [
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"content-length", str(size).encode()),
    ]

    async def send_form(limits: security.Limits, parts: int) -> int:
        """Send some parts of a form, the last as its end; return the status."""
        left = parts
        statuses: list[int] = []

        async def receive() -> Message:
            nonlocal left
            left -= 1
            await asyncio.sleep(0)
            return {"type": "http.request", "body": bytes(part), "more_body": left > 0}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await limits({"type": "http", "headers": headers}, receive, send)
        return statuses[0]

    async def main() -> None:
        go = asyncio.Event()
        arrived = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal arrived
            with suppress(ClientDisconnect):
                async for _ in Request(scope, receive).stream():
                    pass
                arrived += 1
                await go.wait()
                await Response()(scope, receive, send)

        limits = security.Limits(app, sizes={"multipart/form-data": size})
        full = size // part
        waiting = [asyncio.create_task(send_form(limits, full)) for _ in range(2)]
        waiting += [asyncio.create_task(send_form(limits, 1)) for _ in range(50)]
        while arrived < len(waiting):
            await asyncio.sleep(0.01)
        assert await send_form(limits, full) == 503
        go.set()
        assert set(await asyncio.gather(*waiting)) == {200}
        assert await send_form(limits, full) == 200

    asyncio.run(asyncio.wait_for(main(), 60))
