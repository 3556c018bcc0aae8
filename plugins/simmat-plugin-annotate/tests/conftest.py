"""Settings of the annotator's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # browser.py

from annotate_server import Client, gray_images, served
from browser import Server, need_browser


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been served."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "testing,measure")
    annotators: list[Any] = []
    monkeypatch.setattr(
        "simmat_plugin_annotate.serve.serve",
        lambda annotator, *given, **more: annotators.append(annotator),
    )
    return annotators


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of three images."""
    return gray_images(tmp_path / "set")


@pytest.fixture
def client(root: Path, bundle: Path) -> Iterator[Client]:
    """A server of the folder."""
    with served(root, bundle) as found:
        yield found


@pytest.fixture
def server_of(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server with options on `tmp_path`, for a browser."""
    need_browser()
    servers = []

    def start(*options: str) -> Server:
        servers.append(
            Server(tmp_path, "--foundation", "lite", "--image-size", "128", *options)
        )
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
