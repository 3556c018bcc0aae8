"""`simmat predict` shared by processes and machines writes what one process writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from launched import TWO_PROCESSES, run_python
from runs import config, gray_set, registry

from simmat import training
from simmat.io.images import write_image

pytestmark = pytest.mark.slow

FIND = ("--everything", "--semantic", "--min-score", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of both heads, a folder of five images with a bad one among them, and a large image."""
    root = tmp_path_factory.mktemp("shared")
    data = gray_set(root / "set")
    training.train(config(data, root / "run", heads="prompt,dense", steps=2, pictures=False, image_size=32), registry())
    (root / "images").mkdir()
    for number in range(5):
        _scene(root / f"images/{number}.tif", (40, 60), number)
    (root / "images/bad.tif").write_bytes(b"II*\0 half")
    _scene(root / "large.tif", (150, 180), 9)
    _predict(root, "images", "one", fails=True)
    _predict(root, "large.tif", "large")
    return root


def _scene(path: Path, size_hw: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, 50, (1, *size_hw)).astype(np.uint8)
    for y, x in rng.integers(0, 28, (6, 2)) * [size_hw[0] // 40, size_hw[1] // 40]:
        planes[0, y : y + 12, x : x + 12] += 120
    write_image(path, planes)


def _predict(root: Path, images: str, out: str, *options: str, fails: bool = False, start: tuple[str, ...] = ()) -> str:
    """Call it on images, and return what a call said that fails."""
    call = [
        "-m",
        "simmat",
        "predict",
        str(root / "run"),
        str(root / images),
        *(options or FIND),
        "--out",
        str(root / out),
    ]
    if not fails:
        return run_python([*start, *call]).stderr
    with pytest.raises(AssertionError) as failed:
        run_python([*start, *call])
    return str(failed.value)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_share_a_folder(place: Path) -> None:
    """The same files to the byte; a bad image is reported once, by one of them."""
    said = _predict(place, "images", "two", fails=True, start=tuple(TWO_PROCESSES))
    assert said.count("bad.tif: damaged") == 1
    assert said.count("1 of 6 images failed") == 1
    assert _files(place / "two") == _files(place / "one")
    assert len(json.loads((place / "two/coco.json").read_text())["images"]) == 5


def test_two_processes_share_the_windows_of_an_image(place: Path) -> None:
    """Neither removes what the other keeps, and the result has no trace of who did what."""
    _predict(place, "large.tif", "large2", start=tuple(TWO_PROCESSES))
    assert _files(place / "large2") == _files(place / "large")
    assert json.loads((place / "large/large.json").read_text())["windows"]["count"] > 4


def test_two_processes_share_prompts(place: Path) -> None:
    """Both doing all of it would replace each other's files."""
    prompt = ("--point", "20,20", "--device", "cpu")
    _predict(place, "images", "points", *prompt, fails=True)
    said = _predict(place, "images", "points2", *prompt, fails=True, start=tuple(TWO_PROCESSES))
    assert said.count("0_mask.png") == 1
    assert _files(place / "points2") == _files(place / "points")
