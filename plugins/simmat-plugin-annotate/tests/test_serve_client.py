"""The client of `simmat serve` answers for the image it was given, of the model it knows, or says why not."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import shutil
import socket
import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from annotate_server import FOUND, door, gray_images, serve_answers
from bundles import tiny_bundle
from pydantic import Field
from runs import registry
from simmat_plugin_annotate.client import Client, ServerError
from simmat_plugin_annotate.remote import RemotePredictor

from simmat.api import load
from simmat.errors import DataError, SimMATError
from simmat.predictor import Predictor, prompt_of
from simmat.sensors.adapter import options_of
from simmat.sensors.builtin import Raster
from simmat.sensors.options import ModalityOptions
from simmat.sensors.sensor_toml import parse_sensor_definition


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_images(tmp_path_factory.mktemp("client") / "set", count=2)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load(
        tiny_bundle(tmp_path_factory.mktemp("client") / "b"),
        device="cpu",
        registry=registry(),
    )


@pytest.fixture(scope="module")
def address(
    predictor: Predictor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with door(predictor, tmp_path_factory.mktemp("home") / "uploads") as found:
        yield found


def test_after_a_refused_image_nothing_is_answered(
    address: str, root: Path, tmp_path: Path
) -> None:
    """A mask of the image before would be taken for one of the new image."""
    (tmp_path / "bad.png").write_bytes(b"no picture")
    client = Client(address)
    client.set_image(root / "images/s0.png")
    with pytest.raises(ServerError, match=r"bad\.png"):
        client.set_image(tmp_path / "bad.png")
    with pytest.raises(ServerError, match="call set_image first"):
        client.predict([(16, 12)])


def test_another_model_at_the_same_address_is_refused(
    address: str, root: Path, tmp_path: Path
) -> None:
    """Its answers would be read with the classes of the model before."""
    remote, client = RemotePredictor(address, registry()), Client(address)
    image = remote.open_image(root / "images/s0.png")
    other = load(
        tiny_bundle(tmp_path / "other", seed=3, image_size=32),
        device="cpu",
        registry=registry(),
    )
    with door(other, tmp_path / "home") as place:
        for one in (image.client, client):
            one.place = place.partition("//")[2].partition("/")[0]
        with pytest.raises(DataError, match="another model"):
            image.segment_everything()
        with pytest.raises(ServerError, match="another model"):
            client.set_image(root / "images/s1.png")


def test_what_stands_beside_a_file_is_not_lost(
    address: str, root: Path, tmp_path: Path
) -> None:
    """The server would take masked pixels for measured ones."""
    file, client = tmp_path / "a.png", Client(address)
    file.write_bytes((root / "images/s0.png").read_bytes())
    notes = tmp_path / "a.png.aux.xml"
    notes.write_text("<PAMDataset><Histograms/></PAMDataset>")
    client.set_image(file)
    notes.write_text("<PAMDataset><NoDataValue>0</NoDataValue></PAMDataset>")
    with pytest.raises(ServerError, match="beside it"):
        client.set_image(file)
    notes.rename(tmp_path / "a.png.msk")
    with pytest.raises(ServerError, match="beside it"):
        client.set_image(file)


def test_a_frame_of_a_file_is_sent(
    address: str, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no bytes of its own; what cannot be read is a SimMATError."""
    planes = np.random.default_rng(0).integers(0, 255, (3, 40, 56), np.uint8)
    tifffile.imwrite(tmp_path / "scan.tif", planes, photometric="minisblack")
    remote, frame = RemotePredictor(address, registry()), tmp_path / "scan.tif/0001"
    remote.set_image(frame)
    predictor.set_image(frame)
    np.testing.assert_array_equal(
        remote.predict([(16, 12)]).mask, predictor.predict([(16, 12)]).mask
    )
    tifffile.imwrite(tmp_path / "one.tif", planes[0])

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DataError, match=r"one\.tif: cannot be sent: Permission denied"):
        remote.set_image(tmp_path / "one.tif")


def test_the_memory_of_an_image_has_the_bytes_that_are_kept_to_send_it_again(
    address: str, root: Path
) -> None:
    """Label Studio's backend keeps images by it."""
    file = root / "images/s0.png"
    image = RemotePredictor(address, registry()).open_image(file)
    assert image.cached_bytes == file.stat().st_size + 40 * 56 * (4 + 1)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8765",
        "localhost:8765/?token=secret",
        "http:///?token=secret",
        "http://a/b/?token=secret",
        "http://[/?token=secret",
        "http://[::1/?token=secret",
        "http://a:99999/?token=secret",
        "http://a:b/?token=secret",
    ],
)
def test_an_address_that_the_server_does_not_print_is_refused(address: str) -> None:
    """With the form of one, without the token."""
    with pytest.raises(ServerError, match="http://HOST:PORT") as caught:
        Client(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"<html>"),
        (200, b"{}"),
        (200, b"7"),
        (404, b'{"detail": "x"}'),
        (502, b""),
    ],
)
def test_another_program_at_the_address_is_refused(status: int, content: bytes) -> None:
    """A wrong port is a frequent slip."""

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        for connect, error in ((Client, ServerError), (RemotePredictor, DataError)):
            with pytest.raises(error, match="check the address"):
                connect(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


ANSWERS = serve_answers((40, 56))


@contextmanager
def answering(answers: dict[str, Any]) -> Iterator[str]:
    """Give the address of a server with one answer for each path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = answers[self.path]
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def use(address: str, file: Path) -> None:
    """Ask for everything that there is, by both clients."""
    client = Client(address)
    client.set_image(file)
    assert client.predict([(3, 2)])[0]["mask"].sum() == 9
    assert client.everything()[0]["mask"].sum() == 9
    assert client.classes()[0]["mask"].sum() == 9


def use_remote(address: str, file: Path) -> None:
    image = RemotePredictor(address, registry()).open_image(file)
    assert image.predict(prompt_of([(3, 2)], None, None)).mask.sum() == 9
    assert image.segment_everything()[0].instance.area == 9
    assert (image.segment_semantic().labels == 1).sum() == 9


def test_the_answers_below_are_those_of_a_server(root: Path) -> None:
    """Else what is changed in them would show nothing."""
    with answering(ANSWERS) as address:
        use(address, root / "images/s0.png")
        use_remote(address, root / "images/s0.png")


def test_a_file_whose_name_is_not_utf_8_is_sent(root: Path, tmp_path: Path) -> None:
    """Linux takes any bytes as a name."""
    file = tmp_path / os.fsdecode(b"k\xe4fer.png")
    shutil.copy(root / "images/s0.png", file)
    with answering(ANSWERS) as address:
        use(address, file)


@pytest.mark.parametrize(
    ("path", "place", "value"),
    [
        ("/model", "name", 7),
        ("/model", "sensor", ["gray"]),
        ("/model", "sources", []),
        ("/model", "sources", [{}]),
        ("/model", "sources", 5),
        ("/model", "sources", ["\ud800"]),
        ("/model", "sources", {"gray": "gray"}),
        ("/model", "channels", [{"name": 5}]),
        ("/model", "classes", []),
        ("/model", "classes", {"1": 5}),
        ("/model", "limits", None),
        ("/model", "limits", {"bytes": "x"}),
        ("/images", "id", None),
        ("/images", "id", "a/../b"),
        ("/images", "size_hw", 5),
        ("/images", "size_hw", [10**9, 10**9]),
        ("/images", "size_hw", [-4, -4]),
        ("/images", "size_hw", ["4", "4"]),
        ("/images", "size_hw", [1, True]),
        ("/images", "size_hw", [24.0, 31]),
        ("*", "mask", 5),
        ("*", "mask", {}),
        ("*", "mask", {"box": [0, 0, 10**9, 10**9], "runs": [10**18]}),
        ("*", "mask", {"box": [2, 1, 6, 4], "runs": [10**12]}),
        ("*", "mask", {"box": [2, 1, 6, 4], "runs": [-3, 15]}),
        ("*", "mask", {"box": [2, 1, 6, 4], "runs": "3"}),
        ("*", "mask", {"box": [2.5, 1, 6, 4], "runs": [3, 9]}),
        ("*", "mask", {"box": [2, 1, 6], "runs": [3, 9]}),
        ("*", "mask", {"box": [-2, 1, 2, 4], "runs": [3, 9]}),
        ("*", "class", "cow"),
        ("*", "class", 1.5),
        ("*", "score", "high"),
        ("*", "score", float("nan")),
        ("*", "score", [0.5]),
        ("*", "score", None),
        ("*", "area", [9]),
        ("*", "point", [float("inf"), 2]),
        ("*", "point", 3),
        ("*", "probability", "high"),
        ("*", "probability", 1e39),
        ("*", "probability", None),
    ],
)
def test_an_answer_with_a_wrong_part_is_one_error(
    root: Path, path: str, place: str, value: Any
) -> None:
    """Of a server of another version, or one that means harm: no traceback, no memory taken."""
    paths = [path] if path != "*" else [one for one in ANSWERS if one.count("/") == 3]
    changed = [
        {**ANSWERS, one: with_part(ANSWERS[one], place, value)}
        for one in paths
        if with_part(ANSWERS[one], place, value) != ANSWERS[one]
    ]
    assert changed
    for answers in changed:
        with answering(answers) as address:
            with pytest.raises(ServerError, match="not from simmat serve"):
                use(address, root / "images/s0.png")
            with pytest.raises(SimMATError):
                use_remote(address, root / "images/s0.png")


def test_a_size_that_would_be_a_long_text_takes_no_memory(root: Path) -> None:
    """A number of 2^31 times a text takes 4 GB; an answer takes at most 64 MiB."""
    answers = {
        **ANSWERS,
        "/images": with_part(ANSWERS["/images"], "size_hw", [1 << 27, "31"]),
    }
    tracemalloc.start()
    try:
        with (
            answering(answers) as address,
            pytest.raises(ServerError, match="size_hw is not valid"),
        ):
            use(address, root / "images/s0.png")
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_a_server_that_says_another_size_than_the_image_has_is_refused(
    root: Path,
) -> None:
    """Each mask would take up to 1 GiB."""
    large = with_part(ANSWERS["/images"], "size_hw", [1 << 15, 1 << 15])
    with answering({**ANSWERS, "/images": large}) as address:
        with pytest.raises(ServerError, match="size_hw"):
            Client(address).set_image(np.zeros((1, 40, 56), np.float32))
        with pytest.raises(DataError, match="size_hw"):
            RemotePredictor(address, registry()).open_image(root / "images/s0.png")


def test_the_masks_of_an_answer_share_a_limit_of_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of a few megabytes can name thousands of masks, each of the size of the image."""
    from simmat_plugin_annotate import client

    file = root / "images/s0.png"
    whole = {"box": [0, 0, 56, 40], "runs": [0, 56 * 40]}
    objects = [{**FOUND, "mask": whole, "point": [3, 2]}] * 5
    answers = {**ANSWERS, "/images/a/everything": {"objects": objects}}
    with answering(answers) as address:
        plain = Client(address)
        plain.set_image(file)
        remote = RemotePredictor(address, registry()).open_image(file)
        monkeypatch.setattr(client, "_MAX_MASKS", 5 * 56 * 40)
        assert len(plain.everything()) == 5
        assert len(remote.segment_everything()) == 5
        monkeypatch.setattr(client, "_MAX_MASKS", 5 * 56 * 40 - 1)
        with pytest.raises(ServerError, match="ask for a part of the image"):
            plain.everything()
        with pytest.raises(DataError, match="ask for a part of the image"):
            remote.segment_everything()


def with_part(answer: Any, place: str, value: Any) -> Any:
    """Return an answer with another value wherever a name stands in it."""
    if isinstance(answer, list):
        return [with_part(part, place, value) for part in answer]
    if not isinstance(answer, dict):
        return answer
    return {
        name: value if name == place else with_part(part, place, value)
        for name, part in answer.items()
    }


@contextmanager
def sending(answer: Iterable[bytes]) -> Iterator[str]:
    """Send an answer to the first client, as it comes, until the client leaves."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                for piece in answer:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n",
    ],
)
def test_an_answer_without_end_stops_at_the_limit(head: bytes) -> None:
    endless = itertools.chain([head], itertools.repeat(b"x" * (1 << 20)))
    with sending(endless) as address, pytest.raises(ServerError, match="64 MiB"):
        Client(address)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_an_answer_that_trickles_stops_when_the_time_is_over(head: bytes) -> None:
    """Each byte comes in time."""

    def slowly() -> Iterator[bytes]:
        yield head
        while True:
            threading.Event().wait(0.1)
            yield b"1"

    with sending(slowly()) as address, pytest.raises(ServerError, match="took longer"):
        Client(address, timeout_s=1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"9" * 5000,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_an_answer_that_is_not_valid_http_or_json_is_one_error(answer: bytes) -> None:
    with sending([answer]) as address, pytest.raises(ServerError, match="simmat serve"):
        Client(address, timeout_s=30)


class _WithFile(ModalityOptions):
    dark: Path | None = Field(None, strict=False)
    unit: str = ""


class _OwnSensor(Raster):
    name = "own"
    Options = _WithFile


@pytest.mark.parametrize(
    "changes",
    [
        {"sensor": "PLACE/own.toml"},
        {"sensor": "gray+PLACE/own.toml"},
        {"options": {"own": {"dark": "dark.npy"}}},
        {"options": {"own": {"unit": "PLACE/own.toml"}}},
        {"options": {"own": {"unit": "~/own.toml"}}},
        {"options": {"own": {"unit": "\\\\server\\share"}}},
        {"card": {"modality_options": {"own.dark": "PLACE/own.toml"}}},
        {"card": {"modality_options": {"own": {"dark": "PLACE/own.toml"}}}},
    ],
)
def test_a_server_does_not_choose_a_file_that_is_read_here(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """It would be opened, shown in errors, or taken for values."""
    (tmp_path / "own.toml").write_text('format = 1\nname = "secret"\n')
    placed = json.loads(json.dumps(changes).replace("PLACE", str(tmp_path)))
    model = {**ANSWERS["/model"], "sensor": "own", **placed}
    known, _ = registry().with_modality(_OwnSensor)
    with (
        answering({**ANSWERS, "/model": model}) as address,
        pytest.raises(SimMATError, match="the path") as caught,
    ):
        RemotePredictor(address, known)
    assert "secret" not in str(caught.value)
    allowed = {"own": {"unit": "W/m2"}}
    model = {**ANSWERS["/model"], "sensor": "own", "options": allowed}
    with answering({**ANSWERS, "/model": model}) as address:
        assert options_of(RemotePredictor(address, known).adapter) == allowed


def test_a_sensor_that_a_file_describes_comes_with_the_answer(
    predictor: Predictor, tmp_path: Path
) -> None:
    """The client has no such file, and needs none."""
    definition = parse_sensor_definition(
        {
            "format": 1,
            "name": "sonar",
            "source": [{"name": "sonar", "files": ["*.png"]}],
            "channel": [{"name": "echo", "quantity": "echo", "unit": "count"}],
        },
        "here",
    )
    model = {
        **ANSWERS["/model"],
        "sensor": "sonar",
        "sensor_definitions": [definition.model_dump(mode="json")],
    }
    with answering({**ANSWERS, "/model": model}) as address:
        adapter = RemotePredictor(address, registry()).adapter
    assert adapter.definition == definition
    with door(predictor, tmp_path / "home") as address:
        assert Client(address).model["sensor_definitions"] == []
