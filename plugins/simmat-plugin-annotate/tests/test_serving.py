"""What the page is shown and answered is what sensor and predictor give."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_server import TOKEN, Client, filled, gray_images, served, square
from runs import registry
from simmat_plugin_annotate.planes import ImageCache, Planes, halve, quantize

from simmat.bundle import load_bundle
from simmat.io.images import write_image
from simmat.predictor import Predictor, TiledImage
from simmat.types import Prompt

SIZE = (40, 56)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_images(tmp_path_factory.mktemp("serving") / "set", count=10)


@pytest.fixture(scope="module")
def client(root: Path, bundle: Path) -> Iterator[Client]:
    with served(root, bundle) as found:
        yield found


def values_of(content: bytes, shape: str) -> np.ndarray:
    """Read a tile as the page does: NaN where nothing is measured."""
    count, height, width = map(int, shape.split(","))
    heads = np.frombuffer(content, "<f4", 2 * count).reshape(count, 2)
    numbers = np.frombuffer(content, "<u2", offset=8 * count).reshape(
        count, height, width
    )
    values = heads[:, :1, None] + heads[:, 1:, None] * numbers
    return np.where(numbers == 0, np.nan, values)


def test_two_tabs_labelling_one_image_lose_nothing(client: Client) -> None:
    """Each edit is either there or was refused as stale."""
    key = client.keys()["s9"]

    def tab(first: int) -> int:
        accepted = 0
        for number in range(4):
            image = client.get(f"/api/images/{key}")
            x = first + 5 * number
            edits = [
                {
                    "op": "add",
                    "mask": square(x, first // 10 * 8, x + 4, first // 10 * 8 + 4),
                }
            ]
            status, _ = client.post(
                f"/api/images/{key}/edits",
                {"version": image["version"], "edits": edits},
            )
            assert status in (200, 409)
            accepted += status == 200
        return accepted

    with ThreadPoolExecutor(2) as tabs:
        accepted = sum(tabs.map(tab, (0, 10)))
    assert len(client.get(f"/api/images/{key}")["objects"]) == accepted > 0


def test_a_tile_holds_the_values_of_the_sensor(client: Client, root: Path) -> None:
    """Counts exactly, so that what is under the pointer is what was measured."""
    from PIL import Image

    status, headers, content = client.raw(
        "GET", f"/api/images/{client.keys()['s0']}/tiles/0/0/0?channels=0"
    )
    assert status == 200
    np.testing.assert_array_equal(
        values_of(content, headers["x-tile"])[0],
        np.asarray(Image.open(root / "images/s0.png")),
    )


def test_the_list_has_a_small_picture_of_each_image(client: Client, root: Path) -> None:
    """Names of files say nothing of what is on them; the brightest of the picture is the brightest of the image."""
    import io

    from PIL import Image

    status, headers, content = client.raw(
        "GET", f"/api/images/{client.keys()['s0']}/thumbnail"
    )
    assert (status, headers["content-type"]) == (200, "image/png")
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert picture.shape == SIZE
    assert picture[10:18, 12:20].mean() > 2 * picture[25:, :].mean()


def test_values_that_are_not_counts_are_off_by_less_than_a_step() -> None:
    """Kelvin of a scene: 1 / 65534 of its range; invalid pixels stay invalid."""
    plane = np.random.default_rng(0).uniform(280, 320, (30, 40)).astype(np.float32)
    valid = np.ones(plane.shape, bool)
    valid[:3] = False
    offset, scale, numbers = quantize(plane, valid)
    assert ((numbers == 0) == ~valid).all()
    assert (
        np.abs(offset + scale * numbers[valid].astype(float) - plane[valid]).max()
        <= scale / 2 + 1e-4
    )


def test_levels_are_means_of_what_is_measured(tmp_path: Path) -> None:
    """A hole of nodata must not darken what is around it; a raster in parts gives the same as one in memory."""
    values, valid = (
        np.asarray([[[1, 3, 5], [5, 7, 9]]], np.float32),
        np.asarray([[[1, 1, 0], [1, 0, 1]]], bool),
    )
    means, known = halve(values, valid)
    np.testing.assert_array_equal(means, [[[3, 9]]])
    assert known.all()

    scene = np.random.default_rng(0).integers(1, 60000, (1, 700, 900)).astype(np.uint16)
    write_image(tmp_path / "a.tif", scene)
    made = []
    for name, in_parts in (("whole", False), ("parts", True)):
        with pytest.MonkeyPatch.context() as patch:
            if in_parts:
                patch.setattr("simmat_plugin_annotate.planes.WHOLE_PX", 100)
                patch.setattr("simmat_plugin_annotate.planes.BLOCK", 256)
            patch.setattr("simmat_plugin_annotate.planes.MAX_CACHED_VALUES", 300_000)
            sensor = registry().modality("gray")
            files = {sensor.sources[0].name: tmp_path / "a.tif"}
            planes = Planes(sensor, files, ImageCache(), tmp_path / name)
            assert (planes.size_hw, planes.levels) == ((700, 900), 3)
            made.append(
                [planes.tile(level, 0, 0, [0]) for level in (0, 1, 2)]
                + [planes.tile(0, 3, 2, [0])]
            )
            assert bool(list(tmp_path.glob(f"{name}/tiles/*/2-0-0.npy"))) is in_parts
    assert made[0] == made[1]
    assert made[0][2][0] == (1, 175, 225)
    np.testing.assert_array_equal(
        values_of(made[0][3][1], ",".join(map(str, made[0][3][0])))[0],
        scene[0, 512:700, 768:900],
    )


def test_suggestions_leave_out_what_is_labelled(client: Client) -> None:
    """Accepting one must not bring it again."""
    key = client.keys()["s5"]
    found = client.get(f"/api/images/{key}/suggestions")
    assert not found["imported"]
    client.edit(key, 0, {"op": "add", "mask": square(0, 0, SIZE[1], SIZE[0])})
    assert client.get(f"/api/images/{key}/suggestions")["objects"] == []


def test_other_tabs_are_informed(client: Client) -> None:
    """By server-sent events: what changed, not what it is."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    connection.request(
        "GET", "/api/events", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    stream = connection.getresponse()
    assert stream.readline() == b"event: hello\n"
    key = client.keys()["s6"]
    change = threading.Timer(
        0.2, lambda: client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})
    )
    change.start()
    lines = [stream.readline().decode() for _ in range(4)]
    change.join()
    connection.close()
    assert lines[2] == "event: image\n"
    told = json.loads(lines[3].removeprefix("data: "))
    assert told == {
        "key": key,
        "objects": 1,
        "of_model": 0,
        "version": 1,
        "labelled": True,
        "done": False,
    }


def test_a_prompt_asks_for_all_masks(client: Client, root: Path, bundle: Path) -> None:
    """The alternatives come in one answer, so that a key needs no request."""
    predictor = Predictor.of_bundle(load_bundle(bundle, registry()))
    image = predictor.open_image(root / "images/s1.png", cache=root.parent / "cache")
    box = np.asarray([5, 5, 30, 30], np.float32)
    wanted = image.predict_all(
        Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box)
    )
    answer = client.done(
        f"/api/images/{client.keys()['s1']}/predict", {"box": [5, 5, 30, 30]}
    )
    assert len(answer["masks"]) == len(wanted)
    for found, one in zip(answer["masks"], wanted, strict=True):
        np.testing.assert_array_equal(filled(found["mask"], SIZE), one.mask)
        assert found["score"] == pytest.approx(min(max(one.score, 0), 1), abs=1e-4)


def service_of(root: Path, bundle: Path, names: dict[int, str] | None = None) -> Any:
    """A model with the images of a folder, without a server."""
    from simmat_plugin_annotate.models import ModelService, ServedModel

    sensor = registry().modality("gray")

    def planes(key: str) -> Planes:
        path = root / f"images/{key}.png"
        return Planes(sensor, {"gray": path}, ImageCache(), root.parent)

    predictor = Predictor.of_bundle(load_bundle(bundle, registry()))
    return ModelService(ServedModel(predictor, "tiny"), planes, lambda: names or {})


def test_images_that_were_only_passed_are_not_encoded(root: Path, bundle: Path) -> None:
    """Else a click on the image that is looked at waits for all of them."""
    service = service_of(root, bundle)
    service.open["tab"] = "s1"
    assert not service.encode("s0", "tab")["ready"]
    assert service.encode("s1", "tab")["ready"]
    assert (service.is_ready("s0"), service.is_ready("s1")) == (False, True)
    service.encode_ahead("s2")
    assert not service.is_ready("s2")  # but its embedding is on disk
    assert len(list((root.parent / "embeddings").rglob("*.safetensors"))) >= 2


def test_suggestions_end_when_no_page_waits(
    root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a page that has gone on, and of a server that ends; the one after it gets its own."""
    from simmat_plugin_annotate.models import CancelledError

    service, wanted = service_of(root, bundle), [True, False]
    with pytest.raises(CancelledError):
        service.suggestions("s0", [], None, lambda: wanted.pop(0))
    service.suggestions("s0", [], None, lambda: True)
    service.closing.set()
    with pytest.raises(CancelledError):
        service.suggestions("s1", [], None, lambda: True)


def test_suggestions_of_more_windows_than_anybody_waits_for_are_refused(
    root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are for what is in view."""
    from simmat_plugin_annotate import models

    from simmat.errors import ConfigError

    monkeypatch.setattr(Predictor, "tile_size", lambda self, size: 20)
    monkeypatch.setattr(models, "MAX_SUGGESTED", 4)
    asked: list[Any] = []
    monkeypatch.setattr(
        TiledImage,
        "segment_everything",
        lambda self, **given: asked.append(given["box"]) or [],
    )
    service = service_of(root, bundle)
    with pytest.raises(ConfigError, match="zoom in"):
        service.suggestions("s0", [], None, lambda: True)
    service.suggestions("s0", [], (1, 2, 15, 16), lambda: True)
    assert asked == [(2, 1, 16, 15)]


def test_of_many_suggestions_those_that_others_cover_are_left_out(
    client: Client,
) -> None:
    """One of them must not refuse the rest."""
    key = client.keys()["s4"]
    masks = [square(0, 0, 8, 8), square(2, 2, 6, 6), square(4, 0, 12, 8)]
    edits = [{"op": "add", "mask": mask, "overlap": "skip"} for mask in masks]
    change = client.edit(key, client.get(f"/api/images/{key}")["version"], *edits)
    assert [one["area"] for one in change["changed"]] == [64, 32]
    assert len(change["added"]) == 2


def test_the_page_has_the_colour_maps_of_pictures_and_reports(client: Client) -> None:
    """A quantity looks the same everywhere."""
    import base64

    from simmat.drawing.display import DisplayStyle, colour_bar

    for name, text in client.get("/api/session")["maps"].items():
        assert base64.b64decode(text) == bytes(
            value
            for colour in colour_bar(DisplayStyle(name, ""), 256)
            for value in colour
        )
