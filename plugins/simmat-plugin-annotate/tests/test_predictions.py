"""Predictions from elsewhere are suggested, to accept or to correct; none becomes a label by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_server import filled, gray_images, served, square

from simmat.errors import DataError, SimMATError

SIZE = (40, 56)


def coco(*names: str, category: str = "object") -> dict[str, Any]:
    """A COCO document with a rectangle as a polygon and one as run lengths in each image."""
    runs = [0, 40 * 4, 40 * 52]  # column by column: the first four columns
    shapes: list[Any] = [
        [[10, 8, 30, 8, 30, 20, 10, 20]],
        {"size": list(SIZE), "counts": runs},
    ]
    images = [
        {"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for i, name in enumerate(names)
    ]
    annotations = [
        {
            "id": 2 * i + n,
            "image_id": i,
            "category_id": 3,
            "segmentation": shape,
            "score": 0.9 - n / 10,
            "iscrowd": 0,
        }
        for i in range(len(names))
        for n, shape in enumerate(shapes)
    ]
    categories = [{"id": 3, "name": category, "supercategory": "thing"}]
    return {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def written(folder: Path, document: object) -> Path:
    """A COCO file."""
    path = folder / "predicted.json"
    path.write_text(json.dumps(document))
    return path


def test_predictions_are_suggested_before_those_of_the_model(
    tmp_path: Path, bundle: Path
) -> None:
    """What is labelled already is not suggested again, and with all of it done the model is asked."""
    root = gray_images(tmp_path / "set")
    path = written(tmp_path, coco("s1.png", "elsewhere.png", "other/s1.png"))
    with served(root, bundle, predictions=path) as client:
        key = client.keys()["s1"]
        assert [
            image["predicted"] for image in client.get("/api/images")["images"]
        ] == [0, 2, 0]
        found = client.get(f"/api/images/{key}/suggestions")
        assert (found["imported"], [one["score"] for one in found["objects"]]) == (
            True,
            [0.9, 0.8],
        )
        expected = np.zeros(SIZE, bool)
        expected[8:20, 10:30] = True
        np.testing.assert_array_equal(
            filled(found["objects"][0]["mask"], SIZE), expected
        )
        assert not (root / "masks").exists()
        client.edit(key, 0, {"op": "add", "mask": square(10, 8, 30, 20)})
        assert [
            one["score"]
            for one in client.get(f"/api/images/{key}/suggestions")["objects"]
        ] == [0.8]
        assert not client.get(f"/api/images/{key}/suggestions?model=1")["imported"]


def test_a_folder_without_labels_gets_the_classes_of_the_predictions(
    tmp_path: Path, bundle: Path
) -> None:
    """They name what the model was trained on."""
    path = written(tmp_path, coco("images/s0.png", category="udder"))
    with served(gray_images(tmp_path / "set"), bundle, predictions=path) as client:
        (known,) = client.get("/api/session")["classes"]
        assert known["name"] == "udder"
        found = client.get(f"/api/images/{client.keys()['s0']}/suggestions")
        assert [one["class"] for one in found["objects"]] == [known["id"]] * 2


def test_what_is_no_prediction_of_this_folder_is_refused(
    tmp_path: Path, bundle: Path
) -> None:
    """With what to change."""
    root = gray_images(tmp_path / "set")
    for document, said in (
        (coco("a.png"), "below images/"),
        ({"images": []}, "annotations"),
    ):
        with (
            pytest.raises(SimMATError, match=said),
            served(root, bundle, predictions=written(tmp_path, document)),
        ):
            pass
    wrong: dict[str, Any] = coco("s0.png")
    wrong["annotations"][0]["segmentation"] = [[1, 2]]
    with served(root, bundle, predictions=written(tmp_path, wrong)) as client:
        status, _, content = client.raw(
            "GET", f"/api/images/{client.keys()['s0']}/suggestions"
        )
    assert (status, b"3 corners" in content) == (422, True)


def test_a_folder_of_predictions_is_read(tmp_path: Path) -> None:
    """As `simmat predict` leaves it; one without the file names the options that write it."""
    from runs import registry
    from simmat_plugin_annotate.folder import LabelFolder
    from simmat_plugin_annotate.predictions import Predictions

    images = LabelFolder(
        gray_images(tmp_path / "set"), registry().modality("gray"), {}
    ).images
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="--format coco"):
        Predictions.read(out, images)
    (out / "coco.json").write_text(json.dumps(coco("s2.png")))
    found = Predictions.read(out, images)
    assert sum(bool(found.of_image(key)) for key in images) == 1
