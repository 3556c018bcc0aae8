"""`simmat predict`: what lies beside a mask."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image
from runs import gray_set

from simmat.cli import run
from simmat.data.dataset import open_dataset
from simmat.errors import DataError
from simmat.inference import PromptResult, writer
from simmat.inference.writer import write_result
from simmat.sensors.builtin import Gray


def test_sigterm_keeps_what_is_done_and_leaves_nothing_half_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batch systems end a job by SIGTERM."""

    def stop(result: PromptResult, *given: Any) -> list[str]:
        if result.name == "b":
            os.kill(os.getpid(), signal.SIGTERM)
        return write_result(result, *given)

    monkeypatch.setattr(writer, "write_result", stop)
    out = place / "out"
    call = [
        "predict",
        str(place / "bundle"),
        str(place / "images"),
        "--point",
        "3,4",
        "--out",
        str(out),
    ]
    assert run(call) == 130
    assert sorted(path.name for path in out.iterdir()) == [
        "a.json",
        "a_mask.png",
        "a_overlay.png",
    ]
    assert "1 of 3" in capsys.readouterr().err


def test_a_data_set_is_segmented_without_its_masks(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Label images are files as well, and a mask of one says nothing."""
    (place / "masks").mkdir()
    (place / "masks/a.png").write_bytes((place / "images/a.png").read_bytes())
    call = [
        "predict",
        str(place / "bundle"),
        str(place),
        "--point",
        "3,4",
        "--out",
        str(place / "out"),
    ]
    assert run(call) == 0
    assert sorted(path.name for path in (place / "out").glob("*.json")) == [
        "a.json",
        "b.json",
        "night__a.json",
    ]
    assert str(place / "images") in capsys.readouterr().err


@pytest.mark.plugins("geo")
def test_what_an_earlier_call_wrote_does_not_stay_beside_the_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mask with coordinates, of an image that had some, would be opened as that of the next one of its name."""
    pytest.importorskip("simmat_plugin_geo")
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
    Image.fromarray(np.full((40, 56), 60, np.uint8)).save(tmp_path / "s.png")
    call = [
        "predict",
        str(bundle),
        str(tmp_path / "s.png"),
        "--point",
        "3,4",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert run(call) == 0
    said = json.loads((out / "s.json").read_text(encoding="utf-8"))
    assert sorted(said["written"]) == sorted(path.name for path in out.iterdir())
    (out / "s_mask.tif").write_bytes(b"of a person")
    assert run(call) == 2
    assert "s_mask.tif" in capsys.readouterr().err
    (out / "s.json").write_text(
        json.dumps(said | {"written": [*said["written"], "s_mask.tif"]}),
        encoding="utf-8",
    )
    (out / "other_mask.tif").write_bytes(b"of another image")
    Image.fromarray(np.full((40, 56), 70, np.uint8)).save(tmp_path / "s.png")
    assert run(call) == 0
    assert {path.name for path in out.iterdir()} == {*said["written"], "other_mask.tif"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle and three images, one of them in a subfolder."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "testing")
    tiny_bundle(tmp_path / "bundle")
    (tmp_path / "images/night").mkdir(parents=True)
    for name in ("a", "b", "night/a"):
        Image.fromarray(np.full((40, 56), 60, np.uint8)).save(
            tmp_path / f"images/{name}.png"
        )
    return tmp_path


def with_boxes(place: Path) -> list[str]:
    """The call with boxes.json as prompts, without the folder of the results."""
    return [
        "predict",
        str(place / "bundle"),
        str(place / "images"),
        "--prompts",
        str(place / "boxes.json"),
        "--out",
    ]


def test_boxes_of_a_coco_json_give_a_mask_an_annotation(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Detectors write them; their boxes are corner and size."""
    coco = {
        "images": [{"id": 7, "file_name": "b.png", "width": 56, "height": 40}],
        "annotations": [
            {"id": 31, "image_id": 7, "category_id": 1, "bbox": [2, 3, 10, 20]}
        ],
    }
    (place / "boxes.json").write_text(json.dumps(coco))
    call = with_boxes(place)
    assert run([*call, str(place / "out")]) == 0
    assert json.loads((place / "out/b_31.json").read_text())["box_xyxy"] == [
        2.0,
        3.0,
        12.0,
        23.0,
    ]
    (place / "boxes.json").write_text(
        json.dumps({**coco, "annotations": coco["annotations"] * 2})
    )
    assert run([*call, str(place / "other")]) == 2
    assert (
        "annotations[1]: another one of b.png has the id 31" in capsys.readouterr().err
    )
    (annotation,) = coco["annotations"]
    strangers = [{**annotation, "bbox": [2, 3]}, {**annotation, "image_id": 8}]
    (place / "boxes.json").write_text(json.dumps({**coco, "annotations": strangers}))
    assert run([*call, str(place / "other")]) == 2
    said = capsys.readouterr().err
    assert "annotations[0]: bbox must be [x, y, width, height], got [2, 3]" in said
    assert "annotations[1]: no image has the id 8" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "needs the lists images and annotations"),
        ({"images": [{"id": 7}], "annotations": []}, "an image has no file_name"),
    ],
)
def test_a_json_of_prompts_that_is_no_coco_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], content: object, words: str
) -> None:
    """Nothing is segmented by half of a file."""
    (place / "boxes.json").write_text(json.dumps(content))
    assert run([*with_boxes(place), str(place / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "file,object,point,negative,box"),
        ("file;object;point\na.png;1;3,4\n", "';'.*commas"),
        ("file,object,point\na.png,1,3,4\n", 'quotes, "10,20".*\n.*line 2: 4 cells'),
        ("file,object,point\n", "no prompts"),
        ("file,object\na.png,1\n", "file, object and point or box"),
        ("file,object,point,colour\na.png,1,,red\n", "colour; .*point"),
        ('file,object,point\na.png,1,"3"\n', "object '1' of a.png: .*X,Y"),
        ('file,object,point\na.png,1,"1 0,2"\n', "object '1' of a.png: .*X,Y"),
        ("file,object,point\na.png,1,\n", "object '1' of a.png: .*point"),
        ('file,object,point\na.png,../x,"3,4"\n', "'../x'"),
        (
            'file,object,box\na.png,1,"1,1,9,9"\na.png,1,"1,1,9,9"\n',
            "object '1' of a.png: .*box",
        ),
        ('file,object,point\na.png,,"3,4"\n', "line 2: .*object"),
        ('file,object,point\n.,1,"3,4"\n', "of .: file must name an image"),
        ('file,object,point\n/,1,"3,4"\n', "of /: file must name an image"),
        ('file,object,point\n..,1,"3,4"\n', "of ..: file must name an image"),
        ('file,object,point\n"a\0.png",1,"3,4"\n', "file"),
        ('file,object,point\na.png,1,"300,4"\n', "point 300,4"),
    ],
)
def test_a_bad_table_of_prompts_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], content: str, words: str
) -> None:
    """With its line or object, and without a mask of the good rows."""
    (place / "images/p.csv").write_text(content)
    call = [
        "predict",
        str(place / "bundle"),
        "--prompts",
        str(place / "images/p.csv"),
        "--out",
        str(place / "out"),
    ]
    assert run(call) == 2
    error = capsys.readouterr().err
    assert re.search(words, error)
    assert "p.csv" in error or "300,4" in error
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--point 3,4", "BUNDLE.*--foundation.*--modality"),
        ("--modality gray images/a.png --point 3,4", "--foundation NAME"),
        (
            "--foundation lite images/a.png --point 3,4",
            "--modality is missing: images/a.png.*--modality NAME",
        ),
        ("bundle images/a.png --channels 0 --point 3,4", "--channels.*untuned"),
        (
            "bundle images/a.png --prompts p.csv --point 3,4",
            "--prompts .*--point, --negative and --box",
        ),
        ("bundle images/a.png images/night --prompts p.csv", "folder"),
        ("bundle images/a.png images/night/a.png --point 3,4", "'a'"),
        ("--foundation tiny --modality gray images/a.png --point 3,4", "tiny.*untuned"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    words: str,
) -> None:
    """Each is a mistake of a moment; a guess at what was meant would cost hours."""
    monkeypatch.chdir(place)
    (place / "p.csv").write_text('file,object,point\na.png,1,"3,4"\n')
    assert run(["predict", *arguments.split(), "--out", "out"]) == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize("file", ["s{}_objects.png", "coco.json"])
def test_what_was_found_is_marked_as_labels(tmp_path: Path, file: str) -> None:
    """As masks or as COCO json of a data set: a score on it would say nothing."""
    root = gray_set(tmp_path / "set", train=3, val=2, test=0)
    bundle, out = tiny_bundle(tmp_path / "bundle"), root / "found"
    options = ["--everything", "--format", "labels,coco", "--out", str(out)]
    assert run(["predict", str(bundle), str(root / "images"), *options]) == 0
    if file == "coco.json":
        shutil.copy(out / file, root / "annotations.json")
        content = json.loads((out / file).read_text())
        assert content["annotations"] == []  # found by a random model
        shutil.rmtree(root / "masks")
        (root / "manifest.csv").unlink()
    else:
        rows = [f"s{i},images/s{i}.png,found/{file.format(i)}" for i in range(5)]
        (root / "manifest.csv").write_text("\n".join(["id,image,mask", *rows]))
    dataset = open_dataset(root, Gray(), {"regions": "instances"})
    assert all(sample.predicted for sample in dataset.samples)
    with pytest.raises(DataError, match="made by a model"):
        dataset.split("val")
