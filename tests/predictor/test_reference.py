"""Objects like those of a labelled image: what is found, which classes they have, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from bundles import tiny_bundle
from data_sets import Planes, save_mask
from PIL import Image
from scripted_model import Scripted
from torch import Tensor

from simmat.cli import run
from simmat.data.pipeline import Pipeline
from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.predictor import EverythingSettings, Predictor, Reference
from simmat.types import Channel, SensorImage

SIDE, OBJECT = 48, 7
CHANNELS = [Channel(name, "temperature", "K") for name in ("p0", "p1")]
Corners = Sequence[tuple[int, int]]


def _scene(
    seed: int, warm: Corners, cold: Corners
) -> tuple[SensorImage, npt.NDArray[np.int64]]:
    """Two planes with squares that are warm in the first one, and others in the second; their values are 1 and 2."""
    planes = (
        np.random.default_rng(seed).normal(300, 1, (2, SIDE, SIDE)).astype(np.float32)
    )
    planes -= 10
    mask = np.zeros((SIDE, SIDE), np.int64)
    for plane, corners in enumerate((warm, cold)):
        for y, x in corners:
            planes[plane, y : y + OBJECT, x : x + OBJECT] += 20
            mask[y : y + OBJECT, x : x + OBJECT] = plane + 1
    return SensorImage.from_planes(planes, CHANNELS, origin=f"scene {seed}"), mask


def _squares(prompts: PromptBatch) -> Tensor:
    """Answer each click, or box, with a square around its middle."""
    steps = torch.arange(SIDE)
    centres = (
        prompts.point_coords[:, 0]
        if prompts.boxes is None
        else prompts.boxes.unflatten(1, (2, 2)).mean(1) - 0.5
    )
    x, y = (centres[:, axis, None] for axis in (0, 1))  # (K, 1)
    reach = OBJECT / 2
    return (
        ((steps - y).abs() < reach)[:, :, None] & ((steps - x).abs() < reach)[:, None]
    )[:, None]


@pytest.fixture
def model() -> Predictor:
    """A network whose embedding is the image."""
    channels = tuple(channel.with_statistics(300, 5) for channel in CHANNELS)
    return Predictor(
        cast(SimMAT, Scripted(_squares)), Pipeline(Planes(), channels, SIDE)
    )


def _clicked(
    model: Predictor, image: SensorImage, reference: Reference, *corners: Corners
) -> set[object]:
    """Return class and corner of the squares that were clicked; None as the corner of a click beside all of them."""
    model.set_image(image)
    found = set[object]()
    for one in model.segment_everything(
        EverythingSettings(max_growth_px=0), reference=reference
    ):
        x, y = one.point_xy
        near = [
            at
            for part in corners
            for at in part
            if 0 <= y - at[0] < OBJECT and 0 <= x - at[1] < OBJECT
        ]
        found.add((one.instance.class_id, near[0] if near else None))
    return found


def test_only_what_the_mask_marks_is_found(model: Predictor) -> None:
    """Other objects are background, and an image without such an object has none."""
    shown, mask = _scene(0, [(5, 5)], [(30, 30)])
    warm, cold = [(20, 8), (35, 30)], [(4, 30)]
    reference = model.reference([(shown, mask == 1)])
    assert _clicked(model, _scene(1, warm, cold)[0], reference, warm, cold) == {
        (None, at) for at in warm
    }
    assert _clicked(model, _scene(2, [], cold)[0], reference, cold) == set()


def test_classes_may_come_from_several_images(model: Predictor) -> None:
    """One image seldom shows everything."""
    first, second = _scene(0, [(5, 5)], []), _scene(1, [], [(10, 30)])
    warm, cold = [(20, 8)], [(4, 30), (35, 35)]
    other, _ = _scene(2, warm, cold)
    reference = model.reference([first, second], classes=[1, 2])
    assert _clicked(model, other, reference, warm, cold) == {
        (1, warm[0]),
        (2, cold[0]),
        (2, cold[1]),
    }
    both = model.reference([_scene(3, [(5, 5)], [(30, 30)])], classes=["2"])
    assert _clicked(model, other, both, warm, cold) == {(2, at) for at in cold}


def test_images_that_are_cut_show_and_find_the_same(model: Predictor) -> None:
    """A scene is looked at in windows, with a mask of the whole."""
    side, corners = 3 * SIDE, [(20, 20), (44, 100), (110, 12)]
    planes, mask = (
        np.random.default_rng(0).normal(290, 1, (2, side, side)),
        np.zeros((side, side), np.uint8),
    )
    for y, x in corners:
        planes[0, y : y + OBJECT, x : x + OBJECT] += 20
        mask[y : y + OBJECT, x : x + OBJECT] = 255
    scene = SensorImage.from_planes(planes.astype(np.float32), CHANNELS, origin="scene")
    assert _clicked(model, scene, model.reference([(scene, mask)]), corners) == {
        (None, at) for at in corners
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A bundle, images in a folder, and masks."""
    tiny_bundle(tmp_path / "bundle")
    (tmp_path / "images").mkdir()
    rows, columns = np.mgrid[:40, :56]
    for name, centre in (("a", 14), ("b", 40)):
        disc = (rows - 20) ** 2 + (columns - centre) ** 2 < 64
        Image.fromarray((60 + 110 * disc).astype(np.uint8)).save(
            tmp_path / f"images/{name}.png"
        )
        save_mask(tmp_path / f"{name}.png", disc)
    save_mask(tmp_path / "empty.png", np.zeros((40, 56)))
    save_mask(tmp_path / "full.png", np.ones((40, 56)))
    save_mask(tmp_path / "small.png", np.ones((8, 8)))
    return tmp_path


def _call(place: Path, *options: str) -> int:
    files = [
        "predict",
        str(place / "bundle"),
        str(place / "images"),
        "--out",
        str(place / "out"),
        "--device",
        "cpu",
    ]
    return run([*files, "--format", "labels,coco", *options])


def test_a_folder_is_searched_and_resumed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another mask is another question; the same one, whatever its name, is answered already."""
    asked = ("--reference", str(place / "images/a.png"), "--reference-mask")
    assert _call(place, *asked, str(place / "a.png"), "--min-score", "0") == 0
    assert sorted(path.name for path in (place / "out").iterdir()) == [
        "a.json",
        "a_objects.png",
        "b.json",
        "b_objects.png",
        "coco.json",
    ]
    assert "objects" in json.loads((place / "out/b.json").read_text(encoding="utf-8"))
    capsys.readouterr()
    (place / "a.png").rename(place / "renamed.png")
    assert _call(place, *asked, str(place / "renamed.png"), "--min-score", "0") == 0
    assert "2 of 2" in capsys.readouterr().err
    assert _call(place, *asked, str(place / "b.png"), "--min-score", "0") == 0
    assert "were done" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--reference-mask", "empty.png"], ["empty.png", "no object"]),
        (["--reference-mask", "full.png"], ["background"]),
        (["--reference-mask", "small.png"], ["small.png", "8x8", "56x40"]),
        (["--reference-mask", "a.png", "--class", "2"], ["'2'", "Available: 1"]),
        (["--reference-mask", "a.png", "--class", "1", "--class", "ship"], ["'ship'"]),
        ([], ["--reference-mask"]),
        (["--reference-mask", "a.png", "--point", "3,4"], ["--point"]),
        (["--reference-mask", "a.png", "--semantic"], ["--semantic"]),
        (["--reference-mask", "a.png", "--min-score", "auto"], ["--min-score auto"]),
        (["--reference-mask", "missing.png"], ["missing.png"]),
    ],
)
def test_what_cannot_show_anything_is_refused_by_name(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    named: str,
) -> None:
    """Before any image is segmented."""
    monkeypatch.chdir(place)
    assert _call(place, "--reference", "images/a.png", *options) == 2
    shown = capsys.readouterr().err
    assert all(one in shown for one in named), shown
    assert not list((place / "out").glob("*"))
