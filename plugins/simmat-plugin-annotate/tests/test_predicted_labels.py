"""What a model found is marked in the data set, until a person has drawn, clicked or confirmed it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_server import Client, gray_images, served, square
from annotate_server import make_annotator as annotator_of
from PIL import Image
from simmat_plugin_annotate import labels
from simmat_plugin_annotate.drafts import Draft, as_predicted, is_predicted
from simmat_plugin_annotate.folder import LabelFolder
from simmat_plugin_annotate.masks import Followed
from simmat_plugin_annotate.state import locked_folder

from simmat.data.dataset import open_dataset
from simmat.data.instances import Instance
from simmat.data.predicted import read_predicted, write_predicted
from simmat.data.samples import write_splits
from simmat.errors import DataError, OutputError
from simmat.sensors.builtin import Gray
from simmat.types import Window

FIRST, SECOND = square(10, 8, 20, 20), square(30, 8, 40, 20)


def found(mask: dict[str, list[int]]) -> dict[str, Any]:
    """The edit that accepts what a model found."""
    return {"op": "add", "mask": mask, "predicted": True}


def drawn(mask: dict[str, list[int]]) -> dict[str, Any]:
    """The edit that accepts what a person has clicked."""
    return {"op": "add", "mask": mask}


def of_model(client: Client, name: str = "s0") -> Any:
    """What the list of images says of one."""
    listed = client.get("/api/images")["images"]
    return next(one["of_model"] for one in listed if one["name"] == name)


def step(client: Client, kind: str, version: int) -> int:
    """Undo or redo in s0; return the new version."""
    key = client.keys()["s0"]
    return int(
        client.done(f"/api/images/{key}/{kind}", {"version": version})["version"]
    )


def test_accepting_marks_and_drawing_anew_takes_the_mark_away(
    root: Path, client: Client
) -> None:
    """An image is marked as long as one object of it came from a model untouched."""
    key = client.keys()["s0"]
    document = client.edit(key, 0, found(FIRST), found(SECOND))
    assert [one["predicted"] for one in document["changed"]] == [True, True]
    assert read_predicted(root) == {"s0"}
    assert of_model(client) == 2
    again = {"op": "replace", "id": 1, "mask": square(10, 8, 21, 20)}
    document = client.edit(key, document["version"], again)
    assert [one["predicted"] for one in document["changed"]] == [False]
    assert read_predicted(root) == {"s0"}
    assert of_model(client) == 1
    client.edit(key, document["version"], {"op": "remove", "id": 2})
    assert read_predicted(root) == set()
    assert not (root / "predicted.csv").exists()
    assert of_model(client) == 0


def test_a_class_a_neighbour_cleaning_or_done_does_not_take_the_mark_away(
    root: Path, client: Client
) -> None:
    """The outline is still the model's, whose specks nobody has looked at."""
    key = client.keys()["s0"]
    version = client.edit(key, 0, found(FIRST))["version"]
    cleaned = {"op": "replace", "id": 1, "mask": square(10, 8, 19, 20)}
    client.edit(key, version, {**cleaned, "predicted": True})
    classes = [{"id": None, "name": "udder", "colour": None}]
    client.done("/api/classes", {"classes": classes})
    image = client.get(f"/api/images/{key}")
    version = image["version"]
    other = {"op": "add", "mask": square(18, 8, 30, 20), "overlap": "take", "class": 1}
    version = client.edit(key, version, other)["version"]
    client.done(f"/api/images/{key}/done", {"version": version, "done": True})
    assert read_predicted(root) == {"s0"}
    assert of_model(client) == 1


def test_confirming_takes_the_mark_away(root: Path, client: Client) -> None:
    """Of one object, or of all of them."""
    key = client.keys()["s0"]
    three = square(45, 8, 50, 20)
    version = client.edit(key, 0, found(FIRST), found(SECOND), found(three))["version"]
    version = client.edit(key, version, {"op": "confirm", "ids": [2]})["version"]
    assert of_model(client) == 2
    client.edit(key, version, {"op": "confirm"})
    assert of_model(client) == 0
    assert read_predicted(root) == set()
    status, answer = client.post(
        f"/api/images/{key}/edits",
        {"version": version + 1, "edits": [{"op": "confirm", "ids": [9]}]},
    )
    assert (status, "no object 9" in answer["error"]["message"]) == (422, True)


def test_undo_and_redo_move_the_mark(root: Path, client: Client) -> None:
    """The mark is of the labels as they are now."""
    key = client.keys()["s0"]
    version = client.edit(key, 0, drawn(FIRST))["version"]
    version = client.edit(key, version, found(SECOND))["version"]
    version = client.edit(key, version, {"op": "confirm"})["version"]
    seen = [of_model(client)]
    marks = [bool(read_predicted(root))]
    for kind in ("undo", "undo", "redo", "redo"):
        version = step(client, kind, version)
        seen.append(of_model(client))
        marks.append(bool(read_predicted(root)))
    assert seen == [0, 1, 0, 1, 0]
    assert marks == [False, True, False, True, False]


def test_masks_that_the_data_set_lists_are_marked(root: Path, bundle: Path) -> None:
    """Those of `simmat data convert`, or of a script; whoever takes an id out of the list has looked at it."""
    (root / "masks").mkdir()
    for name in ("s0", "s1"):
        plane = np.zeros((40, 56), np.uint8)
        plane[8:20, 10:20] = 1
        Image.fromarray(plane).save(root / f"masks/{name}.png")
    (root / "card.toml").write_text('format = 1\nregions = "instances"\n')
    write_predicted(root, {"s0"})
    with served(root, bundle) as client:
        key = client.keys()["s0"]
        assert of_model(client) is None
        assert of_model(client, "s1") == 0
        assert client.get(f"/api/images/{key}")["objects"][0]["predicted"]
        version = client.edit(key, 0, drawn(SECOND))["version"]
        assert read_predicted(root) == {"s0"}
        assert of_model(client) == 1
    write_predicted(root, set())
    with served(root, bundle) as client:
        objects = client.get(f"/api/images/{key}")["objects"]
        assert [one["predicted"] for one in objects] == [False, False]
    write_predicted(root, {"s0"})
    with served(root, bundle) as client:
        objects = client.get(f"/api/images/{key}")["objects"]
        assert [one["predicted"] for one in objects] == [True, False]
        assert of_model(client) == 1
        version = client.get(f"/api/images/{key}")["version"]
        client.edit(key, version, {"op": "confirm"})
    assert read_predicted(root) == set()


def test_another_programs_mask_keeps_the_marks_of_what_it_left(
    root: Path, client: Client
) -> None:
    """What it changed in a listed image is taken for a model's, as nobody says that a person drew it."""
    key = client.keys()["s0"]
    client.edit(key, 0, drawn(FIRST), found(SECOND))
    plane = np.array(Image.open(root / "masks/s0.png"))
    plane[30:35, 30:35] = 3
    Image.fromarray(plane).save(root / "masks/s0.png")
    objects = client.get(f"/api/images/{key}")["objects"]
    assert [one["predicted"] for one in objects] == [False, True, True]


def test_the_mark_is_on_disk_before_the_mask(
    root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, or with a full disk: no prediction counts as drawn by a person."""

    def fails(self: LabelFolder, name: str, *, predicted: bool) -> None:
        raise OutputError("the disk is full")

    with served(root, bundle) as client:
        key = client.keys()["s0"]
        with monkeypatch.context() as patch:
            patch.setattr(LabelFolder, "write_mark", fails)
            client.edit(key, 0, found(FIRST))
            assert not list((root / "masks").glob("*.png"))
    assert read_predicted(root) == {"s0"}
    assert (root / "masks/s0.png").exists()


def test_a_kill_between_mark_and_mask_is_repaired(root: Path, bundle: Path) -> None:
    """The journal has the object, so the next start writes mark and mask."""
    process = os.fork()
    if process == 0:

        def killed(*_: Any, **__: Any) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

        with locked_folder(root):
            annotator = annotator_of(root, bundle)
            (key, *_) = annotator.folder.images
            labels.atomic_path = killed  # type: ignore[attr-defined]
            image = annotator.folder.labels(key)
            mask = labels.MaskDocument.model_validate(FIRST)
            image.edit(0, lambda draft: draft.add(mask, None, "keep", predicted=True))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    (name,) = read_predicted(root)
    assert not (root / "masks").exists() or not list((root / "masks").glob("s*"))
    with served(root, bundle) as client:
        assert of_model(client, name) == 1
    assert (root / f"masks/{name}.png").exists()
    assert read_predicted(root) == {name}


def test_a_link_as_the_list_is_refused(
    root: Path, bundle: Path, tmp_path: Path
) -> None:
    """It would be replaced, or followed out of the folder."""
    (tmp_path / "other.csv").write_text("id\n")
    (root / "predicted.csv").symlink_to(tmp_path / "other.csv")
    with pytest.raises(DataError, match=r"predicted\.csv"), served(root, bundle):
        pass


def test_followed_frames_are_marked_also_when_accepted(
    tmp_path: Path, bundle: Path
) -> None:
    """Accepting says that a frame is good enough, not that a person would have drawn it so."""
    mask = np.ones((4, 4), np.bool_)
    place = (None, Window(0, 0, 4, 4), mask)
    draft = Draft({1: Followed(*place, score=0.9), 2: Instance(*place)}, 3, (20, 20))
    draft.accept()
    assert [is_predicted(one) for one in draft.objects.values()] == [True, False]
    assert not isinstance(draft.objects[1], Followed)
    draft.confirm(())
    assert not any(map(is_predicted, draft.objects.values()))
    assert is_predicted(as_predicted(draft.objects[1]))


def test_fifteen_labels_and_fifteen_predictions(tmp_path: Path, bundle: Path) -> None:
    """The engineer's case: corrected predictions validate, and those accepted as they were do not."""
    root = gray_images(tmp_path / "set", count=30)
    with served(root, bundle) as client:
        keys = client.keys()
        for number in range(15):
            client.edit(keys[f"s{number}"], 0, drawn(FIRST))
        write_splits(root, open_dataset(root, Gray()).new_splits)
        for number in range(15, 30):
            key = keys[f"s{number}"]
            version = client.edit(key, 0, found(FIRST))["version"]
            if number < 20:
                moved = {"op": "replace", "id": 1, "mask": SECOND}
                client.edit(key, version, moved)
        listed = client.get("/api/train")["split"]
    dataset = open_dataset(root, Gray())
    used = {
        one.id: name for name in ("train", "val", "test") for one in dataset.split(name)
    }
    untouched = {f"s{number}" for number in range(20, 30)}
    assert read_predicted(root) == untouched
    assert {used[id] for id in untouched} == {"train"}
    assert Counter(used.values()) == listed
    assert len(used) == 30
    assert "Used for training: 10. Left out" in dataset.predicted_note
