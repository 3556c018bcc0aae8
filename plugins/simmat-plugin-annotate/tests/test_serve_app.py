"""`simmat serve` gives what the predictor gives, keeps a sensor's values, and nothing else of the machine."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from annotate_server import TOKEN, door, gray_images
from annotate_server import Client as Raw
from bundles import GRAY, tiny_bundle
from runs import registry
from simmat_plugin_annotate.client import Client, ServerError
from simmat_plugin_annotate.remote import RemotePredictor
from starlette.types import Message, Receive, Scope, Send

from simmat.api import load
from simmat.data.instances import FoundObject, Instance
from simmat.errors import DataError
from simmat.io.images import write_image
from simmat.predictor import Predictor, TiledImage
from simmat.predictor.tiles import WindowResult
from simmat.sensors.contract import ImageValues, InputContract
from simmat.sensors.normalize import Statistics
from simmat.types import Channel, Prompt, SensorImage, Window

SIZE = (40, 56)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_images(tmp_path_factory.mktemp("door") / "set", count=4)


@pytest.fixture(scope="module")
def predictor(dense_bundle: Path) -> Predictor:
    return load(dense_bundle, device="cpu", registry=registry())


@pytest.fixture(scope="module")
def address(
    predictor: Predictor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with door(predictor, tmp_path_factory.mktemp("home") / "uploads") as found:
        yield found


def raw(address: str) -> Raw:
    return Raw(int(address.partition("127.0.0.1:")[2].partition("/")[0]))


def test_many_clients_get_the_answers_of_the_predictor(
    address: str, predictor: Predictor, root: Path
) -> None:
    """Clicks, objects and classes, each of the image that the client sent."""
    wanted = {}
    for file in sorted((root / "images").glob("*.png")):
        image = predictor.open_image(file, cache=root.parent / "cache")
        found = image.segment_everything()
        classes = image.segment_semantic()
        predictor.set_image(file, cache=root.parent / "cache")
        wanted[file] = predictor.predict(points=[(16.0, 12.0)]), found, classes

    def ask(file: Path) -> tuple[Path, Any, Any, Any]:
        client = Client(address)
        client.set_image(file)
        return file, client.predict([(16, 12)]), client.everything(), client.classes()

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(ask, [*wanted, *wanted]))
    assert len(answers) == 8
    for file, masks, objects, classes in answers:
        single, found, class_map = wanted[file]
        np.testing.assert_array_equal(masks[0]["mask"], single.mask)
        assert masks[0]["score"] == pytest.approx(
            min(max(single.score, 0), 1), abs=1e-4
        )
        assert [one["area"] for one in objects] == [one.instance.area for one in found]
        for one in classes:
            np.testing.assert_array_equal(one["mask"], class_map.labels == one["class"])


def test_an_image_unlike_those_of_training_is_warned_of_before_a_mask(
    tmp_path: Path,
) -> None:
    """Who sends an image in another unit learns it from the answer, not from odd masks."""
    rng = np.random.default_rng(0)
    planes = rng.uniform(40, 60, (24, 1, *SIZE)).astype(np.float32)
    values = [
        ImageValues.of_image(SensorImage.from_planes(one, (GRAY,))) for one in planes
    ]
    contract = InputContract.of(
        (GRAY,),
        np.stack([one.quantiles for one in values]),
        np.stack([one.correlation for one in values]),
    )
    bundle = tiny_bundle(tmp_path / "bundle", inputs=contract)
    model = load(bundle, device="cpu", registry=registry())
    with door(model, tmp_path / "uploads") as found:
        client = Client(found)
        client.set_image(planes[0])
        assert client.warning == ""
        client.set_image(planes[0] * 4)
        assert "'gray'" in client.warning


def test_a_remote_predictor_answers_as_one_here(
    address: str, predictor: Predictor, root: Path
) -> None:
    """napari and Label Studio use either; files are sent as they are, other images in the units of the channels."""
    remote = RemotePredictor(address, registry())
    assert (remote.adapter.name, remote.class_names) == (
        predictor.adapter.name,
        dict(predictor.class_names),
    )
    assert [channel.name for channel in remote.image_loader.channels] == ["gray"]
    file, prompt = (
        root / "images/s0.png",
        Prompt(np.array([[16, 12]], np.float32), np.ones(1, np.int64)),
    )
    loaded = predictor.set_image(file)
    single, objects, classes = (
        predictor.predict_prompts([prompt])[0],
        predictor.segment_everything(),
        predictor.segment_semantic(),
    )
    for image in (file, {"gray": file}, loaded, loaded.data):
        remote.set_image(image)
        (found,) = remote.predict_prompts([prompt])
        np.testing.assert_array_equal(remote.predict([(16, 12)]).mask, found.mask)
        np.testing.assert_array_equal(found.mask, single.mask)
        assert found.score == pytest.approx(min(max(single.score, 0), 1), abs=1e-4)
        assert [one.instance.window for one in remote.segment_everything()] == [
            one.instance.window for one in objects
        ]
        there = remote.segment_semantic()
        np.testing.assert_array_equal(there.labels, classes.labels)
        for value in (0, 1):  # of a class the mean arrives
            certain = classes.probability[classes.labels == value].sum() * (value != 0)
            assert there.probability[classes.labels == value].sum() == pytest.approx(
                certain, rel=1e-3
            )
    with pytest.raises(DataError, match="leave mask_input out"):
        remote.predict_prompts(
            [replace(prompt, mask_input=np.zeros((8, 8), np.float32))]
        )
    with pytest.raises(DataError, match="at most"):
        remote.set_image(np.zeros((1, 1200, 1200), np.float32))
    with pytest.raises(DataError, match="token"):
        RemotePredictor(address.partition("?")[0])
    with pytest.raises(DataError, match="no answer"):
        RemotePredictor("http://127.0.0.1:9/")


def test_the_same_files_are_encoded_once(
    address: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that keep no state send an image again with every question."""
    from simmat_plugin_annotate.planes import Planes

    first, second = Client(address), Client(address)
    first.set_image(root / "images/s0.png")
    monkeypatch.setattr(
        Planes, "__post_init__", lambda self: pytest.fail("it is read again")
    )
    second.set_image(root / "images/s0.png")
    assert first.image_id == second.image_id


def test_every_file_and_plane_of_a_sensor_arrives_with_16_bits(
    root: Path, tmp_path: Path
) -> None:
    """What the model sees is what the sensor wrote, not a picture of it."""
    from simmat_plugin_annotate.uploads import Uploads

    planes = np.random.default_rng(0).integers(0, 65536, (2, *SIZE)).astype(np.uint16)
    write_image(tmp_path / "b.tif", planes)
    files = {"gray": root / "images/s0.png", "raster": tmp_path / "b.tif"}
    channels = (
        GRAY,
        *(Channel(f"band{number}", "counts", "count") for number in (0, 1)),
    )
    bundle = tiny_bundle(
        tmp_path / "bundle",
        modality="gray+raster",
        sensor_channels=channels,
        channels=tuple(channel.with_statistics(60.0, 20.0) for channel in channels),
        statistics=Statistics(
            (60.0,) * 3,
            (20.0,) * 3,
            ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
            (1000,) * 3,
        ),
        zero_shot=((1.0, 0.0, 0.0),) * 3,
    )
    model = load(bundle, device="cpu", registry=registry())
    with door(model, tmp_path / "home") as address:
        client = Client(address)
        client.set_image(files)
        uploads = Uploads(model, tmp_path / "home", max_pixels=10**6, max_bytes=10**9)
        kept = uploads.find(
            uploads.add(
                {name: (file.name, file.open("rb")) for name, file in files.items()}
            )
        )
        np.testing.assert_array_equal(kept.read(Window(0, 0, *SIZE)).data[1:], planes)
        assert client.predict(box=[5, 5, 30, 30])[0]["mask"].shape == SIZE


def test_an_answer_is_of_the_form_that_openapi_states(address: str, root: Path) -> None:
    """Clients in other languages are generated from it."""
    from simmat_plugin_annotate import serve_app as forms

    client, plain = Client(address), raw(address)
    client.set_image(root / "images/s0.png")
    stated = plain.get("/openapi.json")
    assert stated["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    image = f"/images/{client.image_id}"
    answers = {
        forms.ModelDocument: plain.get("/model"),
        forms.PredictAnswer: plain.done(f"{image}/predict", {"box": [2, 2, 30, 30]}),
        forms.EverythingAnswer: plain.get(f"{image}/everything?box=0,0,20,20"),
        forms.ClassesAnswer: plain.get(f"{image}/classes"),
    }
    for form, answer in answers.items():
        assert form.__name__ in stated["components"]["schemas"]
        form.model_validate(answer, strict=False)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("../../s0.png", b"no picture", "s0.png: "),
        ("a.vrt", b"<VRTDataset/>", "a.vrt: "),
        ("a.tif", b'<VRTDataset rasterXSize="4" rasterYSize="4"/>', "a.tif: "),
        ("C:\\windows\\win.ini", b"x", "win.ini: "),
        ("", b"x", ""),
    ],
)
def test_a_file_that_is_no_image_is_refused_without_a_path(
    address: str,
    root: Path,
    name: str,
    content: bytes,
    said: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its name reaches no other file, and the answer tells nothing of the machine."""
    body = b'--x\r\nContent-Disposition: form-data; name="gray"; filename="%s"\r\n\r\n%s\r\n--x--\r\n'
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "multipart/form-data; boundary=x",
    }
    status, _, answer = raw(address).raw(
        "POST", "/images", body % (name.encode(), content), headers
    )
    assert status == 422
    assert said.encode() in answer
    assert str(tmp_path_factory.getbasetemp()).encode() not in answer
    assert [
        path for path in root.parent.rglob("*") if path.suffix in (".ini", ".vrt")
    ] == []


def test_limits_are_kept(predictor: Predictor, root: Path, tmp_path: Path) -> None:
    """Bytes before they are read, pixels, and the disk: what was dropped is sent again by the client."""
    write_image(tmp_path / "large.png", np.zeros((1, 60, 60), np.uint8))
    first, second = root / "images/s0.png", root / "images/s1.png"
    room = first.stat().st_size + second.stat().st_size - 1
    with door(
        predictor, tmp_path / "home", pixels=3000, upload=5000, kept=room
    ) as address:
        client = Client(address)
        with pytest.raises(ServerError, match="60x60 pixels, at most 3000"):
            client.set_image(tmp_path / "large.png")
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "multipart/form-data; boundary=x",
        }
        status, _, answer = raw(address).raw("POST", "/images", b"x" * 5001, headers)
        assert (status, b"at most 5000 bytes" in answer) == (413, True)
        client.set_image(first)
        mask = client.predict([(16, 12)])[0]["mask"]
        Client(address).set_image(second)
        assert len(list((tmp_path / "home").iterdir())) == 1
        np.testing.assert_array_equal(client.predict([(16, 12)])[0]["mask"], mask)


@pytest.mark.parametrize("slow", ["encode_ahead", "suggestions"])
def test_an_image_is_kept_while_a_request_for_it_is_in_progress(
    predictor: Predictor,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slow: str,
) -> None:
    """The model reads its files; another image that finds no room beside it is refused, not stored."""
    from simmat_plugin_annotate.models import ModelService

    work, started, go = (
        getattr(ModelService, slow),
        threading.Event(),
        threading.Event(),
    )

    def wait(self: ModelService, *given: Any) -> Any:
        started.set()
        go.wait(20)
        return work(self, *given)

    def ask() -> Any:
        client = Client(address)
        client.set_image(root / "images/s0.png")
        return client.everything()

    home, late = tmp_path / "home", root / "images/s1.png"
    room = (root / "images/s0.png").stat().st_size + late.stat().st_size - 1
    monkeypatch.setattr(ModelService, slow, wait)
    with door(predictor, home, kept=room) as address, ThreadPoolExecutor(1) as other:
        answer = other.submit(ask)
        assert started.wait(20)
        with pytest.raises(ServerError, match="--keep-gb"):
            Client(address).set_image(late)
        assert len(list(home.iterdir())) == 1
        go.set()
        assert isinstance(answer.result(20), list)
        Client(address).set_image(late)
        assert len(list(home.iterdir())) == 1


@contextmanager
def stalled_uploads(address: str, count: int) -> Iterator[list[socket.socket]]:
    """Yield connections that have each sent the start of a form."""
    port = raw(address).port
    head = (
        f"POST /images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000\r\n\r\n--x\r\n"
    )
    with ExitStack() as stalled:
        streams = [
            stalled.enter_context(
                socket.create_connection(("127.0.0.1", port), timeout=20)
            )
            for _ in range(count)
        ]
        for stream in streams:
            stream.sendall(head.encode())
        yield streams


def test_uploads_that_stall_do_not_keep_others_waiting(
    address: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four images are read at once; a client whose network is gone must not take such a place."""
    from simmat_plugin_annotate import security

    monkeypatch.setattr(security, "BODY_TIMEOUT_S", 600)
    with stalled_uploads(address, 12):
        Client(address, timeout_s=20).set_image(root / "images/s3.png")


def test_uploads_that_stall_are_ended(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds a connection, and the server has only so many."""
    from simmat_plugin_annotate import security

    monkeypatch.setattr(security, "BODY_TIMEOUT_S", 0.2)
    with stalled_uploads(address, 4) as streams:
        assert [stream.recv(12) for stream in streams] == [b"HTTP/1.1 408"] * 4


def test_a_connection_too_many_gets_the_error_document(
    predictor: Predictor, tmp_path: Path
) -> None:
    """A client shows its message, as of every other error."""
    with door(predictor, tmp_path / "home", clients=2) as address, ExitStack() as idle:
        port = raw(address).port
        Client(address)
        for _ in range(2):
            idle.enter_context(socket.create_connection(("127.0.0.1", port)))
        with pytest.raises(ServerError, match="2 connections in use; ask later"):
            Client(address)


def test_an_upload_that_trickles_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then holds a place as well as none; one that is only slow arrives."""
    from simmat_plugin_annotate import security

    monkeypatch.setattr(security, "BODY_TIMEOUT_S", 0.5)
    monkeypatch.setattr(security, "BODY_PART", 10)

    async def received(size: int) -> tuple[int, bool]:
        """Send a body of 40 parts of some bytes, 0.05 s apart; return what arrives, and whether it was all."""
        parts, got = 40, 0

        async def receive() -> Message:
            nonlocal parts
            parts -= 1
            await asyncio.sleep(0.05)
            return {
                "type": "http.request",
                "body": b"x" * size,
                "more_body": parts > 0,
            }

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal got
            while (message := await receive())["type"] == "http.request":
                got += len(message["body"])
                if not message["more_body"]:
                    return

        async def send(message: Message) -> None:
            """Take no answer."""

        scope = {"type": "http", "headers": []}
        await security.Limits(app, sizes={})(scope, receive, send)
        return got, parts == 0

    assert asyncio.run(received(10)) == (400, True)
    got, complete = asyncio.run(received(1))
    assert not complete
    assert got < 10


def test_a_full_disk_is_said_to_the_client(
    predictor: Predictor, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large uploads wait in the temporary folder; the server is not at fault, and its words help."""

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    body = b'--x\r\nContent-Disposition: form-data; name="gray"; filename="a.png"\r\n\r\n%s\r\n--x--\r\n'
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "multipart/form-data; boundary=x",
    }
    with door(predictor, tmp_path / "home", upload=10**7) as address:
        monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
        status, _, answer = raw(address).raw(
            "POST", "/images", body % bytes(2 * 10**6), headers
        )
        assert status == 507
        assert b"disk of the server is full" in answer
        Client(address).set_image(root / "images/s0.png")  # small ones are in memory


@pytest.mark.slow
def test_the_images_of_a_killed_server_are_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those of a running server, and of others, are not."""
    from simmat_plugin_annotate.uploads import client_folder

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    words = "import sys, signal; from simmat_plugin_annotate.uploads import client_folder as f\n"
    words += "with f() as home: (home / 'image').touch(); signal.raise_signal(signal.SIGKILL)"
    killed = subprocess.run(
        [sys.executable, "-c", words], env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "images/image").exists()
    other = tmp_path / "simmat-serve-other"
    other.mkdir()
    target = tmp_path / "target"
    (target / "images").mkdir(parents=True)
    (target / ".lock").touch()
    (tmp_path / "simmat-serve-link").symlink_to(target)
    with client_folder() as running, client_folder() as home:
        assert not left.exists()
        assert running.exists()
        assert home.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "simmat-serve-other",
        "simmat-serve-link",
        "target",
    }
    assert (target / "images").exists()


@pytest.mark.slow
def test_a_server_that_computes_ends_after_a_signal(tmp_path: Path) -> None:
    """A thread of Python cannot be stopped; who stops the server does not wait for its answer."""
    words = """
import sys, threading, time, urllib.request
from simmat_plugin_annotate import serve
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
def slow(request):
    print("asked", flush=True)
    time.sleep(300)
    return Response()
serve.STOP_TIMEOUT_S = 1
with serve.listen("127.0.0.1", 0) as listener:
    address = "http://127.0.0.1:%d/" % listener.getsockname()[1]
    threading.Thread(target=urllib.request.urlopen, args=[address], daemon=True).start()
    serve.limited_server(Starlette(routes=[Route("/", slow)])).run(sockets=[listener])
"""
    with subprocess.Popen(
        [sys.executable, "-c", words], stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"asked\n"
            server.terminate()
            assert server.wait(60) == 128 + signal.SIGTERM
        finally:
            server.kill()


def test_everything_in_a_box_is_what_touches_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a predictor, also where the image is one window, which is searched as a whole."""
    places = [
        Window(y, x, y + 4, x + 4) for y in range(0, 32, 8) for x in range(0, 48, 8)
    ]
    found = [
        FoundObject(
            Instance(None, one, np.ones((4, 4), np.bool_)), 0.9, (one.x0, one.y0)
        )
        for one in places
    ]
    monkeypatch.setattr(
        TiledImage, "segment_window", lambda *given, **more: WindowResult(tuple(found))
    )
    client = Client(address)
    client.set_image(np.zeros((1, *SIZE), np.float32))
    for box, count in (
        (None, 24),
        ([0, 0, 6, 6], 1),
        ([4, 4, 9, 20], 2),
        ([3, 0, 9, 40], 8),
        ([1000, 0, 1006, 6], 0),
    ):
        assert len(client.everything(box)) == count, box


def test_without_the_token_nothing_is_answered(address: str) -> None:
    """Not even what the model is."""
    for path in ("/model", "/openapi.json", "/images/0/classes"):
        assert raw(address).raw("GET", path, headers={})[0] == 401


def test_wrong_requests_say_what_is_wrong(address: str, root: Path) -> None:
    """A programmer reads the answer, not the log."""
    client, plain = Client(address), raw(address)
    client.set_image(root / "images/s0.png")
    image = f"/images/{client.image_id}"
    for body, said in (
        ({"points": [[1, 2, 3]]}, "points"),
        ({}, "prompt"),
        ({"points": [[900, 2, 1]]}, "900"),
        ({"box": [1, 2]}, "box 3 is missing"),
        ({"box": ["a", 0, 1, 1]}, "box 1 must be a number, got 'a'"),
    ):
        status, document = plain.post(f"{image}/predict", body)
        assert status == 422
        assert said in str(document), document
    for box, said in (
        ("5,5,1,1", "x0 < x1 and y0 < y1, got 5,5,1,1"),
        ("0,0,99999999999,9", "at most 9 digits"),
    ):
        status, _, answer = plain.raw("GET", f"{image}/everything?box={box}")
        assert status == 422
        assert said in answer.decode()
    assert plain.post("/images/../../etc/predict", {"points": [[1, 1, 1]]})[0] == 404
    two = (
        b'--x\r\nContent-Disposition: form-data; name="gray"; filename="a.png"\r\n\r\n1\r\n'
        * 2
        + b"--x--\r\n"
    )
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "multipart/form-data; boundary=x",
    }
    status, _, answer = plain.raw("POST", "/images", two, headers)
    assert (status, b"Too many files" in answer) == (400, True), answer
    with pytest.raises(ServerError, match="'gray'"):
        client.set_image({"thermal": root / "images/s0.png"})
    with pytest.raises(ServerError, match=r"\(1, H, W\)") as refused:
        client.set_image(np.zeros((*SIZE, 3), np.float32))
    assert "plugin" not in str(refused.value)


def test_the_command_serves_with_its_limits(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pixels bound what is decoded at all; of the clients' images nothing is left, also after SIGTERM."""
    from simmat_plugin_annotate.commands import serve
    from simmat_plugin_annotate.uploads import Uploads

    from simmat.io.limits import LIMIT_VARIABLE, decoded_limit

    monkeypatch.setenv("SIMMAT_PLUGINS", "testing")
    monkeypatch.setenv("SIMMAT_SERVE_TOKEN", TOKEN)
    monkeypatch.setenv(LIMIT_VARIABLE, "2")
    homes: list[Path] = []
    make = Uploads.__init__

    def kept(self: Uploads, model: Predictor, home: Path, **given: int) -> None:
        homes.append(home)
        make(self, model, home, **given)

    monkeypatch.setattr(Uploads, "__init__", kept)
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda self, sockets: signal.raise_signal(signal.SIGTERM)
    )
    assert (
        serve.main(
            [str(bundle), "--max-megapixels", "1", "--device", "cpu"],
            standalone_mode=False,
        )
        == 0
    )
    assert f"/?token={TOKEN}" in capsys.readouterr().out
    assert decoded_limit() == 16 * 10**6
    assert not homes[0].exists()
