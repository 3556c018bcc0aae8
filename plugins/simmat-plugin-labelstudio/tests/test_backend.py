"""The ML backend: what it answers to the requests that Label Studio sends."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from label_studio_case import MASK, SIZE, prompt, scripted_backend, sensor_files, served
from PIL import Image
from simmat_plugin_convert.brush import decode_brush
from simmat_plugin_convert.convert import convert
from simmat_plugin_convert.label_studio import POLYGON, label_config
from simmat_plugin_labelstudio.backend import tags_of
from simmat_plugin_labelstudio.command import command
from simmat_plugin_labelstudio.results import write_tasks

from simmat.data.dataset import open_dataset
from simmat.data.instances import FoundObject, Instance, region_from_mask
from simmat.errors import ConfigError
from simmat.inference import run_lengths
from simmat.io.images import write_image
from simmat.predictor import TiledImage
from simmat.sensors.builtin import Raster

CONFIG = label_config(["object", "ship"])


def asked(
    *prompts: Mapping[str, Any], sample: str = "train/s1", config: str = CONFIG
) -> dict[str, Any]:
    """What Label Studio sends for a click, with some of what it sends beside."""
    task = {
        "id": 3,
        "data": {"image": "http://localhost:9090/images/x.png", "sample": sample},
        "annotations": [],
    }
    params = {
        "context": {"result": prompts} if prompts else None,
        "login": None,
        "password": None,
    }
    return {
        "tasks": [task],
        "project": "1.17",
        "label_config": config,
        "params": params,
    }


def regions(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["results"][0]["result"]
    return found


def test_a_click_is_answered_from_all_planes_of_the_sensors_own_file(
    tmp_path: Path,
) -> None:
    """Label Studio shows three 8-bit planes; the model sees what the camera measured."""
    backend, model = scripted_backend(sensor_files(tmp_path / "set"))
    answer = backend.predict(
        asked(prompt("keypointlabels", x=50 / 32 * 25, y=100 / 64, width=1))
    )
    (found,) = regions(answer)
    assert (decode_brush(found["value"]["rle"], SIZE, "") == MASK).all()
    assert found["value"]["brushlabels"] == ["ship"]
    assert (found["type"], found["from_name"], found["to_name"]) == (
        "brushlabels",
        "mask",
        "image",
    )
    assert (found["original_height"], found["original_width"]) == SIZE
    assert (
        answer["results"][0]["model_version"]
        == answer["model_version"]
        == backend.setup({"schema": CONFIG})["model_version"]
    )
    # half of the percent are pixels, less half a pixel
    assert model.asked[0].point_coords.tolist() == [[[12.0, 0.0]]]
    (planes,) = model.encoded
    values = np.random.default_rng(1).integers(0, 60000, (5, *SIZE)).astype(np.uint16)
    assert np.allclose(planes[0].numpy() * 1e4 + 3e4, values, atol=1)
    backend.predict(
        asked(
            prompt("keypointlabels", x=1, y=1),
            prompt("keypointlabels", x=90, y=90, positive=False),
        )
    )
    assert model.asked[1].point_labels.tolist() == [[1, 0]]
    assert len(model.encoded) == 1  # encoded once, clicked often


def test_a_click_is_answered_from_the_file_as_it_is_now(tmp_path: Path) -> None:
    """A person sees the new picture of an image that was replaced."""
    root = sensor_files(tmp_path / "set")
    backend, model = scripted_backend(root)
    click = asked(prompt("keypointlabels", x=40, y=30))
    backend.predict(click)
    write_image(root / "images/train/s1.tif", np.full((5, *SIZE), 40000, np.uint16))
    backend.predict(click)
    assert len(model.encoded) == 2
    assert np.allclose(model.encoded[1][0].numpy(), 1)


def test_images_are_dropped_where_too_many_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is read in parts, or is on a server, takes memory that is not counted in bytes."""
    monkeypatch.setattr("simmat_plugin_labelstudio.backend.MAX_CACHED_IMAGES", 1)
    backend, model = scripted_backend(sensor_files(tmp_path / "set"))
    for sample in ("train/s0", "train/s1", "train/s1", "train/s0"):
        backend.predict(asked(prompt("keypointlabels", x=40, y=30), sample=sample))
    assert len(model.encoded) == 3


def test_a_box_is_answered_with_a_polygon_where_the_project_has_polygons(
    tmp_path: Path,
) -> None:
    """The project says what an object is drawn as."""
    root = sensor_files(tmp_path / "set")
    backend, model = scripted_backend(root)
    box = prompt("rectanglelabels", x=25.0, y=12.5, width=50.0, height=90.0)
    answer = backend.predict(
        asked(box, config=label_config(["object", "ship"], POLYGON))
    )
    assert model.asked[0].boxes is not None
    # cut at the edge of the image
    assert model.asked[0].boxes.tolist() == [[8.0, 4.0, 24.0, 32.0]]
    backend.predict(
        asked(
            prompt(
                "rectanglelabels", x=75.0, y=12.5, width=90.0, height=50.0, rotation=90
            )
        )
    )
    assert model.asked[1].boxes is not None
    # the same one, turned
    assert np.allclose(model.asked[1].boxes.numpy(), model.asked[0].boxes.numpy())
    task = {
        "data": {"sample": "train/s1"},
        "annotations": [{"result": regions(answer)}],
    }
    (root / "label-studio.json").write_text(json.dumps([task]))
    convert(root, tmp_path / "out", Raster(), "coco")
    dataset = open_dataset(tmp_path / "out", Raster())
    (drawn,) = dataset.label(dataset.samples[0]).regions
    assert (drawn.mask(SIZE) == MASK).all()


def test_a_click_beside_the_object_alone_finds_nothing(tmp_path: Path) -> None:
    """Label Studio asks at the first click, whichever it is; an error would be shown for it."""
    backend, _ = scripted_backend(sensor_files(tmp_path / "set"))
    assert (
        regions(
            backend.predict(asked(prompt("keypointlabels", x=1, y=1, positive=False)))
        )
        == []
    )


def test_the_model_can_be_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A click and every object, asked of `simmat serve`; the images and their sensor are here."""
    door = pytest.importorskip("annotate_server").door
    root, apps = sensor_files(tmp_path / "set"), list[Any]()
    here, model = scripted_backend(root)
    monkeypatch.setattr(
        "simmat_plugin_labelstudio.server.make_app",
        lambda backend, *given: apps.append(backend),
    )
    with door(here.predictor, tmp_path / "home") as address:
        monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
        command.main([address, "--data", str(root)], standalone_mode=False)
        with pytest.raises(ConfigError, match="--foundation"):
            command.main(
                [address, "--data", str(root), "--foundation", "lite"],
                standalone_mode=False,
            )
        (there,) = apps
        for request in (asked(prompt("keypointlabels", x=40, y=30)), asked()):
            answer = regions(there.predict(request))
            wanted = regions(here.predict(request))
            assert [one["value"] for one in answer] == [one["value"] for one in wanted]
            assert [one["score"] for one in answer] == pytest.approx(
                [one["score"] for one in wanted], abs=1e-4
            )
            assert (decode_brush(answer[0]["value"]["rle"], SIZE, "") == MASK).all()
        assert there.picture("train/s1") == here.picture("train/s1")
    planes, again = model.encoded
    assert (planes == again).all()


def test_a_port_in_use_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    """The server of the model has one."""
    door = pytest.importorskip("annotate_server").door
    root = sensor_files(tmp_path / "set")
    with door(scripted_backend(root)[0].predictor, tmp_path / "home") as address:
        words = [address, "--data", str(root), "--port", str(urlsplit(address).port)]
        with pytest.raises(ConfigError, match="--port"):
            command.main(words, standalone_mode=False)


def found_objects(*class_ids: int | None) -> list[FoundObject]:
    return [
        FoundObject(
            cast(Instance, region_from_mask(np.roll(MASK, index, axis=1), value)),
            0.9 - index / 10,
            (0.0, 0.0),
        )
        for index, value in enumerate(class_ids)
    ]


def test_without_a_prompt_all_objects_are_found_that_have_a_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that the project does not label is left out; nothing gets the label of another class."""
    backend, _ = scripted_backend(sensor_files(tmp_path / "set"))
    monkeypatch.setattr(
        TiledImage, "segment_everything", lambda self: found_objects(None, None)
    )
    assert [
        one["value"]["brushlabels"] for one in regions(backend.predict(asked()))
    ] == [["object"], ["object"]]
    only = regions(backend.predict(asked(config=label_config(["boat"]))))
    assert [one["value"]["brushlabels"] for one in only] == [["boat"], ["boat"]]
    assert len({one["id"] for one in only}) == 2
    monkeypatch.setattr(backend, "class_names", {1: "ship", 2: "buoy"})
    monkeypatch.setattr(
        TiledImage, "segment_everything", lambda self: found_objects(2, 1)
    )
    (one,) = regions(backend.predict(asked()))
    assert (one["value"]["brushlabels"], round(one["score"], 3)) == (["ship"], 0.8)
    for others in (["boat", "quay"], ["boat"]):
        with pytest.raises(ConfigError, match="ship, buoy"):
            backend.predict(asked(config=label_config(others)))


def test_an_image_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Label Studio asks for many tasks at once, and drops them all after an error."""
    backend, _ = scripted_backend(sensor_files(tmp_path / "set"))
    (tmp_path / "set/images/train/s0.tif").write_bytes(b"damaged")
    monkeypatch.setattr(
        TiledImage, "segment_everything", lambda self: found_objects(None)
    )
    request = asked()
    request["tasks"] = [
        {"data": {"sample": name}} for name in ("train/s0", "none", "train/s1")
    ]
    answer = backend.predict(request)
    assert [len(one["result"]) for one in answer["results"]] == [0, 0, 1]
    assert "s0.tif" in capsys.readouterr().err


def test_the_server_gives_label_studio_pictures_tasks_and_answers(
    tmp_path: Path,
) -> None:
    """All that one gives to Label Studio; other names of this machine and other pages get nothing."""
    backend, _ = scripted_backend(sensor_files(tmp_path / "set"))
    (tmp_path / "secret.png").touch()

    def ask(
        method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {
            "Host": f"localhost:{port}",
            "Content-Type": "application/json",
            **headers,
        }
        connection.request(
            method, path, None if body is None else json.dumps(body), headers
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    with served(backend) as port:
        assert json.loads(ask("GET", "/health")[2])["status"] == "UP"
        tasks = json.loads(ask("GET", "/tasks.json")[2])
        assert [one["data"]["sample"] for one in tasks] == ["train/s0", "train/s1"]
        path = tasks[1]["data"]["image"].removeprefix("http://localhost:9090")
        status, headers, content = ask("GET", path, Origin="http://localhost:8080")
        assert (status, headers["Access-Control-Allow-Origin"]) == (
            200,
            "http://localhost:8080",
        )
        assert Image.open(io.BytesIO(content)).size == SIZE[::-1]
        assert (
            "Access-Control-Allow-Origin"
            not in ask("GET", path, Origin="http://evil.example")[1]
        )
        assert ask("GET", path, Host="evil.example")[0] == 400
        assert ask("GET", "/images/../../secret.png")[0] == 404
        assert b'value="object"' in ask("GET", "/label-config.xml")[2]
        assert b"train" not in ask("GET", "/")[2]
        status, _, content = ask(
            "POST", "/predict", asked(prompt("keypointlabels", x=40, y=30))
        )
        assert (status, len(json.loads(content)["results"][0]["result"])) == (200, 1)
        assert ask("POST", "/predict", asked(sample="none"))[0] == 404
        for wrong in (
            {},
            {"tasks": [{}], "label_config": ""},
            asked(config="<View/>"),
            asked(config="<View>"),
        ):
            status, _, content = ask("POST", "/predict", wrong)
            assert (status, list(json.loads(content))) == (400, ["detail"])
        assert ask("POST", "/predict", {}, **{"Content-Type": "text/plain"})[0] == 400
        assert ask("POST", "/webhook", {"action": "ANNOTATION_CREATED"})[0] == 200


@pytest.mark.parametrize("value", ["inf", "nan", "-1e300", 1e7, None, [1], "x"])
@pytest.mark.parametrize("name", ["x", "height", "rotation"])
def test_a_place_that_nobody_can_draw_is_refused(
    tmp_path: Path, name: str, value: object
) -> None:
    """A click that cannot be answered is the mistake of who sent it, and is said in a sentence."""
    backend, _ = scripted_backend(sensor_files(tmp_path / "set"))
    box = prompt("rectanglelabels", x=1, y=1, width=9, height=9)
    box["value"][name] = value
    with pytest.raises(ConfigError, match=f"{name} of a rectangle must be a number"):
        backend.predict(asked(box))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("<View>" * 51 + "</View>" * 51, "more than 50 tags"),
        ("<View>" + "<BrushLabels>" * 10**4, "more than 50 tags"),
        (f"<View>{' ' * 2**20}</View>", "1048589 characters"),
        ("<View>\ud800</View>", "not XML"),
    ],
)
def test_a_configuration_that_nobody_writes_is_refused(config: str, said: str) -> None:
    """Before a tag is looked for in every other one."""
    with pytest.raises(ConfigError, match=said):
        tags_of(config)


def test_the_server_ends_requests_that_are_too_large_or_too_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would take the memory of the machine, and the connections of others."""
    from simmat_plugin_annotate import security

    monkeypatch.setattr("simmat_plugin_labelstudio.server.MAX_BODY", 1000)
    monkeypatch.setattr(security, "BODY_TIMEOUT_S", 0.2)
    backend, _ = scripted_backend(sensor_files(tmp_path / "set"))
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    def answer(rest: str) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
            stream.sendall((head + rest).encode())
            return stream.recv(12)

    with served(backend) as port:
        chunk = "3e9\r\n" + " " * 1001 + "\r\n"
        assert answer("Content-Length: 1001\r\n\r\n") == b"HTTP/1.1 413"
        assert answer(f"Transfer-Encoding: chunked\r\n\r\n{chunk}") == b"HTTP/1.1 413"
        assert answer("Content-Length: 9\r\n\r\n{") == b"HTTP/1.1 408"


def test_what_simmat_predict_finds_is_a_prediction_of_the_same_task(
    tmp_path: Path,
) -> None:
    """Pre-annotations without a server: the masks as found, and the sample that the export is read back by."""
    found = {
        "class": None,
        "class_name": None,
        "score": 0.75,
        "segmentation": run_lengths(cast(Instance, region_from_mask(MASK, None)), SIZE),
    }
    record = {
        "size_hw": SIZE,
        "objects": [found],
        "files": {"planes": str(tmp_path / "images/train/s1.tif")},
    }
    assert write_tasks([("train__s1", record)], {}, tmp_path / "label-studio.json") == 1
    text = (tmp_path / "label-studio.json").read_text()
    assert "simmat predict" in text[:1000]
    (task,) = json.loads(text)
    assert task["data"]["sample"] == "train/s1"
    (prediction,) = task["predictions"]
    (one,) = prediction["result"]
    assert (one["score"], prediction["score"], one["value"]["brushlabels"]) == (
        0.75,
        0.75,
        ["object"],
    )
    assert (decode_brush(one["value"]["rle"], SIZE, "") == MASK).all()
