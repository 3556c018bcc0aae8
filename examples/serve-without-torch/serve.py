"""Serve an exported model over HTTP with the standard library, numpy and onnxruntime: no torch, no SimMAT.

    simmat export RUN --out exported                       # where the model was trained
    pip install simmat-runtime                             # where it is served
    python serve.py exported --port 8000

    curl --data-binary @image.npy "localhost:8000/predict?point=320,240&point=300,250"
    curl --data-binary @image.npy "localhost:8000/everything"

The body is an .npy of (C, H, W) in the sensor's units, NaN where nothing was measured. Masks come back as run lengths,
COCO's: column by column, how many pixels are outside, inside, outside, ….
"""

from __future__ import annotations

import argparse
import io
import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import simmat_runtime

LARGEST_BODY = 2**28
"""Bytes of an image, at most."""


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Return COCO's run lengths of an (H, W) mask."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def numbers(name: str, text: str, count: int) -> Any:
    """Return the numbers of a parameter, such as point=320,240; ValueError where it has others."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise ValueError(f"{name} must be {count} numbers with commas, got {text!r}")
    return values


def answer(
    model: simmat_runtime.Model,
    path: str,
    query: Mapping[str, Sequence[str]],
    body: bytes,
) -> Any:
    """Answer one request; ValueError for what does not fit."""
    if path not in ("/predict", "/everything"):
        raise ValueError(f"{path} is unknown; POST to /predict or /everything")
    try:
        image = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            "the body must be an .npy of numbers, (C, H, W) in the sensor's units"
        ) from error
    model.set_image(image)
    if path == "/everything":
        return [
            {
                "score": one.score,
                "class": one.class_id,
                "point": one.point_xy,
                "mask": run_lengths(one.mask),
            }
            for one in model.everything()
        ]
    points, others, boxes = (
        [numbers(name, text, count) for text in query.get(name, [])]
        for name, count in (("point", 2), ("not", 2), ("box", 4))
    )
    if len(boxes) > 1:
        raise ValueError(f"give one box, got {len(boxes)}")
    found = model.predict(
        [*points, *others],
        [1] * len(points) + [0] * len(others),
        boxes[0] if boxes else None,
    )
    return {
        "score": found.score,
        "class": found.class_id,
        "mask": run_lengths(found.mask),
    }


def make_server(model: simmat_runtime.Model, port: int) -> ThreadingHTTPServer:
    """Return a server on this machine; port 0 takes a free one."""
    lock = threading.Lock()  # a model has one image at a time

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            try:
                if size > LARGEST_BODY:
                    raise ValueError(
                        f"the image has {size} bytes, {LARGEST_BODY} at most"
                    )
                url, body = urlsplit(self.path), self.rfile.read(size)
                with lock:
                    result, status = (
                        answer(model, url.path, parse_qs(url.query), body),
                        200,
                    )
            except ValueError as error:
                result, status = {"error": str(error)}, 400
            content = json.dumps(result).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve an exported model.")
    parser.add_argument("model", help="what `simmat export` wrote")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    with make_server(simmat_runtime.load(given.model), given.port) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
