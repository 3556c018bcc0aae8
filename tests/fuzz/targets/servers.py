"""What clients of servers send, the requests of Label Studio; and what servers answer: `simmat serve`, a gallery."""

from __future__ import annotations

import contextlib
import json
import math
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.case import Case, Place, Target, registry
from fuzz.damage import mutate_bytes, mutate_tree, to_json
from simmat.errors import ConfigError, DataError
from simmat.io.http import get_bytes
from simmat.io.reading import parse_json
from simmat.predictor import prompt_of

_CONFIG = """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">
<Label value="ship"/><Label value="object" alias="thing"/></BrushLabels><KeyPointLabels name="click"/></View>"""
_PROMPTS: list[dict[str, Any]] = [
    {
        "id": "a",
        "type": "keypointlabels",
        "value": {"x": 40.0, "y": 30.0, "width": 1, "keypointlabels": ["ship"]},
        "is_positive": True,
    },
    {
        "id": "b",
        "type": "rectanglelabels",
        "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 15},
        "original_width": 32,
        "image_rotation": 0,
    },
]


def _request(place: Place, rng: random.Random) -> Case:
    from label_studio_case import scripted_backend, sensor_files

    backend, _ = scripted_backend(sensor_files(place.files / "set", 1))
    config = _CONFIG
    if rng.random() < 0.4:
        config = mutate_bytes(_CONFIG.encode(), rng).decode(errors="surrogateescape")
    task = {"id": 3, "data": {"sample": "train/s0"}, "annotations": []}
    params = {"context": {"result": _PROMPTS}, "login": None}
    tree: Any = {"tasks": [task], "label_config": config, "params": params}
    answer = backend.predict
    if rng.random() < 0.1:
        tree = {"schema": config}
        answer = backend.setup
    if rng.random() < 0.8:
        tree = mutate_tree(tree, rng)
    content = to_json(tree)
    if rng.random() < 0.1:
        content = mutate_bytes(content, rng)

    def read() -> None:
        try:
            body = parse_json(content)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        json.dumps(answer(body), allow_nan=False).encode("ascii")

    return Case(read)


MASK = {"box": [2, 1, 6, 4], "runs": [3, 9]}
"""Of 12 pixels."""
FOUND = {
    "mask": MASK,
    "score": 0.5,
    "area": 9,
    "class": 1,
    "class_probability": 0.5,
}
_REFUSED = {"error": {"message": "no such image", "problems": ["it was dropped"]}}
_STATUS = b"HTTP/1.1 200 OK"
_STATUSES = (*[_STATUS] * 8, b"HTTP/1.1 404 Not Found", b"HTTP/1.1 500 X", b"HTTP/1.1 302 Found\r\nLocation: /model",
             b"HTTP/1.1 abc", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"HTTP/9.9 200", b"SSH-2.0",
             b"HTTP/1.1 204 No Content", b"HTTP/1.1 99999 OK", b"")  # fmt: skip
_HEADERS = (b"Content-Encoding: gzip", b"Content-Type: text/html; charset=x", b"A: " + b"b" * 70_000, b": x", b"\0: \0",
            *[b"Content-Length: " + value for value in (b"0", b"-1", b"abc", b"1e3", b"9" * 5000, b"2")],
            b"\r\n".join([b"A: b"] * 200), b"Transfer-Encoding: gzip", b"Set-Cookie: a=b; Domain=..")  # fmt: skip


def serve_answers(size_hw: tuple[int, int]) -> dict[str, Any]:
    """Return what `simmat serve` answers about an image, by the path that is asked for."""
    return {
        "/model": {
            "name": "m",
            "digest": "d",
            "sensor": "gray",
            "options": {},
            "card": {"classes": {"1": "cow"}},
            "sources": ["gray"],
            "channels": [
                {
                    "name": "gray",
                    "quantity": "light",
                    "unit": "1",
                    "wavelength_um": None,
                }
            ],
            "classes": {"1": "cow"},
            "has_class_map": True,
            "limits": {"bytes": 1 << 20},
        },
        "/images": {"id": "a", "size_hw": list(size_hw), "window": None},
        "/images/a/predict": {"masks": [FOUND], "warning": ""},
        "/images/a/everything": {"objects": [{**FOUND, "point": [3, 2]}]},
        "/images/a/classes": {
            "size_hw": list(size_hw),
            "classes": [
                {"class": 1, "name": "cow", "area": 9, "probability": 0.5, "mask": MASK}
            ],
            "unmeasured": None,
        },
    }


def _answer(content: bytes, rng: random.Random, damaged: bool) -> bytes:
    """Return an answer of HTTP with a content, in one of the forms that there are, or in none."""
    status = rng.choice(_STATUSES) if damaged else _STATUS
    lines = [status]
    if damaged and rng.random() < 0.4:
        lines.append(rng.choice(_HEADERS))
    if rng.random() < 0.3:
        lines.append(b"Transfer-Encoding: chunked")
        half = len(content) // 2
        parts = (content[:half], content[half:], b"")
        content = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    elif rng.random() < 0.7:
        lines.append(b"Content-Length: %d" % len(content))
    answer = b"\r\n".join((*lines, b"", content))
    return mutate_bytes(answer, rng) if damaged and rng.random() < 0.6 else answer


@contextlib.contextmanager
def _serving(answers: dict[str, bytes]) -> Iterator[str]:
    """Give the address of a server with one answer for each path."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # the case is over
                    return
                with connection, contextlib.suppress(OSError, IndexError):
                    path = _request_path(connection)
                    connection.sendall(answers.get(path, b""))
                    connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _request_path(connection: socket.socket) -> str:
    """Read a request with its body, and return its path."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65_536)
        if not piece:
            break
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = 0
    for line in head.splitlines():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length and (piece := connection.recv(65_536)):
        body += piece
    return head.split()[1].decode().partition("?")[0]


def _damaged_answers(rng: random.Random) -> dict[str, bytes]:
    """Return the answers of a server to all that is asked, one of them damaged."""
    whole = serve_answers((24, 31))
    victim = rng.choice(list(whole))
    share = rng.random()
    answers = {}
    for path, tree in whole.items():
        content = to_json(tree)
        if path == victim and share < 0.6:
            content = to_json(mutate_tree(tree, rng))
        elif path == victim and share < 0.7:
            content = mutate_bytes(content, rng)
        elif path == victim and share < 0.75:
            content = to_json(mutate_tree(_REFUSED, rng))
        is_damaged = path == victim and share >= 0.7
        answers[path] = _answer(content, rng, is_damaged)
    return answers


def _server(place: Place, rng: random.Random) -> Case:
    answers = _damaged_answers(rng)
    image = place.seeds.folder("manifest") / "images" / "s0.png"
    ask = rng.choice((_ask_client, _ask_predictor))

    def read() -> None:
        with _serving(answers) as address:
            ask(address, image)

    return Case(read)


def _ask_client(address: str, image: Path) -> None:
    from simmat_plugin_annotate.client import Client, ServerError

    try:
        client = Client(address, timeout_s=30)
        client.set_image(image)
        found = [*client.predict([(3, 2)]), *client.everything(), *client.classes()]
    except ServerError as error:
        raise DataError(str(error)) from error
    for one in found:
        mask = one["mask"]
        assert mask.dtype == np.bool_, f"a mask of {mask.dtype}"
        assert mask.shape == client.size_hw, f"a mask of shape {mask.shape}"
        assert type(one["area"]) is int, f"area is {one['area']!r}"
        assert type(one["class"]) in (int, type(None)), f"class is {one['class']!r}"
        score = one.get("score", one.get("probability"))
        assert type(score) in (int, float), f"score is {score!r}"
        assert math.isfinite(score), f"score is {score!r}"


def _ask_predictor(address: str, image: Path) -> None:
    from simmat_plugin_annotate.remote import RemotePredictor

    opened = RemotePredictor(address, registry()).open_image(image)
    size_hw = opened.reader.size_hw
    prediction = opened.predict(prompt_of([(3, 2)], None, None))
    assert prediction.mask.shape == size_hw, f"a mask of {prediction.mask.shape}"
    assert np.isfinite(prediction.score), f"score is {prediction.score}"
    for one in opened.segment_everything():
        assert one.instance.area > 0, "an object without pixels"
        assert np.isfinite((one.score, *one.point_xy)).all(), f"point {one.point_xy}"
    found = opened.segment_semantic()
    assert found.labels.shape == size_hw, f"a class map of {found.labels.shape}"
    assert np.isfinite(found.probability).all(), "a probability that is no number"


_LIMIT = 1 << 20


def _http(place: Place, rng: random.Random) -> Case:
    first = _answer(b"hello", rng, rng.random() < 0.9)
    if rng.random() < 0.3:
        places = (
            "/b",
            "http://[",
            "http://a:99999/",
            "file:///etc/passwd",
            "//",
            "?",
            "\0",
            "b" * 10_000,
            "/" * 3000,
        )
        location = rng.choice(places).encode()
        head = b"HTTP/1.1 302 Found\r\nLocation: " + location
        first = head + b"\r\nContent-Length: 0\r\n\r\n"
        if rng.random() < 0.5:
            first = mutate_bytes(first, rng)
    answers = {"/a": first, "/b": _answer(b"there", rng, rng.random() < 0.5)}

    def read() -> None:
        with _serving(answers) as address:
            found = get_bytes(f"{address}/a", _LIMIT, 30)
        assert len(found) <= _LIMIT, f"{len(found)} bytes"

    return Case(read)


_ENTRY: dict[str, Any] = {
    "name": "cows",
    "file": "cows.safetensors",
    "sensor": "gray",
    "options": {},
    "classes": {"1": "cow"},
    "foundation": "tiny",
    "scores": {"iou": 0.5},
    "split": "test",
    "data": "set",
    "licence": "CC0",
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "size": 1,
    "picture": "cows.png",
}


def _gallery(place: Place, rng: random.Random) -> Case:
    tree = mutate_tree({"format": 1, "bundles": [_ENTRY, {**_ENTRY, "name": "b"}]}, rng)
    content = to_json(tree)
    if rng.random() < 0.2:
        content = mutate_bytes(content, rng)
    place.put("index.json", content)
    place.put("cows.safetensors", b"")

    def read() -> None:
        from simmat_plugin_hub.gallery import open_gallery

        gallery = open_gallery(str(place.files))
        for one in gallery.bundles:
            found = gallery.bundle(one.name)
            assert found.parent == place.files, f"{found} is outside of the gallery"

    return Case(read)


TARGETS = (
    Target(
        "labelstudio-request", _request, needs=("simmat_plugin_labelstudio",), weight=4
    ),
    Target("server-answer", _server, needs=("simmat_plugin_annotate",)),
    Target("http-answer", _http),
    Target("gallery-index", _gallery, needs=("simmat_plugin_hub",)),
)
