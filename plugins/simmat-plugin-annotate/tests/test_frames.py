"""Sequences in the annotator: what is followed is on disk as one object, and what a person has drawn stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_server import Client, served, square
from PIL import Image

from simmat.io.images import write_image
from simmat.predictor import FollowedFrame, Predictor

SIZE = (40, 56)
COUNT = 6


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    """A folder with a sequence of six frames."""
    for number in range(COUNT):
        write_image(
            tmp_path / f"set/frames/walk/f{number}.png",
            np.full((1, *SIZE), 60 + number, np.uint8),
        )
    return tmp_path / "set"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, dict[int, np.ndarray]]]:
    """The masks of each call of `Predictor.follow`, which moves objects by a pixel a frame; id 9 is lost at frame 2."""
    calls: list[dict[int, dict[int, np.ndarray]]] = []

    def follow(
        self: Predictor,
        frames: Any,
        masks: Any,
        *,
        progress: Callable[[int, int], None],
    ) -> Iterator[Any]:
        calls.append(masks)
        known: dict[int, np.ndarray] = {}
        for index, frame in enumerate(frames):
            assert frame.size_hw == SIZE
            known = {
                one: np.roll(mask, 1, 1) & (one != 9 or index < 2)
                for one, mask in known.items()
            }
            known |= masks.get(index, {})
            progress(index, len(frames))
            yield FollowedFrame(
                index, dict(known), dict.fromkeys(known, 0.9 - 0.1 * index)
            )

    monkeypatch.setattr(Predictor, "follow", follow)
    return calls


def followed(client: Client, key: str, count: int, *objects: int) -> dict[str, Any]:
    """Follow the objects of a frame, and wait until it has ended."""
    client.done(
        f"/api/images/{key}/follow", {"frames": count, "objects": list(objects)}
    )
    for _ in range(600):
        state: dict[str, Any] = client.get("/api/session")["following"]
        if state["state"] != "running":
            return state
        time.sleep(0.05)
    raise AssertionError("following does not end")


def values(root: Path, frame: int) -> dict[int, int]:
    """Label value -> first column with it, of the mask of a frame."""
    mask = np.asarray(Image.open(root / f"masks/walk/f{frame}.png"))
    return {
        int(value): int(np.argwhere(mask == value)[:, 1].min())
        for value in np.unique(mask)
        if value
    }


def frames(client: Client) -> list[dict[str, Any]]:
    """The list of images."""
    found: list[dict[str, Any]] = client.get("/api/images")["images"]
    return found


def version(client: Client, key: str) -> int:
    return int(client.get(f"/api/images/{key}")["version"])


def test_an_object_is_followed_to_the_next_frames_with_its_id(
    walk: Path, bundle: Path, given: list[Any]
) -> None:
    """Each frame is on disk as training reads it, says how sure it is, and can be undone; a restart knows all."""
    with served(walk, bundle) as client:
        keys = [one["key"] for one in frames(client)]
        client.edit(
            keys[1],
            0,
            {"op": "add", "mask": square(4, 4, 9, 9)},
            {"op": "add", "mask": square(20, 4, 25, 9)},
        )
        assert followed(client, keys[1], 3)["done"] == 3
        assert [values(walk, frame) for frame in (1, 2, 3, 4)] == [
            {1: 4 + n, 2: 20 + n} for n in range(4)
        ]
        assert not (walk / "masks/walk/f5.png").exists()
        assert followed(client, keys[1], -5, 2)["done"] == 1
        assert values(walk, 0) == {2: 21}
        listed = frames(client)
        assert [one.get("followed") for one in listed] == [1, 0, 2, 2, 2, None]
        assert [one.get("score") for one in listed[1:4]] == [
            None,
            pytest.approx(0.8),
            pytest.approx(0.7),
        ]
        client.done(
            f"/api/images/{keys[4]}/undo", {"version": version(client, keys[4])}
        )
        assert not (walk / "masks/walk/f4.png").exists()
    with served(walk, bundle) as client:
        assert [one.get("followed") for one in frames(client)] == [1, 0, 2, 2, 0, None]
        assert client.get(f"/api/images/{keys[2]}")["objects"][0][
            "score"
        ] == pytest.approx(0.8)


def test_what_a_person_has_drawn_is_kept_and_followed_from(
    walk: Path, bundle: Path, given: list[Any]
) -> None:
    """A corrected frame is a keyframe: following is given it, and changes nothing in it; a removed object is absent."""
    with served(walk, bundle) as client:
        keys = [one["key"] for one in frames(client)]
        client.edit(
            keys[0],
            0,
            {"op": "add", "mask": square(4, 4, 9, 9)},
            {"op": "add", "mask": square(20, 4, 25, 9)},
        )
        followed(client, keys[0], 5)
        client.edit(
            keys[2],
            version(client, keys[2]),
            {"op": "replace", "id": 1, "mask": square(30, 20, 35, 25)},
        )
        client.edit(keys[3], version(client, keys[3]), {"op": "remove", "id": 2})
        followed(client, keys[0], 5)
        assert {place: sorted(masks) for place, masks in given[-1].items()} == {
            0: [1, 2],
            2: [1],
            3: [2],
        }
        assert given[-1][2][1][20:25, 30:35].all()
        assert not given[-1][3][2].any()
        assert [values(walk, frame) for frame in (2, 3, 4)] == [
            {1: 30, 2: 22},
            {1: 31},
            {1: 32},
        ]
        client.done(
            f"/api/images/{keys[4]}/done",
            {"version": version(client, keys[4]), "done": True},
        )
        before = (walk / "masks/walk/f4.png").read_bytes()
        followed(client, keys[3], 2)
        assert (walk / "masks/walk/f4.png").read_bytes() == before
        assert sorted(given[-1][1]) == [1, 2]


def test_accepted_frames_are_keyframes_and_unsure_ones_stay(
    walk: Path, bundle: Path, given: list[Any]
) -> None:
    """A key accepts a frame, or all whose lowest score is at the limit; of one that was accepted nothing is redone."""
    with served(walk, bundle) as client:
        keys = [one["key"] for one in frames(client)]
        client.edit(keys[0], 0, {"op": "add", "mask": square(4, 4, 9, 9)})
        followed(client, keys[0], 5)
        assert client.done(f"/api/images/{keys[0]}/accept", {"score": 0.65}) == {
            "frames": 2
        }
        assert [one["followed"] for one in frames(client)] == [0, 0, 0, 1, 1, 1]
        answer = client.edit(keys[4], version(client, keys[4]), {"op": "accept"})
        assert answer["changed"][0]["score"] is None
        followed(client, keys[0], 5)
        assert sorted(given[-1]) == [0, 1, 2, 4]


def test_an_object_that_is_lost_is_shown_once_and_looked_for_again(
    walk: Path, bundle: Path, given: list[Any]
) -> None:
    """A person draws it again as the same object, or accepts that it is gone."""
    with served(walk, bundle, {"regions": "instances"}) as client:
        keys = [one["key"] for one in frames(client)]
        write_image(
            walk / "masks/walk/f0.png",
            np.pad(np.full((1, 5, 5), 9, np.uint8), ((0, 0), (4, 31), (4, 47))),
        )
        client.get(f"/api/images/{keys[0]}")
        followed(client, keys[0], 3)
        assert [one.get("score") for one in frames(client)][1:4] == [
            pytest.approx(0.8),
            0.0,
            None,
        ]
        assert client.get(f"/api/images/{keys[2]}")["lost"] == [9]
        assert client.get(f"/api/images/{keys[3]}")["tracks"] == [[9, None]]
        followed(client, keys[2], 1)
        assert {place: sorted(masks) for place, masks in given[-1].items()} == {
            0: [9],
            1: [],
        }
        client.edit(
            keys[2],
            version(client, keys[2]),
            {"op": "add", "id": 9, "mask": square(8, 8, 12, 12)},
        )
        assert values(walk, 2) == {9: 8}
        assert (
            client.post(
                f"/api/images/{keys[4]}/edits",
                {
                    "version": 0,
                    "edits": [{"op": "add", "id": 7, "mask": square(8, 8, 12, 12)}],
                },
            )[0]
            == 422
        )
        client.done(
            f"/api/images/{keys[2]}/undo", {"version": version(client, keys[2])}
        )
        followed(client, keys[0], 3)
        client.edit(keys[2], version(client, keys[2]), {"op": "accept"})
        status, answer = client.post(f"/api/images/{keys[5]}/follow", {"frames": 1})
        assert (status, "last one" in answer["error"]["message"]) == (422, True)
        followed(client, keys[2], 2)
        assert len(given) == 3  # there is nothing left to look for


def test_a_class_is_that_of_the_object_in_all_frames(
    walk: Path, bundle: Path, given: list[Any]
) -> None:
    """And so is its label value, of which the number is that of no other object of the sequence."""
    with served(walk, bundle) as client:
        keys = [one["key"] for one in frames(client)]
        classes = [{"id": None, "name": name} for name in ("cow", "dog")]
        client.done("/api/classes", {"classes": classes})
        add = {"op": "add", "class": 1}
        client.edit(
            keys[0],
            0,
            add | {"mask": square(4, 4, 9, 9)},
            add | {"mask": square(20, 4, 25, 9)},
        )
        followed(client, keys[0], 2)
        client.edit(
            keys[1], version(client, keys[1]), {"op": "class", "id": 2, "class": 2}
        )
        assert [sorted(values(walk, frame)) for frame in range(3)] == [[1001, 2002]] * 3
        client.done(
            f"/api/images/{keys[1]}/undo", {"version": version(client, keys[1])}
        )
        assert [sorted(values(walk, frame)) for frame in range(3)] == [[1001, 1002]] * 3
        assert client.edit(
            keys[5], 0, {"op": "add", "class": 2, "mask": square(4, 4, 9, 9)}
        )["added"] == [3]
        mask = np.zeros((1, *SIZE), np.uint16)
        mask[0, 3:6, 3:6] = 1002  # another program moves object 2
        write_image(walk / "masks/walk/f2.png", mask)
        assert [
            one["id"] for one in client.get(f"/api/images/{keys[2]}")["objects"]
        ] == [2]


def test_a_stopped_run_keeps_the_frames_that_it_has_filled(
    walk: Path, bundle: Path, given: list[Any]
) -> None:
    """The person stops it as soon as it goes wrong; a second one is refused meanwhile."""
    with served(walk, bundle) as client, pytest.MonkeyPatch.context() as patch:
        keys = [one["key"] for one in frames(client)]
        client.edit(keys[0], 0, {"op": "add", "mask": square(4, 4, 9, 9)})
        move = Predictor.follow

        def slowly(*args: Any, **named: Any) -> Iterator[Any]:
            for found in move(*args, **named):
                yield found
                if found.index == 2:
                    status, answer = client.post(
                        f"/api/images/{keys[0]}/follow", {"frames": 5}
                    )
                    assert (status, answer["error"]["code"]) == (409, "busy")
                    client.done("/api/follow/stop", {})

        patch.setattr(Predictor, "follow", slowly)
        state = followed(client, keys[0], 5)
        assert (state["state"], state["done"]) == ("stopped", 2)
        assert [path.name for path in sorted((walk / "masks/walk").iterdir())] == [
            "f0.png",
            "f1.png",
            "f2.png",
        ]


def test_the_frames_of_one_file_are_labelled_as_images(
    tmp_path: Path, bundle: Path, given: list[Any]
) -> None:
    """A multi-page TIFF, or an npy (T, C, H, W): a mask for each frame beside it."""
    import tifffile

    root = tmp_path / "set"
    (root / "frames").mkdir(parents=True)
    stack = np.random.default_rng(0).integers(0, 200, (3, *SIZE)).astype(np.uint8)
    tifffile.imwrite(root / "frames/night.tif", stack, photometric="minisblack")
    np.save(root / "frames/tank.npy", stack[:, None])
    with served(root, bundle) as client:
        keys = client.keys()
        for name in ("night", "tank"):
            client.edit(
                keys[f"{name}/0000"], 0, {"op": "add", "mask": square(4, 4, 9, 9)}
            )
            assert followed(client, keys[f"{name}/0000"], 9)["done"] == 2
            assert (
                np.asarray(Image.open(root / f"masks/{name}/0002.png")) == 1
            ).sum() == 25


def test_more_like_the_chosen_objects_is_found_in_other_images(
    walk: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of their kind is not looked at, other classes are background; what is found has the class."""
    shown: list[Any] = []
    reference = Predictor.reference

    def spied(self: Predictor, images: Any, **given: Any) -> Any:
        shown.append(images[0][1])
        return reference(self, images, **given)

    monkeypatch.setattr(Predictor, "reference", spied)
    image = np.random.default_rng(0).integers(20, 30, (1, *SIZE)).astype(np.uint8)
    image[0, 8:20, 8:20] = image[0, 8:20, 34:46] = 220
    write_image(walk / "frames/walk/f0.png", image)
    write_image(walk / "frames/walk/f1.png", image)
    with served(walk, bundle) as client:
        keys = [one["key"] for one in frames(client)]
        client.done(
            "/api/classes",
            {"classes": [{"id": None, "name": name} for name in ("cow", "dog")]},
        )
        objects = [(2, (8, 8, 20, 20)), (2, (0, 30, 5, 35)), (1, (50, 0, 54, 4))]
        edits = [
            {"op": "add", "class": one, "mask": square(*box)} for one, box in objects
        ]
        client.edit(keys[0], 0, *edits)
        asked = f"suggestions?like={keys[0]}&objects=1"
        found = client.get(f"/api/images/{keys[1]}/{asked}")["objects"]
        assert found
        assert {one["class"] for one in found} == {2}
        mask = shown[0]
        assert (mask[10, 10] > 0, mask[32, 2], mask[2, 52], mask[0, 0]) == (
            True,
            -1,
            0,
            0,
        )
        client.get(f"/api/images/{keys[2]}/{asked}")
        assert len(shown) == 1  # the same reference
        client.get(f"/api/images/{keys[1]}/suggestions?like={keys[0]}")
        assert len(np.unique(shown[1])) == 3
        assert (
            client.raw(
                "GET", f"/api/images/{keys[1]}/suggestions?like={keys[0]}&objects=8"
            )[0]
            == 422
        )
