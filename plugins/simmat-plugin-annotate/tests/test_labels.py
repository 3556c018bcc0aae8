"""What a user accepts is on disk as SimMAT reads it, can be undone to the beginning, and outlives everything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from annotate_server import Client, filled, gray_images, served, square
from PIL import Image
from runs import registry

from simmat.data.dataset import open_dataset

SIZE = (40, 56)


def on_disk(root: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(root / f"masks/{name}.png"))


def shown(client: Client, key: str) -> np.ndarray:
    plane = np.zeros(SIZE, int)
    for one in client.get(f"/api/images/{key}")["objects"]:
        plane[filled(one["mask"], SIZE)] = one["id"]
    return plane


def test_an_accepted_mask_is_on_disk_as_it_is_shown(client: Client, root: Path) -> None:
    """The answer comes after the file; the second object gets what the first one leaves."""
    key = client.keys()["s1"]
    change = client.edit(key, 0, {"op": "add", "mask": square(5, 5, 15, 15)})
    assert (change["version"], change["added"], change["undo"]) == (1, [1], 1)
    change = client.edit(key, 1, {"op": "add", "mask": square(10, 5, 20, 15)})
    assert change["changed"][0]["mask"]["box"] == [15, 5, 20, 15]
    mask = on_disk(root, "s1")
    assert [(mask == value).sum() for value in (1, 2)] == [100, 50]
    np.testing.assert_array_equal(mask, shown(client, key))
    assert not list((root / "masks").glob(".*"))
    assert "instances" in (root / "card.toml").read_text()


def test_a_brush_may_take_from_others(client: Client, root: Path) -> None:
    """Its pixels are what the user wants, whoever had them; an object without any is gone."""
    key = client.keys()["s0"]
    client.edit(
        key,
        0,
        {"op": "add", "mask": square(0, 0, 10, 10)},
        {"op": "add", "mask": square(20, 0, 22, 2)},
    )
    change = client.edit(
        key,
        1,
        {"op": "replace", "id": 1, "mask": square(5, 0, 30, 10), "overlap": "take"},
    )
    assert change["removed"] == [2]
    assert (on_disk(root, "s0") == 1).sum() == 250


def test_all_steps_can_be_undone_after_a_restart(root: Path, bundle: Path) -> None:
    """The history is beside the masks, not in the page or the process."""
    with served(root, bundle) as client:
        key = client.keys()["s0"]
        client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})
        client.edit(key, 1, {"op": "add", "mask": square(8, 8, 12, 12)})
        client.edit(key, 2, {"op": "remove", "id": 1})
        client.done(f"/api/images/{key}/undo", {"version": 3})
    with served(root, bundle) as client:
        listed = client.get("/api/images")["images"][0]
        assert (listed["objects"], listed["version"], listed["labelled"]) == (
            2,
            4,
            True,
        )
        image = client.get(f"/api/images/{key}")
        assert [one["id"] for one in image["objects"]] == [1, 2]
        assert (image["version"], image["undo"], image["redo"]) == (4, 2, 1)
        redone = client.done(f"/api/images/{key}/redo", {"version": 4})
        assert redone["removed"] == [1]
        for version in (5, 6, 7):
            client.done(f"/api/images/{key}/undo", {"version": version})
        # as it was: not looked at, not empty
        assert not (root / "masks/s0.png").exists()
        status, answer = client.post(f"/api/images/{key}/undo", {"version": 8})
        assert (status, answer["error"]["code"]) == (422, "data")


def test_a_second_tab_never_overwrites_silently(client: Client) -> None:
    """It is told, with the labels as they are."""
    key = client.keys()["s0"]
    client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})
    body = {"version": 0, "edits": [{"op": "add", "mask": square(8, 8, 12, 12)}]}
    status, answer = client.post(f"/api/images/{key}/edits", body)
    assert (status, answer["error"]["code"]) == (409, "stale")
    assert answer["state"]["version"] == 1
    assert len(answer["state"]["objects"]) == 1


def test_labels_that_were_there_are_kept(root: Path, bundle: Path) -> None:
    """Their values stay what they were, and what another program writes is a step that can be undone."""
    mask = np.zeros(SIZE, np.uint8)
    mask[2:6, 2:6], mask[20:25, 30:40] = 7, 3
    (root / "masks").mkdir()
    Image.fromarray(mask).save(root / "masks/s2.png")
    (root / "card.toml").write_text('regions = "instances"\nmin_region = 20\n')
    with served(root, bundle) as client:
        key = client.keys()["s2"]
        assert {one["id"] for one in client.get(f"/api/images/{key}")["objects"]} == {
            3,
            7,
        }
        client.edit(key, 0, {"op": "add", "mask": square(50, 0, 54, 4)})
        assert (
            on_disk(root, "s2")
            == np.where(np.arange(56) >= 50, (np.arange(40) < 4)[:, None] * 8, 0)[
                :, :56
            ]
        )[:4, 50:54].all()
        np.testing.assert_array_equal(
            np.where(on_disk(root, "s2") == 8, 0, on_disk(root, "s2")), mask
        )
        Image.fromarray(np.where(mask == 7, mask, 0).astype(np.uint8)).save(
            root / "masks/s2.png"
        )
        image = client.get(f"/api/images/{key}")
        assert [one["id"] for one in image["objects"]] == [7]
        client.done(f"/api/images/{key}/undo", {"version": image["version"]})
        assert {3, 7, 8} == {int(value) for value in np.unique(on_disk(root, "s2"))} - {
            0
        }


def test_a_mask_that_a_crash_left_behind_is_written_at_the_next_start(
    root: Path, bundle: Path
) -> None:
    """Killed between journal and mask: the journal is ahead, and the accepted mask is not lost."""
    with served(root, bundle) as client:
        key = client.keys()["s0"]
        client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})
        before = (root / "masks/s0.png").read_bytes()
        client.edit(key, 1, {"op": "add", "mask": square(8, 8, 12, 12)})
    (root / "masks/s0.png").write_bytes(before)
    journal = root / f".simmat/annotate/journal/{key}.jsonl"
    journal.write_text(journal.read_text() + '{"kind": "edit", "vers')
    with served(root, bundle) as client:
        assert set(np.unique(on_disk(root, "s0"))) == {0, 1, 2}
        assert client.get(f"/api/images/{key}")["version"] == 2


def test_with_the_first_class_masks_hold_classes(root: Path, bundle: Path) -> None:
    """`simmat train` then learns them; objects of one class that touch stay two."""
    with served(root, bundle) as client:
        keys = client.keys()
        client.edit(
            keys["s0"],
            0,
            {"op": "add", "mask": square(0, 0, 4, 4)},
            {"op": "add", "mask": square(4, 0, 8, 4)},
        )
        client.edit(keys["s1"], 0, {"op": "add", "mask": square(0, 0, 4, 4)})
        client.done(
            f"/api/images/{keys['s2']}/done",
            {"version": 0, "done": True, "empty": True},
        )
        items = [
            {"id": None, "name": "cell"},
            {"id": None, "name": "débris", "colour": "#010203"},
        ]
        classes = client.done("/api/classes", {"classes": items})["classes"]
        assert [(one["id"], one["name"]) for one in classes] == [
            (1, "cell"),
            (2, "débris"),
        ]
        client.edit(keys["s1"], 1, {"op": "class", "id": 1, "class": 2})
        assert set(np.unique(on_disk(root, "s0"))) == {0, 1001, 1002}
        assert client.get("/api/session")["regions"] == "panoptic"
        status, answer = client.post(
            "/api/classes", {"classes": [{"id": 1, "name": "cell"}]}
        )
        assert (status, answer["error"]["code"]) == (422, "data")
    data = open_dataset(root, registry().modality("gray"))
    labels = {sample.id: data.label(sample) for sample in data.samples}
    assert [region.class_id for region in labels["s0"].regions] == [1, 1]
    assert [region.class_id for region in labels["s1"].regions] == [2]
    assert labels["s2"].regions == ()
    assert dict(data.class_names) == {1: "cell", 2: "débris"}
    with served(root, bundle) as client:
        assert [one["id"] for one in client.get("/api/session")["classes"]] == [1, 2]
        client.done(f"/api/images/{keys['s0']}/undo", {"version": 1})


def test_done_leaves_an_empty_mask_only_where_the_user_says_that_nothing_is_there(
    client: Client, root: Path
) -> None:
    """A training takes it as a fact; an object that is deleted from an image that was done is no such word."""
    key = client.keys()["s0"]
    status, answer = client.post(
        f"/api/images/{key}/done", {"version": 0, "done": True}
    )
    assert (status, answer["error"]["code"]) == (422, "data")
    client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})
    assert client.done(f"/api/images/{key}/done", {"version": 1, "done": True})["done"]
    assert not client.edit(key, 2, {"op": "remove", "id": 1})["done"]
    assert not (root / "masks/s0.png").exists()
    client.done(f"/api/images/{key}/done", {"version": 3, "done": True, "empty": True})
    assert not on_disk(root, "s0").any()


def test_an_image_that_cannot_be_read_is_marked_in_the_list(
    root: Path, bundle: Path
) -> None:
    """So that the page can skip it; a file of another kind beside the images is passed over."""
    (root / "images/s1.png").write_bytes(b"not a picture")
    (root / "images/notes.txt").write_text("taken on Monday")
    with served(root, bundle) as client:
        key = client.keys()["s1"]
        status, _, _ = client.raw("GET", f"/api/images/{key}")
        problems = {
            image["name"]: image["problem"]
            for image in client.get("/api/images")["images"]
        }
        assert (status, problems["s0"], "s1.png" in problems["s1"]) == (422, "", True)


def test_a_manifest_learns_of_new_masks(root: Path, bundle: Path) -> None:
    """An image without a mask has an empty cell there."""
    lines = [
        "id,split,image,mask",
        *(
            f"s{n},{split},images/s{n}.png,"
            for n, split in enumerate(("train", "val", "test"))
        ),
    ]
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    with served(root, bundle) as client:
        key = client.keys()["s1"]
        client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})
        assert (
            "s1,val,images/s1.png,masks/s1.png" in (root / "manifest.csv").read_text()
        )
        client.done(f"/api/images/{key}/undo", {"version": 1})
        assert "s1,val,images/s1.png,\n" in (root / "manifest.csv").read_text()


def test_the_largest_image_of_a_folder_is_written_a_moment_later(
    root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has the edit at once; the mask file of a scene takes seconds."""
    from simmat_plugin_annotate import annotator, labels

    monkeypatch.setattr(labels, "AT_ONCE_PX", 100)
    monkeypatch.setattr(annotator, "FLUSH_INTERVAL_S", 3600)
    with served(root, bundle) as client:
        key = client.keys()["s0"]
        assert client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})[
            "labelled"
        ]
        assert not (root / "masks/s0.png").exists()
        journal = root / f".simmat/annotate/journal/{key}.jsonl"
        assert json.loads(journal.read_text().splitlines()[-1])["sha256"] == ""
    assert (on_disk(root, "s0") == 1).sum() == 16


def test_names_that_are_not_utf8_are_labelled_too(tmp_path: Path, bundle: Path) -> None:
    """As cameras and old archives give them."""
    root = gray_images(tmp_path / "set", count=1)
    odd = os.fsdecode(b"b\xe4r")
    try:
        (root / "images/s0.png").rename(root / f"images/{odd}.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with served(root, bundle) as client:
        key = client.keys()[odd]
        client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})
    assert (root / f"masks/{odd}.png").exists()
