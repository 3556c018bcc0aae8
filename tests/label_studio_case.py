"""A backend of a scripted model over images that no browser shows, and requests for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvicorn
from scripted_model import Scripted, one_mask
from simmat_plugin_labelstudio.backend import Backend
from simmat_plugin_labelstudio.server import make_app

from simmat.data.dataset import open_images
from simmat.data.pipeline import Pipeline
from simmat.io.images import write_image
from simmat.model import SimMAT
from simmat.predictor import Predictor
from simmat.sensors.builtin import Raster
from simmat.types import Channel

SIZE = (32, 32)
MASK = np.hypot(*(np.mgrid[:32, :32] - np.reshape([10, 12], (2, 1, 1)))) < 6


def sensor_files(root: Path, count: int = 2) -> Path:
    """A folder with images/ of five planes of 16 bits, which no browser shows."""
    (root / "images/train").mkdir(parents=True)
    for number in range(count):
        planes = (
            np.random.default_rng(number)
            .integers(0, 60000, (5, *SIZE))
            .astype(np.uint16)
        )
        write_image(root / f"images/train/s{number}.tif", planes)
    return root


def scripted_backend(root: Path, **changes: Any) -> tuple[Backend, Scripted]:
    model = Scripted(one_mask(MASK))
    model.dense = None  # type: ignore[assignment]
    channels = tuple(
        Channel(f"band{n}", "counts", "count").with_statistics(3e4, 1e4)
        for n in range(5)
    )
    predictor = Predictor(cast(SimMAT, model), Pipeline(Raster(), channels, SIZE[0]))
    return Backend(
        predictor,
        "scripted",
        open_images(root, Raster()),
        "http://localhost:9090",
        **changes,
    ), model


def prompt(
    kind: str, label: str = "ship", positive: bool = True, **value: float
) -> dict[str, Any]:
    return {
        "id": "p",
        "type": kind,
        "value": {**value, kind: [label]},
        "is_positive": positive,
        "to_name": "image",
    }


@contextmanager
def served(backend: Backend) -> Iterator[int]:
    """Serve in a thread while the block runs; yields the port."""
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(backend, ["localhost"], ["http://localhost:8080"]), port=0
        )
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
