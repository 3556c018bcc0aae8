"""A running `simmat annotate` for tests: a folder of small gray images, a tiny random model, and a client."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from bundles import tiny_bundle
from PIL import Image
from runs import registry

from simmat.predictor import Predictor

TOKEN = "token-of-the-test"


def gray_images(
    root: Path, count: int = 3, size_hw: tuple[int, int] = (40, 56)
) -> Path:
    """A folder with images/ alone: s0.png, s1.png, …, bright squares on noise."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for number in range(count):
        image = rng.normal(60, 10, size_hw)
        image[8:20, 10 + number : 22 + number] += 100
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
            root / f"images/s{number}.png"
        )
    return root


def square(x0: int, y0: int, x1: int, y1: int) -> dict[str, list[int]]:
    """A mask that fills its box."""
    return {"box": [x0, y0, x1, y1], "runs": [0, (x1 - x0) * (y1 - y0)]}


def filled(mask: Mapping[str, Any], size_hw: tuple[int, int]) -> np.ndarray:
    """The (H, W) bool of a mask, written without the server's own code."""
    x0, y0, x1, y1 = mask["box"]
    flat: list[bool] = []
    for place, run in enumerate(mask["runs"]):
        flat += [place % 2 == 1] * run
    full = np.zeros(size_hw, bool)
    full[y0:y1, x0:x1] = np.asarray(flat).reshape(y1 - y0, x1 - x0)
    return full


@dataclass
class Client:
    """Asks a server as the page does.

    Attributes:
        port: of the server.
        headers: sent with every request.
    """

    port: int
    headers: dict[str, str] = field(
        default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"}
    )

    def raw(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request; return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method, path, body, dict(self.headers if headers is None else headers)
            )
            answer = connection.getresponse()
            return (
                answer.status,
                {key.lower(): value for key, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The json of a path that is there."""
        status, _, content = self.raw("GET", path)
        assert status == 200, (status, content)
        return json.loads(content)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and json of the answer to a json."""
        headers = {**self.headers, "Content-Type": "application/json"}
        status, _, content = self.raw("POST", path, json.dumps(body).encode(), headers)
        return status, json.loads(content)

    def done(self, path: str, body: Any) -> Any:
        """The json of a request that succeeds."""
        status, document = self.post(path, body)
        assert status in (200, 202), (status, document)
        return document

    def edit(self, key: str, version: int, *edits: Mapping[str, Any]) -> Any:
        """Change objects."""
        return self.done(
            f"/api/images/{key}/edits", {"version": version, "edits": list(edits)}
        )

    def keys(self) -> dict[str, str]:
        """Name -> key of the images."""
        return {
            image["name"]: image["key"] for image in self.get("/api/images")["images"]
        }


def make_annotator(
    root: Path,
    bundle: Path,
    overrides: Mapping[str, object] | None = None,
    predictions: Path | None = None,
) -> Any:
    """What a server shares, with the model of a bundle."""
    from simmat_plugin_annotate.annotator import Annotator
    from simmat_plugin_annotate.models import ServedModel

    from simmat.api import load

    known = registry()

    def tuned(path: Path) -> ServedModel:
        return ServedModel(load(path, device="cpu", registry=known), path.name)

    arguments = "--modality gray --foundation tiny --image-size 64 --device cpu --batch-size 2".split()
    return Annotator(
        root,
        known.modality("gray"),
        overrides or {},
        lambda folder: tuned(bundle),
        lambda folder, model: arguments,
        tuned,
        predictions,
    )


@contextmanager
def served(
    root: Path,
    bundle: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    predictions: Path | None = None,
) -> Iterator[Client]:
    """Serve a folder in a thread while the block runs; its address is http://127.0.0.1:PORT/?token=TOKEN."""
    from simmat_plugin_annotate.serve import listen, server_of
    from simmat_plugin_annotate.server import make_app
    from simmat_plugin_annotate.state import locked_folder

    with listen("127.0.0.1", 0) as listener, locked_folder(root):
        annotator = make_annotator(
            root,
            bundle or tiny_bundle(root.parent / f"{root.name}-bundle"),
            overrides,
            predictions,
        )
        server, _ = server_of(
            make_app(annotator), listener, host="127.0.0.1", token=TOKEN
        )
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, daemon=True
        )
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(20)


@contextmanager
def door(
    predictor: Predictor,
    home: Path,
    *,
    pixels: int = 10**6,
    upload: int = 10**6,
    kept: int = 10**9,
    clients: int = 256,
) -> Iterator[str]:
    """Serve a model in a thread while the block runs; yield its address."""
    from simmat_plugin_annotate.models import ServedModel
    from simmat_plugin_annotate.serve import listen, server_of
    from simmat_plugin_annotate.serve_app import MAX_PROMPT, make_serve_app
    from simmat_plugin_annotate.uploads import Uploads

    home.mkdir()
    uploads = Uploads(predictor, home, max_pixels=pixels, max_bytes=kept)
    with listen("127.0.0.1", 0) as listener:
        app = make_serve_app(
            ServedModel(predictor, "tiny"), uploads, {"bytes": upload, "pixels": pixels}
        )
        server, address = server_of(
            app,
            listener,
            host="127.0.0.1",
            token=TOKEN,
            upload=upload,
            body=MAX_PROMPT,
            clients=clients,
        )
        thread = threading.Thread(
            target=uvicorn.Server.run, args=(server, [listener]), daemon=True
        )
        thread.start()
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(20)


MASK = {"box": [2, 1, 6, 4], "runs": [3, 9]}
"""Of 12 pixels."""
FOUND = {
    "mask": MASK,
    "score": 0.5,
    "area": 9,
    "class": 1,
    "class_probability": 0.5,
}


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
