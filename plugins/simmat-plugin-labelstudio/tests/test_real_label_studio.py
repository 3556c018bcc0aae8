"""The way through Label Studio itself, whose command the environment variable LABEL_STUDIO names; else it is skipped.

Install it into an environment of its own (`pip install label-studio`), as its libraries have other versions than ours.
It takes a minute to start; LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY name one that runs with the settings below.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from label_studio_case import MASK, SIZE, prompt, scripted_backend, sensor_files, served
from PIL import Image
from simmat_plugin_annotate.remote import RemotePredictor
from simmat_plugin_convert.convert import convert
from simmat_plugin_convert.label_studio import POLYGON, label_config
from simmat_plugin_labelstudio.backend import Backend
from simmat_plugin_labelstudio.results import write_tasks

from simmat.data.dataset import Dataset, open_dataset, open_images
from simmat.data.instances import Instance, region_from_mask
from simmat.inference import run_lengths
from simmat.sensors.builtin import Raster

COMMAND = os.environ.get("LABEL_STUDIO") or shutil.which("label-studio")
RUNNING = os.environ.get("LABEL_STUDIO_URL")
TOKEN = os.environ.get(
    "LABEL_STUDIO_API_KEY", "0123456789abcdef0123456789abcdef01234567"
)
START_S = float(os.environ.get("LABEL_STUDIO_START_S", "600"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (COMMAND or RUNNING),
        reason="no label-studio here; LABEL_STUDIO names its command",
    ),
]
Ask = Callable[..., Any]


def request(url: str, method: str, path: str, body: Any = None) -> Any:
    """Ask its API; return json or bytes."""
    headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url + path, data, headers, method=method), timeout=120
    ) as answer:
        content = answer.read()
    return (
        json.loads(content)
        if "json" in answer.headers.get("Content-Type", "")
        else content
    )


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Start Label Studio, unless one runs."""
    if RUNNING:
        yield partial(request, RUNNING)
        return
    home = tmp_path_factory.mktemp("label-studio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(home),
        "LABEL_STUDIO_USERNAME": "a@example.com",
        "LABEL_STUDIO_PASSWORD": "of-the-test",
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
    }
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    } | settings
    command = [
        str(COMMAND),
        "start",
        "--no-browser",
        "--port",
        str(port),
        "--internal-host",
        "127.0.0.1",
    ]
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=log,
            cwd=home,
            start_new_session=True,
        )
    ask_it = partial(request, f"http://127.0.0.1:{port}")
    end = time.monotonic() + START_S
    try:
        while True:
            with suppress(OSError):
                ask_it("GET", "/api/version")
                break
            assert server.poll() is None, (home / "log.txt").read_text()
            assert time.monotonic() < end, (home / "log.txt").read_text()
            time.sleep(1)
        yield ask_it
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def exported(ask: Ask, project: int, root: Path, out: Path) -> Dataset:
    """Export a project into the folder of its images, as its page names the file, and convert it to masks."""
    content = ask("GET", f"/api/projects/{project}/export?exportType=JSON")
    name = f"project-{project}-at-2026-01-02-03-04-{out.name}.json"
    (root / name).write_text(json.dumps(content))
    # without the image that has no annotation
    convert(root, out, Raster(), "masks", lossy=True)
    (root / name).unlink()
    return open_dataset(out, Raster())


@pytest.mark.parametrize(("kind", "remote"), [("brushlabels", False), (POLYGON, True)])
def test_clicks_and_predictions_come_back_as_masks(
    ask: Ask, tmp_path: Path, kind: str, remote: bool
) -> None:
    """Project, model, tasks, a click through Label Studio, pre-annotations, export: all by its own API.

    A remote model is behind `simmat serve`.
    """
    root = sensor_files(tmp_path / "set", 3)
    backend, model = scripted_backend(root)
    doors = ExitStack()
    if remote:
        door = pytest.importorskip("annotate_server").door
        served_model = RemotePredictor(
            doors.enter_context(door(backend.predictor, tmp_path / "home"))
        )
        backend = Backend(
            served_model, "remote", open_images(root, Raster()), backend.address
        )
    config = label_config(["object", "ship"], kind)
    project = ask("POST", "/api/projects", {"title": kind, "label_config": config})[
        "id"
    ]
    ask("POST", f"/api/projects/{project}/import", backend.tasks()[:2])
    tasks = {
        one["data"]["sample"]: one["id"]
        for one in ask("GET", f"/api/tasks?project={project}")["tasks"]
    }
    with doors, served(backend) as port:
        url = f"http://localhost:{port}"
        connected = ask(
            "POST",
            "/api/ml",
            {"project": project, "url": url, "title": "m", "is_interactive": True},
        )
        assert connected["readable_state"] == "Connected"
        click = prompt("keypointlabels", "ship", x=40.0, y=30.0, width=0.5)
        body = {"task": tasks["train/s1"], "context": {"result": [click]}}
        answer = ask("POST", f"/api/ml/{connected['id']}/interactive-annotating", body)[
            "data"
        ]
        assert [tuple(planes.shape[1:]) for planes in model.encoded] == [(5, *SIZE)]
        everything = {"selectedItems": {"all": True, "excluded": []}}
        ask(
            "POST",
            f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
            everything,
        )
    predicted = ask("GET", f"/api/tasks/{tasks['train/s0']}")["predictions"]
    assert [one["model_version"] for one in predicted] == [backend.version]
    ask(
        "POST",
        f"/api/tasks/{tasks['train/s1']}/annotations",
        {"result": answer["result"]},
    )

    found = {"class": None, "class_name": "ship", "score": 0.75}
    found["segmentation"] = run_lengths(
        cast(Instance, region_from_mask(MASK, None)), SIZE
    )
    record = {
        "size_hw": SIZE,
        "objects": [found],
        "files": {"planes": str(root / "images/train/s2.tif")},
    }
    write_tasks([("train__s2", record)], {}, root / "label-studio.json")
    if kind == "brushlabels":  # what `simmat predict` writes
        ask(
            "POST",
            f"/api/projects/{project}/import",
            json.loads((root / "label-studio.json").read_text()),
        )
        listed = ask("GET", f"/api/tasks?project={project}")["tasks"]
        (last,) = [one for one in listed if one["data"]["sample"] == "train/s2"]
        prediction = ask("GET", f"/api/tasks/{last['id']}")["predictions"][0]
        ask(
            "POST",
            f"/api/tasks/{last['id']}/annotations",
            {"result": prediction["result"]},
        )
    (root / "label-studio.json").unlink()
    dataset = exported(ask, project, root, tmp_path / "masks")
    labels = {sample.id: dataset.label(sample) for sample in dataset.samples}
    assert set(labels) == (
        {"train/s1", "train/s2"} if kind == "brushlabels" else {"train/s1"}
    )
    for label in labels.values():
        (one,) = label.regions
        assert dataset.class_names[one.class_id or 0] == "ship"
        assert (one.mask(SIZE) == MASK).all()
    if kind == "brushlabels":  # Label Studio itself reads our code as we meant it
        path = tmp_path / "png.zip"
        path.write_bytes(
            ask("GET", f"/api/projects/{project}/export?exportType=BRUSH_TO_PNG")
        )
        with zipfile.ZipFile(path) as archive:
            pictures = [name for name in archive.namelist() if name.endswith(".png")]
            assert len(pictures) == 2
            for name in pictures:
                assert ((np.asarray(Image.open(archive.open(name))) > 0) == MASK).all()


def test_labels_that_were_written_come_back_to_the_pixel(
    ask: Ask, tmp_path: Path
) -> None:
    """A data set goes into Label Studio and out again: holes, pieces, classes, splits."""
    root = sensor_files(tmp_path / "set", 3)
    values = np.zeros(SIZE, np.uint8)
    values[2:9, 3:10], values[4:6, 5:8], values[12:14, 4:8], values[14:17, 8:11] = (
        1,
        0,
        2,
        2,
    )
    (root / "masks/train").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.roll(values, 3 * number, axis=1)).save(
            root / f"masks/train/s{number}.png"
        )
    (root / "card.toml").write_text(
        'regions = "components"\n\n[class_names]\n1 = "ring"\n2 = "steps, two"\n'
    )
    start = open_dataset(root, Raster())
    for polygons in (False, True):
        tasks = tmp_path / f"tasks-{polygons}"
        convert(root, tasks, Raster(), "label-studio", polygons=polygons)
        config = (tasks / "label-config.xml").read_text()
        project = ask(
            "POST", "/api/projects", {"title": tasks.name, "label_config": config}
        )["id"]
        ask(
            "POST",
            f"/api/projects/{project}/import",
            json.loads((tasks / "label-studio.json").read_text()),
        )
        (tasks / "label-studio.json").unlink()
        back = exported(ask, project, tasks, tmp_path / f"back-{polygons}")
        for before, after in zip(start.samples, back.samples, strict=True):
            assert before.id == after.id
            objects = [
                sorted(
                    (
                        one.window,
                        one.crop.tobytes(),
                        data.class_names[one.class_id or 0],
                    )
                    for one in label.regions
                )
                for data, label in (
                    (start, start.label(before)),
                    (back, back.label(after)),
                )
            ]
            assert objects[0] == objects[1]
