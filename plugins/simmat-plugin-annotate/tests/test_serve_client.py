"""The client of `simmat serve` answers for the image it was given, of the model it knows, or says why not."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from annotate_server import door, gray_images
from bundles import tiny_bundle
from runs import registry
from simmat_plugin_annotate.client import Client, ServerError
from simmat_plugin_annotate.remote import RemotePredictor

from simmat.api import load
from simmat.errors import DataError
from simmat.predictor import Predictor


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
