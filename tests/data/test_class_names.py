"""Names of classes, from COCO categories or the card to the bundle, the scores and the check of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import config, gray_set, registry

from simmat import training
from simmat.bundle import read_bundle_spec
from simmat.cli import run
from simmat.data.dataset import open_dataset
from simmat.errors import DataError

pytestmark = pytest.mark.plugins("hub", "report")

NAMES = {4: "boat", 9: "plane"}


def coco_set(root: Path, names: dict[int, str] = NAMES) -> Path:
    """The discs of `gray_set` as COCO annotations, the left one of the first class, the right one of the second."""
    made = gray_set(root)
    for split, samples in (
        ("train", range(5)),
        ("val", range(5, 7)),
        ("test", range(7, 9)),
    ):
        content: dict[str, list[dict[str, Any]]] = {
            "images": [
                {"id": i, "file_name": f"s{i}.png", "height": 40, "width": 56}
                for i in samples
            ],
            "annotations": [],
            "categories": [
                {"id": number, "name": name} for number, name in names.items()
            ],
        }
        for index in samples:
            mask = np.asarray(Image.open(made / f"masks/s{index}.png"))
            for number, value in zip(names, (1, 2), strict=True):
                rows, columns = np.nonzero(mask == value)
                x0, x1, y0, y1 = (
                    int(v)
                    for v in (
                        columns.min(),
                        columns.max() + 1,
                        rows.min(),
                        rows.max() + 1,
                    )
                )
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]),
                        "image_id": index,
                        "category_id": number,
                        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                    }
                )
        (made / "annotations").mkdir(exist_ok=True)
        (made / f"annotations/{split}.json").write_text(json.dumps(content))
    (made / "manifest.csv").unlink()
    for file in (made / "masks").iterdir():
        file.unlink()
    (made / "masks").rmdir()
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco_set(tmp_path_factory.mktemp("coco") / "set")


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.train(
        config(data, tmp_path_factory.mktemp("run") / "run", steps=1), registry()
    )


def test_a_bundle_keeps_the_names_of_its_categories(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its annotations stay with whoever trained it; a number alone says nothing to others."""
    assert read_bundle_spec(bundle).card.class_names == NAMES
    assert run(["bundle", "show", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "4: boat" in said
    assert "class 9 (plane)" in said


def test_eval_shows_names_and_keeps_the_numbers_as_keys(
    bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table is read by people, the json by programs that join it with annotations."""
    command = ["eval", str(bundle), "--data", str(data), "--device", "cpu"]
    assert run(command) == 0
    said = capsys.readouterr().out
    assert "class 4 (boat)" in said
    assert "class 9 (plane)" in said
    assert run([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["tuned"]["iou_by_class"]) == {"4", "9"}
    assert report["class_names"] == {"4": "boat", "9": "plane"}


def test_data_check_counts_by_name(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the rare class is the one that matters shows before the training."""
    command = ["data", "check", str(data), "--modality", "gray"]
    assert run(command) == 0
    assert "regions by class: 4 (boat): 5, 9 (plane): 5" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["class_names"] == {"4": "boat", "9": "plane"}
    assert report["splits"][0]["classes"] == {"4": 5, "9": 5}


def test_a_category_that_no_bundle_could_keep_is_refused(tmp_path: Path) -> None:
    """Its bundle could not be read again."""
    made = coco_set(tmp_path / "set", {4: "boat", 2**63: "plane"})
    with pytest.raises(
        DataError, match=rf"train\.json: category id {2**63} .* 64 bits"
    ):
        open_dataset(made, registry().modality("gray"), {})
