"""What `simmat predict --everything` and `--semantic` must not overwrite, and must not take for an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image

from simmat.cli import run
from simmat.inference.writer import written_files
from simmat.model_spec import DenseSpec

pytestmark = pytest.mark.plugins("geo")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both heads, as it is before training; its input has 32 pixels a side."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return tiny_bundle(
        tmp_path_factory.mktemp("outputs") / "bundle", dense=dense, image_size=32
    )


def _images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(
            np.random.default_rng(0).integers(0, 200, (40, 56), np.uint8)
        ).save(folder / f"{name}.png")
    return folder


def _find(bundle: Path, images: Path, out: Path, *options: str) -> int:
    given = options or ("--everything", "--semantic")
    return run(
        [
            "predict",
            str(bundle),
            str(images),
            *given,
            "--out",
            str(out),
            "--device",
            "cpu",
        ]
    )


def test_results_inside_the_folder_of_images_are_left_out(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--out out` in the folder of the images is what people write; the second call must not segment overlays."""
    images = _images(tmp_path / "images", "a")
    out = images / "out"
    assert _find(bundle, images, out) == 0
    before = sorted(path.name for path in out.iterdir())
    assert _find(bundle, images, out) == 0
    assert "1 of 1 images were done" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == before


@pytest.mark.parametrize("option", ["--everything", "--point=3,3"])
def test_the_folder_of_images_is_refused_for_results(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """Nobody could tell the images from the results."""
    images = _images(tmp_path / "images", "a")
    assert _find(bundle, images, images, option) == 2
    assert f"--out {images}" in capsys.readouterr().err
    assert [path.name for path in images.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "theirs",
    ["a.json", "a_objects.png", "a_classes.tif", "a_objects.geojson", "coco.json"],
)
def test_files_of_others_are_refused_before_any_work(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], theirs: str
) -> None:
    """The truth beside the images may have these names; hours of work must not end with such a message."""
    images, out = _images(tmp_path / "images", "a", "b"), tmp_path / "out"
    out.mkdir()
    (out / theirs).write_text('{"images": [], "written": ["a_objects.png"]}')
    formats = "labels,coco" if theirs != "a_objects.geojson" else "geojson"
    if theirs == "a_objects.geojson":
        pytest.importorskip("simmat_plugin_geo")
    assert (
        _find(bundle, images, out, "--everything", "--semantic", "--format", formats)
        == 2
    )
    assert str(out / theirs) in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [theirs]


def test_each_way_to_segment_replaces_the_files_of_the_other(
    bundle: Path, tmp_path: Path
) -> None:
    """A file that no json lists any more would be taken for that of a person, and refuse the next call."""
    images, out = _images(tmp_path / "images", "a"), tmp_path / "out"
    for options in (
        ["--everything"],
        ["--point", "3,3"],
        ["--everything"],
        ["--semantic"],
    ):
        assert _find(bundle, images, out, *options) == 0
        listed = json.loads((out / "a.json").read_text())["written"]
        assert {path.name for path in out.iterdir()} - {"coco.json"} == set(listed)


def test_a_json_names_no_file_of_another_image_or_folder() -> None:
    """What it lists is removed by the next call."""
    record = {
        "written": [
            "a.json",
            "a_mask.png",
            "b.json",
            "../a.json",
            "a_/../../b",
            "a_\\b",
            3,
            None,
            ["a.json"],
        ]
    }
    assert written_files(record, "a") == {"a.json", "a_mask.png"}
    assert written_files({"written": "a.json"}, "a") == frozenset()


def test_a_model_without_a_class_map_is_refused_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not once for each of 5,000 images."""
    images = _images(tmp_path / "images", "a", "b")
    assert (
        _find(
            tiny_bundle(tmp_path / "bundle"),
            images,
            tmp_path / "out",
            "--everything",
            "--semantic",
        )
        == 2
    )
    said = capsys.readouterr().err
    assert said.count("--heads prompt,dense") == 1
    assert "images failed" not in said
