"""Killed at any moment, the server loses no accepted mask, and a training from the page ends in a better model."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_server import Client, filled, gray_images, served, square
from bundles import tiny_bundle
from PIL import Image

KILLS = 20
SIZE = (400, 560)
SERVE = """
import sys
from pathlib import Path
from annotate_server import TOKEN, make_annotator
from simmat_plugin_annotate.state import locked_folder
from simmat_plugin_annotate.serve import listen, serve
listener = listen("127.0.0.1", 0)
with locked_folder(Path(sys.argv[1])):
    serve(make_annotator(Path(sys.argv[1]), Path(sys.argv[2])), listener, host="127.0.0.1", browser=False,
          echo=lambda text: print(text, flush=True), token=TOKEN)
"""


def start(root: Path, bundle: Path) -> tuple[subprocess.Popen[str], Client]:
    """The real server in a process of its own."""
    paths = os.pathsep.join([str(Path(__file__).parents[3] / "tests"), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(root), str(bundle)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stdout is not None
    address = process.stdout.readline()
    return process, Client(int(address.split(":")[2].split("/")[0]))


@pytest.mark.slow
def test_twenty_kills_lose_no_accepted_mask(tmp_path: Path) -> None:
    """What was answered is in the history and in the mask file, whole, with everything before it."""
    root, bundle = (
        gray_images(tmp_path / "set", size_hw=SIZE),
        tiny_bundle(tmp_path / "bundle"),
    )
    rng = random.Random(0)
    accepted: dict[int, dict[str, Any]] = {}
    for _ in range(KILLS):
        process, client = start(root, bundle)
        key = client.keys()["s0"]
        image = client.get(f"/api/images/{key}")
        found = {one["id"]: one["mask"] for one in image["objects"]}
        assert accepted.items() <= found.items()
        # at most the one that was written but not answered yet
        assert len(found) <= len(accepted) + 1
        accepted, version = dict(found), image["version"]
        check_mask(root, found)
        killing = threading.Timer(
            rng.uniform(0.0, 0.3), process.send_signal, [signal.SIGKILL]
        )
        # edits before the moment is drawn, so that a slow machine makes some, too
        before = rng.randrange(4)
        with suppress(OSError, json.JSONDecodeError, Exception):
            for step in itertools.count():
                if step == before:
                    killing.start()
                number = max([0, *accepted]) + 1
                x, y = 9 * (number % 60), 9 * (number // 60)
                change = client.edit(
                    key, version, {"op": "add", "mask": square(x, y, x + 8, y + 8)}
                )
                version = change["version"]
                accepted |= {one["id"]: one["mask"] for one in change["changed"]}
        killing.join()
        process.wait()
    assert len(accepted) >= KILLS
    start(root, bundle)[0].kill()
    assert [path.name for path in (root / "masks").iterdir()] == ["s0.png"]


def check_mask(root: Path, objects: dict[int, dict[str, Any]]) -> None:
    plane = np.zeros(SIZE, int)
    for number, mask in objects.items():
        plane[filled(mask, SIZE)] = number
    path = root / "masks/s0.png"
    np.testing.assert_array_equal(
        np.asarray(Image.open(path)) if path.exists() else np.zeros(SIZE, int), plane
    )


@pytest.mark.slow
def test_a_training_from_the_page_changes_the_model_where_it_is_better(
    tmp_path: Path,
) -> None:
    """With what is labelled; progress can be read, and the next start uses the new model."""
    root = gray_images(tmp_path / "set", count=6)
    with served(root) as client:
        session = client.get("/api/session")
        for name, key in client.keys().items():
            x = 10 + int(name[1:])
            client.edit(key, 0, {"op": "add", "mask": square(x, 8, x + 12, 20)})
        client.done("/api/train", {"steps": 30})
        assert client.post("/api/train", {})[1]["error"]["code"] == "busy"
        state = wait(client)
        assert state["state"] == "done", state
        assert state["step"] == 30
        assert state["score"] is not None
        changed = (
            client.get("/api/session")["model"]["path"] != session["model"]["path"]
        )
        assert changed is state["adopted"] is (state["score"] > (state["before"] or -1))


@pytest.mark.slow
def test_a_training_that_fails_says_why(tmp_path: Path) -> None:
    """The message of the command, not its exit code."""
    root = gray_images(tmp_path / "set", count=4)
    with served(root) as client:
        for key in client.keys().values():
            client.edit(key, 0, {"op": "add", "mask": square(10, 8, 20, 20)})
        Image.fromarray(np.zeros((3, 3), np.uint8)).save(root / "masks/s1.png")
        client.done("/api/train", {"steps": 5})
        state = wait(client)
        assert state["state"] == "failed"
        assert "s1.png" in state["message"]
        assert "3x3" in state["message"]


def wait(client: Client) -> dict[str, Any]:
    end = time.monotonic() + 300
    while (state := client.get("/api/train"))[
        "state"
    ] == "running" and time.monotonic() < end:
        time.sleep(0.5)
    return dict(state)
