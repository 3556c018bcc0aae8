"""Labels that contradict a training which did not learn from them are listed, corrected, or said to be right."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_server import TOKEN, Client, served
from browser import Tab, browser, need_browser, until
from PIL import Image
from runs import config, gray_set, registry
from simmat_plugin_report import second_opinion
from simmat_plugin_report.planted_errors import LabelCheck
from simmat_plugin_report.second_opinion import Opinion

from simmat import training
from simmat.data.instances import Annotation, FoundObject, region_from_mask


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a training of the page: five images train, s5 and s6 validate, s7 and s8 are for a test."""
    root = gray_set(tmp_path_factory.mktemp("trained") / "set")
    settings = config(
        root,
        root / "runs/annotate-001",
        steps=1,
        heads="prompt,dense",
        pictures=False,
        image_size=32,
    )
    training.train(settings, registry())
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, whose training sees what is labelled now, the left disc as class 1 and the right one as class 2."""
    true = {
        path.stem: np.asarray(Image.open(path))
        for path in (trained / "masks").iterdir()
    }

    def sees(image: Any, label: Annotation) -> Opinion:
        mask = true[Path(image.reader.origin).stem]
        objects = []
        for value in (1, 2):
            region = region_from_mask(mask == value, None)
            assert region is not None
            objects.append(FoundObject(region, 0.9, (0.0, 0.0)))
        objectness = np.where(mask > 0, 0.95, 0.05).astype(np.float32)
        classes: list[Any] = []
        for region in label.regions:
            value = int(mask[region.window.slices][region.crop].max())
            known = {value: 0.9, 3 - value: 0.1}
            classes.append(None if region.class_id is None else known)
        return Opinion(objects, objectness, classes)

    monkeypatch.setattr(second_opinion, "_opinion", sees)
    return Path(shutil.copytree(trained, tmp_path / "set"))


def damaged(root: Path) -> None:
    """In s5 an object has no label any more, and in s6 another label is shifted."""
    for name, value in (("s5", 1), ("s6", 2)):
        path = root / f"masks/{name}.png"
        mask = np.array(Image.open(path))
        region = mask == value
        mask[region] = 0
        if name == "s6":
            mask[np.roll(region, (4, 5), (0, 1))] = value
        Image.fromarray(mask).save(path)


def ended(client: Client) -> dict[str, Any]:
    """Wait until the check has ended, and return how."""
    end = time.monotonic() + 60
    while True:
        state: dict[str, Any] = client.get("/api/session")["check"]
        if state["state"] != "running":
            return state
        assert time.monotonic() < end
        time.sleep(0.02)


def checked(client: Client) -> list[dict[str, Any]]:
    """Check the labels; return the suspects."""
    client.done("/api/suspects/check", {})
    assert ended(client)["state"] == "done"
    return listed(client)


def listed(client: Client) -> list[dict[str, Any]]:
    """The list of suspects."""
    found: list[dict[str, Any]] = client.get("/api/suspects")["suspects"]
    return found


def test_a_corrected_label_leaves_the_list(root: Path, bundle: Path) -> None:
    """An object that was missed is labelled, and a shifted label is moved back; undo brings the suspicion back."""
    damaged(root)
    with served(root, bundle) as client:
        keys = client.keys()
        missed, border = checked(client)
        assert (missed["kind"], missed["key"]) == ("missed", keys["s5"])
        assert (border["kind"], border["key"]) == ("border", keys["s6"])
        assert missed["object"] is None
        assert border["object"] == 2
        labels = client.get("/api/suspects")
        assert (labels["images"], labels["labels"], labels["unchecked"]) == (4, 7, 5)
        client.edit(keys["s5"], 0, {"op": "add", "mask": missed["seen"][0]})
        client.edit(
            keys["s6"], 0, {"op": "replace", "id": 2, "mask": border["seen"][0]}
        )
        assert listed(client) == []
        client.done(f"/api/images/{keys['s6']}/undo", {"version": 1})
        assert listed(client) == [border]


def test_what_is_right_is_not_listed_by_the_next_check(
    root: Path, bundle: Path
) -> None:
    """Though the server was restarted, and though the model sees the object in slightly other pixels."""
    damaged(root)
    with served(root, bundle) as client:
        missed, border = checked(client)
        client.done("/api/suspects/right", {"id": missed["id"], "right": True})
        client.done("/api/suspects/right", {"id": border["id"], "right": True})
        client.done("/api/suspects/right", {"id": border["id"], "right": False})
        assert [one["right"] for one in listed(client)] == [True, False]
    with served(root, bundle) as client:
        assert listed(client) == [missed | {"right": True}, border]
        (left,) = checked(client)
        assert left["kind"] == "border"
        status, answer = client.post(
            "/api/suspects/right", {"id": missed["id"], "right": True}
        )
        assert (status, answer["error"]["code"]) == (404, "not_found")


def test_labels_may_change_while_they_are_checked(
    root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found of a label that is no longer there says nothing; a second check at the same time is refused."""
    damaged(root)
    compared, go = threading.Event(), threading.Event()

    def add(check: LabelCheck, label: Annotation, opinion: Opinion) -> None:
        own_add(check, label, opinion)
        if check._images == 4:
            compared.set()
            go.wait(30)

    own_add = LabelCheck.add
    monkeypatch.setattr(LabelCheck, "add", add)
    with served(root, bundle) as client:
        client.done("/api/suspects/check", {})
        assert compared.wait(30)
        assert client.post("/api/suspects/check", {})[0] == 409
        client.edit(client.keys()["s6"], 0, {"op": "remove", "id": 2})
        go.set()
        assert ended(client)["state"] == "done"
        assert [one["kind"] for one in listed(client)] == ["missed"]


def test_a_check_is_stopped_and_what_the_last_one_found_stays(
    root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take minutes."""
    damaged(root)
    with served(root, bundle) as client:
        before = checked(client)
        started, go = threading.Event(), threading.Event()

        def add(*given: object) -> None:
            started.set()
            go.wait(30)

        monkeypatch.setattr(LabelCheck, "add", add)
        client.done("/api/suspects/check", {})
        assert started.wait(30)
        client.done("/api/suspects/stop", {})
        go.set()
        assert ended(client)["state"] == "stopped"
        assert listed(client) == before


def test_labels_of_one_class_are_checked(root: Path, bundle: Path) -> None:
    """None can be of another class."""
    damaged(root)
    with served(root, bundle) as client:
        client.done("/api/classes", {"classes": [{"name": "disc"}]})
        found = checked(client)
        assert {one["kind"] for one in found} == {"missed", "border"}


def test_a_wrong_class_leaves_the_list_with_the_right_one(
    root: Path, bundle: Path
) -> None:
    """All right discs but one are of the second class, and so is that one then."""
    with served(root, bundle) as client:
        keys = client.keys()
        client.done("/api/classes", {"classes": [{"name": "left"}, {"name": "right"}]})
        is_right = {"op": "class", "id": 2, "class": 2}
        for name in ("s5", "s6", "s7"):
            version = client.get(f"/api/images/{keys[name]}")["version"]
            client.edit(keys[name], version, is_right)
        (one,) = checked(client)
        assert (one["key"], one["kind"], one["object"]) == (keys["s8"], "class", 2)
        assert (one["class_id"], one["seen_class"]) == (1, 2)
        version = client.get(f"/api/images/{keys['s8']}")["version"]
        client.edit(keys["s8"], version, is_right)
        assert listed(client) == []


def test_trainings_that_cannot_judge_are_named(root: Path, bundle: Path) -> None:
    """A damaged one of a fold, and one without a dense head; another one is used in their place."""
    runs = root / "runs"
    shutil.copytree(bundle, runs / "points")
    torn = runs / "cv/fold-1/bundle.safetensors"
    torn.parent.mkdir(parents=True)
    content = (runs / "annotate-001/bundle.safetensors").read_bytes()
    torn.write_bytes(content[:-100])
    with served(root, bundle) as client:
        checked(client)
        assert client.get("/api/suspects")["images"] == 4
        named = "\n".join(client.get("/api/suspects")["left_out"])
        assert "runs/cv/fold-1/bundle.safetensors is damaged" in named
        assert "points has no dense head" in named


def test_without_a_training_that_can_judge_the_check_says_so(
    root: Path, bundle: Path
) -> None:
    """Also where every labelled image was in the training."""
    for number in range(5, 9):
        (root / f"masks/s{number}.png").unlink()
    rows = (root / "manifest.csv").read_text().splitlines()
    (root / "manifest.csv").write_text("\n".join(rows[:6]) + "\n")
    with served(root, bundle) as client:
        client.done("/api/suspects/check", {})
        state = ended(client)
        assert state["state"] == "failed"
        assert "learned from all 5 labelled images" in state["message"]
        shutil.rmtree(root / "runs")
        client.done("/api/suspects/check", {})
        assert "no training here can judge" in ended(client)["message"]


def test_a_damaged_list_is_named(root: Path, bundle: Path) -> None:
    """The page then says which file to remove."""
    file = root / ".simmat/annotate/suspects.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with served(root, bundle) as client:
        status, _, content = client.raw("GET", "/api/suspects")
        assert status == 422
        assert b"suspects.json" in content


@pytest.fixture
def opened(root: Path, bundle: Path) -> Iterator[tuple[Client, Tab]]:
    """A server of the damaged data set, and its page."""
    need_browser()
    damaged(root)
    with served(root, bundle) as client, browser() as new_tab:
        tab = new_tab()
        tab.goto(f"http://127.0.0.1:{client.port}/?token={TOKEN}")
        yield client, tab


@pytest.mark.slow
def test_suspected_labels_are_walked_through_in_the_page(
    opened: tuple[Client, Tab],
) -> None:
    """One is corrected by a key, one is right; the list follows, and undo brings the first one back."""
    client, tab = opened
    tab.press("j")
    until(lambda: "not checked yet" in tab.text("#messages"), "nothing to open")
    assert not tab.page.locator("#images").is_visible()
    tab.page.click("#check-labels")
    until(lambda: "2 suspects left" in tab.text("#check-text"), "it is checked")
    assert "5 images were not checked" in tab.text("#check-text")
    assert tab.text("#list-suspects") == "Suspected 2"
    tab.press("j")
    until(lambda: tab.text("#image-name") == "s5", "the first one is open")
    until(lambda: tab.state()["walk"] == [0, 1], "what the model sees is suggested")
    assert "Enter adds it" in tab.text("#prompt")
    tab.saves("Enter")
    until(lambda: tab.text("#list-suspects") == "Suspected 1", "it has left the list")
    tab.press("j")
    until(lambda: tab.state()["selected"] == 2, "the shifted label is selected")
    assert tab.text("#image-name") == "s6"
    assert "A border beside the object?" in tab.text("#prompt")
    tab.press("y")
    until(lambda: tab.text("#list-suspects") == "Suspected", "no other one is left")
    assert [one["right"] for one in listed(client)] == [True]
    tab.page.click('#suspects button[aria-pressed="true"]')
    until(lambda: tab.text("#list-suspects") == "Suspected 1", "it is not right")
    tab.page.click("#list-images")
    tab.open("s5")
    tab.saves("Control+z")
    until(lambda: tab.text("#list-suspects") == "Suspected 2", "both are suspected")
    tab.press("j")
    until(lambda: tab.state()["walk"] == [0, 1], "what the model sees is suggested")
    tab.press("n")
    until(lambda: tab.text("#list-suspects") == "Suspected 1", "there is no object")


@pytest.mark.slow
def test_what_is_being_drawn_comes_before_a_suspect(opened: tuple[Client, Tab]) -> None:
    """Nothing of it is lost; and a check that cannot be made is a message."""
    client, tab = opened
    checked(client)
    until(lambda: tab.text("#list-suspects") == "Suspected 2", "the page has the list")
    name = tab.text("#image-name")
    tab.click(20, 20)
    tab.press("j")
    until(lambda: "not saved yet" in tab.text("#messages"), "the page says so")
    assert tab.state()["draft"]
    assert tab.text("#image-name") == name
