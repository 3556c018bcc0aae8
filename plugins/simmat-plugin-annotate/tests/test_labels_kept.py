"""No label is lost: whatever fails, and whatever other programs write meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_server import gray_images
from PIL import Image
from runs import registry

from simmat.data.card import DataCard
from simmat.errors import DataError, OutputError

SIZE = (40, 56)
Add = Callable[[Any], None]


def add(x0: int, y0: int, x1: int, y1: int, class_id: int | None = None) -> Add:
    from simmat_plugin_annotate.masks import MaskDocument

    mask = MaskDocument(box=(x0, y0, x1, y1), runs=(0, (x1 - x0) * (y1 - y0)))
    return lambda draft: draft.add(mask, class_id, "keep")


def pixels(count: int) -> Add:
    """`count` objects of one pixel that do not touch."""
    places = [(x, y) for y in range(0, 80, 2) for x in range(0, 80, 2)][:count]
    edits = [add(x, y, x + 1, y + 1) for x, y in places]

    def all_of_them(draft: Any) -> None:
        for edit in edits:
            edit(draft)

    return all_of_them


def of_image(
    root: Path,
    mask: Path | None = None,
    card: DataCard | None = None,
    size: tuple[int, int] = SIZE,
    **more: Any,
) -> Any:
    from simmat_plugin_annotate.labels import LabelledImage
    from simmat_plugin_annotate.masks import Rule

    rule = Rule(card or DataCard(regions="instances"), 1)
    placed = more.get("placed", lambda path: None)
    mark = more.get("mark", Mark())
    return LabelledImage(
        size, lambda: rule, root / "journal.jsonl", mask, root / "mask", placed, mark
    )


@dataclass
class Mark:
    """What the data set says of an image: whether a model made its labels."""

    predicted: bool = False

    def is_set(self) -> bool:
        return self.predicted

    def set(self, *, predicted: bool) -> None:
        self.predicted = predicted


def save(path: Path, boxes: Sequence[tuple[int, int, int, int]]) -> Path:
    plane = np.zeros(SIZE, np.uint8)
    for value, (x0, y0, x1, y1) in enumerate(boxes, 1):
        plane[y0:y1, x0:x1] = value
    Image.fromarray(plane).save(path)
    return path


def values(path: Path) -> list[int]:
    return [int(value) for value in np.unique(np.asarray(Image.open(path)))]


THREE = [(0, 0, 4, 4), (10, 10, 14, 14), (20, 20, 24, 24)]


def test_a_mask_changed_elsewhere_before_the_first_edit_keeps_its_other_objects(
    tmp_path: Path,
) -> None:
    """What it held at first is in the journal before the change is, so a restart knows all of it."""
    mask = save(tmp_path / "mask.png", THREE)
    labels = of_image(tmp_path, mask)
    save(mask, [*THREE[:2], (20, 20, 26, 26)])
    labels.refresh()
    again = of_image(tmp_path, mask)
    assert len(again.objects) == 3
    again.edit(again.version, add(40, 0, 44, 4))
    assert len(values(mask)) == 5


def test_a_step_whose_mask_could_not_be_written_is_kept_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is the truth: memory, restart and mask say the same."""
    import os

    labels = of_image(tmp_path)
    mask = tmp_path / "mask.png"
    labels.edit(0, pixels(2))

    def full(*paths: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device", str(paths[-1]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        labels.edit(1, lambda draft: draft.remove(1))
        assert "No space left" in labels.problem
        assert values(mask) == [0, 1, 2]
        labels.edit(2, add(20, 0, 24, 4))
    assert sorted(labels.objects) == sorted(of_image(tmp_path, mask).objects) == [2, 3]
    labels.flush()
    assert (values(mask), labels.problem) == ([0, 2, 3], "")


def test_a_manifest_that_cannot_be_written_loses_no_step(tmp_path: Path) -> None:
    """The mask is there already; its own file is not taken for another program's."""
    failing = [True]

    def placed(path: Path | None) -> None:
        if failing[0]:
            raise OutputError("the manifest cannot be written")

    labels = of_image(tmp_path, placed=placed)
    labels.edit(0, add(0, 0, 4, 4))
    assert labels.unwritten
    failing[0] = False
    labels.edit(1, add(10, 0, 14, 4))
    assert (labels.version, labels.unwritten, values(tmp_path / "mask.png")) == (
        2,
        False,
        [0, 1, 2],
    )


def test_the_first_mask_is_written_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large image, killed before its first mask was written: the journal alone has it."""
    from simmat_plugin_annotate import labels as module

    monkeypatch.setattr(module, "AT_ONCE_PX", 1)
    of_image(tmp_path).edit(0, add(0, 0, 4, 4))
    assert not (tmp_path / "mask.png").exists()
    of_image(tmp_path)
    assert values(tmp_path / "mask.png") == [0, 1]


def test_a_mask_that_another_program_adds_is_taken_over(tmp_path: Path) -> None:
    """Not overwritten, and not left beside a second mask of the image."""
    from simmat_plugin_annotate.labels import StaleError

    labels = of_image(tmp_path)
    mask = save(tmp_path / "mask.png", THREE)
    with pytest.raises(StaleError):
        labels.edit(0, add(40, 0, 44, 4))
    labels.edit(labels.version, add(40, 0, 44, 4))
    assert values(mask) == [0, 1, 2, 3, 4]


def test_what_another_program_writes_before_a_mask_follows_is_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both can be had: its mask is on disk, and undo brings back the edit."""
    from simmat_plugin_annotate import labels as module

    monkeypatch.setattr(module, "AT_ONCE_PX", 1)
    mask = save(tmp_path / "mask.png", THREE)
    labels = of_image(tmp_path, mask)
    labels.edit(0, add(40, 0, 44, 4))
    save(mask, THREE[:2])
    labels.flush()
    assert (sorted(labels.objects), values(mask)) == ([1, 2], [0, 1, 2])
    labels.step(labels.version, "undo")
    assert sorted(labels.objects) == [1, 2, 3, 4]


def test_more_objects_than_a_mask_holds_are_refused_before_they_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large image, too: else nothing would be written any more, and the next start would fail."""
    from simmat_plugin_annotate import labels as module

    monkeypatch.setattr(module, "AT_ONCE_PX", 1)
    card = DataCard(regions="panoptic", class_names={1: "a"})
    labels = of_image(tmp_path, card=card, size=(80, 80))
    labels.edit(0, pixels(999))
    with pytest.raises(DataError, match="at most 999"):
        labels.edit(1, add(1, 1, 2, 2))
    labels.flush()
    assert len(of_image(tmp_path, tmp_path / "mask.png", card, (80, 80)).objects) == 999


@pytest.mark.parametrize(("regions", "ignore"), [("instances", 3), ("panoptic", 1003)])
def test_no_object_gets_the_value_of_no_ground_truth(
    tmp_path: Path, regions: Any, ignore: int
) -> None:
    """It is left out; the next object has the value after it."""
    labels = of_image(
        tmp_path, card=DataCard(regions=regions, ignore=ignore, class_names={1: "a"})
    )
    for number in range(4):
        labels.edit(number, add(5 * number, 0, 5 * number + 4, 4))
    assert values(tmp_path / "mask.png") == [
        0,
        *(ignore + step for step in (-2, -1, 1, 2)),
    ]


def folder_of(root: Path) -> Any:
    from simmat_plugin_annotate.folder import LabelFolder

    return LabelFolder(
        root, registry().modality("gray"), {"regions": None, "nodata": None}
    )


def test_a_first_class_that_an_image_cannot_take_changes_nothing(
    tmp_path: Path,
) -> None:
    """Not half of the masks."""
    root = gray_images(tmp_path / "set", size_hw=(80, 80))
    folder = folder_of(root)
    keys = list(folder.images)
    folder.labels(keys[0]).edit(0, add(0, 0, 4, 4))
    folder.labels(keys[1]).edit(0, pixels(1000))
    with pytest.raises(DataError, match=r"s1\.png.*at most 999"):
        folder.set_classes([(None, "cell", None)])
    assert (folder.card.regions, folder.state.classes) == ("instances", ())
    assert values(root / "masks/s0.png") == [0, 1]


def test_a_first_class_that_ends_half_way_is_finished_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks that were not opened yet are known by their journal, not by a card that is ahead of them."""
    from simmat_plugin_annotate.labels import LabelledImage

    root = gray_images(tmp_path / "set", size_hw=(80, 80))
    (root / "masks").mkdir()
    (root / "card.toml").write_text('regions = "instances"\n')
    for name in ("s0", "s1"):
        Image.fromarray(np.pad(np.full((4, 4), 1, np.uint8), (0, 76))).save(
            root / f"masks/{name}.png"
        )
    folder = folder_of(root)

    def full(self: Any) -> None:
        raise OutputError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LabelledImage, "rewrite", full)
        folder.set_classes([(None, "cell", None)])
    assert values(root / "masks/s0.png") == [0, 1]
    again = folder_of(root)
    again.recover()
    assert again.card.regions == "panoptic"
    for name, key in zip(("s0", "s1"), again.images, strict=False):
        assert values(root / f"masks/{name}.png") == [0, 1001]
        assert len(again.labels(key).objects) == 1


def test_one_bad_mask_does_not_keep_the_others_from_being_labelled(
    tmp_path: Path,
) -> None:
    """It is said; the image itself is refused when it is opened."""
    root = gray_images(tmp_path / "set", size_hw=(80, 80))
    folder = folder_of(root)
    keys = list(folder.images)
    folder.write_card()
    for key in keys[:2]:
        folder.labels(key).edit(0, add(0, 0, 4, 4))
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(root / "masks/s0.png")
    again = folder_of(root)
    again.recover()
    assert "s0.png" in again.notice
    assert len(again.labels(keys[1]).objects) == 1
    with pytest.raises(DataError, match=r"s0\.png"):
        again.labels(keys[0])


@pytest.mark.parametrize("asked", ["write_card", "add_found_class"])
def test_an_edit_never_asks_the_folder_while_it_holds_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """The folder asks images while it sets classes: the two would wait for each other for ever."""
    from annotate_server import served, square
    from simmat_plugin_annotate.folder import LabelFolder

    root = gray_images(tmp_path / "set")
    original, free = getattr(LabelFolder, asked), []

    def look(lock: Any) -> None:
        free.append(lock.acquire(timeout=0.2))
        if free[-1]:
            lock.release()

    def watched(self: LabelFolder, *given: Any) -> None:
        for labels in list(self._labels.values()):
            thread = threading.Thread(target=look, args=(labels.lock,))
            thread.start()
            thread.join()
        original(self, *given)

    with served(root) as client:
        key = client.keys()["s0"]
        client.get(f"/api/images/{key}")
        monkeypatch.setattr(LabelFolder, asked, watched)
        client.edit(key, 0, {"op": "add", "mask": square(0, 0, 4, 4)})
    assert free == [True]


def test_what_is_typed_into_the_card_meanwhile_stays(tmp_path: Path) -> None:
    """Only rule, classes and options of the sensor are the annotator's."""
    root = gray_images(tmp_path / "set", size_hw=(80, 80))
    folder = folder_of(root)
    folder.write_card()
    (root / "card.toml").write_text('regions = "instances"\nmin_region = 33\n')
    folder.set_classes([(None, "cell", None)])
    text = (root / "card.toml").read_text()
    assert "min_region = 33" in text
    assert "cell" in text


def test_a_name_of_the_background_is_not_a_class(tmp_path: Path) -> None:
    """It stays in the card, which says enough and is left as it is, with its comments and its order."""
    root = gray_images(tmp_path / "set", size_hw=(80, 80))
    text = (
        'regions = "panoptic"\n\n[class_names]\n0 = "background"\n1 = "cell"\n# ours\n'
    )
    (root / "card.toml").write_text(text)
    folder = folder_of(root)
    assert [one.id for one in folder.state.classes] == [1]
    folder.write_card()
    assert (root / "card.toml").read_text() == text


def test_a_class_id_is_never_given_again(tmp_path: Path) -> None:
    """Undo may bring back objects of a class that was removed; they are of no other one, after a restart neither."""
    folder = folder_of(gray_images(tmp_path / "set", size_hw=(80, 80)))
    folder.set_classes([(None, "cell", None), (None, "dust", None)])
    labels = folder.labels(next(iter(folder.images)))
    labels.edit(0, add(0, 0, 4, 4, 2))
    labels.edit(1, lambda draft: draft.set_class(1, 1))
    folder.set_classes([(1, "cell", None)])
    again = folder_of(folder.root)
    again.set_classes([(1, "cell", None), (None, "hair", None)])
    assert again.state.ids() == [1, 3]


def test_a_class_with_objects_of_images_that_are_not_in_memory_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their last step says which classes they have: no image is read for it."""
    folder = folder_of(gray_images(tmp_path / "set", size_hw=(80, 80)))
    folder.set_classes([(None, "cell", None), (None, "dust", None)])
    folder.labels(next(iter(folder.images))).edit(0, add(0, 0, 4, 4, 2))
    again = folder_of(folder.root)
    again.recover()
    monkeypatch.setattr(
        type(again), "labels", lambda self, key: pytest.fail("an image was read")
    )
    with pytest.raises(DataError, match="'dust' has objects"):
        again.set_classes([(1, "cell", None)])
    again.set_classes([(2, "dust", None)])
    assert again.state.ids() == [2]


def test_labels_that_are_not_used_leave_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the list says of them stays, as does what somebody still holds."""
    from simmat_plugin_annotate import folder as module

    monkeypatch.setattr(module, "MAX_CACHED_LABELS", 1)
    folder = folder_of(gray_images(tmp_path / "set", size_hw=(80, 80)))
    first, second, third = folder.images
    held = folder.labels(first)
    held.edit(0, add(0, 0, 4, 4))
    folder.labels(second).edit(0, add(0, 0, 4, 4))
    folder.labels(third)
    assert folder.labels(first) is held
    assert (folder.last_step(second).objects, folder.last_step(second).version) == (
        1,
        1,
    )
    assert len(folder.labels(second).steps["undo"]) == 1


def test_a_journal_of_a_newer_version_is_refused_and_left_as_it_is(
    tmp_path: Path,
) -> None:
    """Its last lines are no cut ones, whatever this version makes of them."""
    of_image(tmp_path).edit(0, add(0, 0, 4, 4))
    journal = tmp_path / "journal.jsonl"
    assert journal.read_text().startswith('{"format":1}\n')
    texts = {
        "a newer format": journal.read_text().replace('"format":1', '"format":2'),
        "an unknown key": journal.read_text()
        + '{"kind": "edit", "version": 2, "mood": "good"}\n',
    }
    for text in texts.values():
        journal.write_text(text)
        with pytest.raises(DataError, match=r"journal\.jsonl, byte \d+: .*newer"):
            of_image(tmp_path)
        assert journal.read_text() == text


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"kind": "undo", "version": 1}, "there is nothing to undo"),
        (
            {
                "kind": "edit",
                "version": 1,
                "changes": [{"id": 1, "before": None, "after": "far"}],
            },
            "not inside the image",
        ),
        (
            {
                "kind": "edit",
                "version": 1,
                "changes": [{"id": -1, "before": None, "after": None}],
            },
            "cannot be read",
        ),
    ],
)
def test_a_history_that_does_not_fit_is_refused(
    tmp_path: Path, record: dict[str, Any], why: str
) -> None:
    """Of a stranger, or of an image that has another size since the last session."""
    far = {"class": None, "mask": {"box": [900, 900, 901, 901], "runs": [0, 1]}}
    (tmp_path / "journal.jsonl").write_text(
        json.dumps(record).replace('"far"', json.dumps(far)) + "\n"
    )
    with pytest.raises(
        DataError, match=rf"(?s)journal\.jsonl, byte 0: .*{why}.*move the file away"
    ):
        of_image(tmp_path)


def test_a_large_mask_is_drawn_while_edits_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit that comes meanwhile is answered, and the mask is written with it the next time."""
    from simmat_plugin_annotate import labels as module

    monkeypatch.setattr(module, "AT_ONCE_PX", 1)
    labels, draw = of_image(tmp_path), module.draw_labels
    labels.edit(0, add(0, 0, 4, 4))

    def slowly(*given: Any) -> Any:
        thread = threading.Thread(target=lambda: labels.edit(1, add(10, 0, 14, 4)))
        thread.start()
        thread.join(5)
        return draw(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "draw_labels", slowly)
        labels.flush()
    assert (labels.version, labels.unwritten, (tmp_path / "mask.png").exists()) == (
        2,
        True,
        False,
    )
    labels.flush()
    assert values(tmp_path / "mask.png") == [0, 1, 2]


def test_a_mask_of_a_box_that_no_memory_holds_is_refused() -> None:
    """Before it is made: a few runs may stand for any number of pixels."""
    from simmat_plugin_annotate.masks import MaskDocument, decode_mask

    side = 2**20
    with pytest.raises(DataError, match="in parts"):
        decode_mask(
            MaskDocument(box=(0, 0, side, side), runs=(0, side * side // 2**10)),
            (side, side),
        )


@pytest.mark.parametrize("linked", ["masks/s0.png", "masks"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, linked: str) -> None:
    """A data set of a stranger must not have files elsewhere replaced."""
    root = gray_images(tmp_path / "set", size_hw=(80, 80))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(np.zeros((80, 80), np.uint8)).save(elsewhere / "s0.png")
    (root / "card.toml").write_text('regions = "instances"\n')
    (root / linked).parent.mkdir(exist_ok=True)
    (root / linked).symlink_to(elsewhere if linked == "masks" else elsewhere / "s0.png")
    folder = folder_of(root)
    with pytest.raises(DataError, match="leads out of"):
        folder.labels(next(iter(folder.images)))


def test_a_model_out_of_the_folder_is_not_loaded(tmp_path: Path) -> None:
    """The state of a folder names it."""
    folder = folder_of(gray_images(tmp_path / "set"))
    (tmp_path / "run").mkdir()
    folder.keep_bundle("../run")
    with pytest.raises(DataError, match="leads out of"):
        folder.stored_bundle()


def test_an_image_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    """With its own pixels; one of another size is not labelled by the masks of the former one."""
    root = gray_images(tmp_path / "set", size_hw=(80, 80))
    folder = folder_of(root)
    key = next(iter(folder.images))
    before = folder.planes(key)
    assert folder.planes(key) is before
    folder.labels(key)
    Image.fromarray(np.zeros((40, 80), np.uint8)).save(root / "images/s0.png")
    assert folder.planes(key).size_hw == (40, 80)
    with pytest.raises(DataError, match=r"was 80x80 .* is 80x40 now"):
        folder.labels(key)


def test_the_oldest_files_of_a_full_cache_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start; each model and each window adds to it."""
    import os

    from simmat_plugin_annotate import state

    root = gray_images(tmp_path / "set")
    cache = root / ".simmat/annotate/embeddings"
    cache.mkdir(parents=True)
    for age, name in enumerate(("new", "old", "older")):
        (cache / f"{name}.safetensors").write_bytes(bytes(100))
        os.utime(cache / f"{name}.safetensors", (1000 - age, 1000 - age))
    (cache / "link.safetensors").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(state, "MAX_CACHED", 250)
    folder_of(root).recover()
    # nor is anything written through a link
    assert sorted(path.stem for path in cache.iterdir()) == ["new", "old"]
