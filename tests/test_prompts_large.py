"""Prompts on images larger than a window, and a disk that fills up: what a user meets, answered plainly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import tiny_bundle

from simmat.cli import run
from simmat.io.images import write_image
from simmat.model_spec import DenseSpec
from simmat.predictor import Predictor, predictor

pytestmark = pytest.mark.plugins()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both heads, as it is before training; its input has 32 pixels a side."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return tiny_bundle(tmp_path_factory.mktemp("prompts") / "bundle", dense=dense, image_size=32)


def _scene(path: Path, planes: Any = None) -> Path:
    if planes is None:
        planes = np.random.default_rng(0).integers(0, 200, (1, 150, 180)).astype(np.uint8)
    write_image(path, planes)
    return path


def _predict(bundle: Path, image: Path, out: Path, *options: str) -> int:
    return run(["predict", str(bundle), str(image), *options, "--out", str(out), "--device", "cpu"])


def test_a_point_at_the_last_pixel_is_answered(bundle: Path, tmp_path: Path) -> None:
    """The window around it ends where the image ends."""
    image = _scene(tmp_path / "a.tif")
    assert _predict(bundle, image, tmp_path / "out", "--point", "179,149", "--tile", "64") == 0
    assert _predict(bundle, image, tmp_path / "out2", "--point", "180,149", "--tile", "64") == 2


def test_a_negative_point_far_away_widens_no_window(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the object, and the window between both would be shrunk to nothing."""
    image, sizes = _scene(tmp_path / "a.tif"), []
    real = Predictor._predict_in_window

    def look(self: Predictor, image: Any, window: Any, *given: Any) -> Any:
        sizes.append(window.size_hw)
        return real(self, image, window, *given)

    monkeypatch.setattr(Predictor, "_predict_in_window", look)
    call = ["--point", "10,10", "--negative", "170,140", "--tile", "32"]
    assert _predict(bundle, image, tmp_path / "out", *call) == 0
    assert sizes[0] == (32, 32)


def test_a_box_larger_than_memory_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A box around a whole scene would read all of it at once."""
    monkeypatch.setattr(predictor, "_MAX_VALUES", 100 * 100)
    image = _scene(tmp_path / "a.tif")
    assert _predict(bundle, image, tmp_path / "out", "--box", "0,0,180,150", "--tile", "32") == 2
    assert "180x150" in capsys.readouterr().err
    assert _predict(bundle, image, tmp_path / "out", "--box", "0,0,60,60", "--tile", "32") == 0


def test_a_point_where_nothing_is_measured_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network would answer with noise."""
    planes = np.full((1, 150, 180), np.nan, np.float32)
    planes[0, :20, :20] = np.arange(400).reshape(20, 20)
    image = _scene(tmp_path / "a.tif", planes)
    assert _predict(bundle, image, tmp_path / "out", "--point", "170,140", "--tile", "32") == 2
    assert "no pixel around the prompt" in capsys.readouterr().err


def test_large_images_with_prompts_are_skipped_when_done(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their objects are written together, under the name of the image."""
    for name in "ab":
        _scene(tmp_path / f"{name}.tif")
    rows = "".join(f'{file}.tif,o{n},"{20 + n},30"\n' for file in "ab" for n in range(2))
    (tmp_path / "prompts.csv").write_text("file,object,point\n" + rows)
    call = ["predict", str(bundle), "--prompts", str(tmp_path / "prompts.csv"), "--tile", "64", "--device", "cpu"]
    call += ["--format", "labels"]
    assert run([*call, "--out", str(tmp_path / "out")]) == 0
    assert [one["object"] for one in json.loads((tmp_path / "out/a.json").read_text())["prompts"]] == ["a_o0", "a_o1"]
    assert run([*call, "--out", str(tmp_path / "out")]) == 0
    assert "2 of 2 images were done" in capsys.readouterr().err


def test_an_image_without_a_measurement_leaves_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    """Its windows would be kept for a second call that fails alike."""
    image = _scene(tmp_path / "a.tif", np.full((1, 150, 180), np.nan, np.float32))
    assert _predict(bundle, image, tmp_path / "out", "--semantic") == 2
    assert not list((tmp_path / "out").glob("*")) + list((tmp_path / "out").glob(".*"))
