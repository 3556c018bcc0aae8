"""Labels as Label Studio and CVAT store them themselves: brushes, boxes, and which image a task means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from simmat_plugin_convert.brush import decode_brush, encode_brush
from simmat_plugin_convert.convert import convert

from simmat.data.dataset import open_dataset
from simmat.data.predicted import read_predicted
from simmat.errors import ConfigError, DataError
from simmat.io.images import write_image
from simmat.sensors.builtin import Raster

SIZE = (24, 32)
DISC = np.hypot(*(np.mgrid[:24, :32] - np.reshape([10, 12], (2, 1, 1)))) < 6


def test_a_brush_is_read_as_other_programs_write_it() -> None:
    """Lengths of several sizes, and chunks that are no runs: our own code has neither."""
    bits = f"{24:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "1" + "00" + f"{7:03b}" + f"{0:08b}"  # 8 values of 0: two pixels
    bits += (
        "0"
        + "01"
        + f"{7:04b}"
        + "".join(f"{value:08b}" for value in (9, 9, 9, 255, 9, 9, 9, 126))
    )
    bits += "1" + "11" + f"{7:016b}" + f"{255:08b}"
    data = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    assert decode_brush(data, (1, 6), "here").tolist() == [
        [False, False, True, False, True, True]
    ]


@pytest.mark.parametrize("size_hw", [(1, 1), SIZE, (300, 200)])
def test_a_brush_comes_back(size_hw: tuple[int, int]) -> None:
    """Runs longer than their numbers can say are written as several."""
    noise = np.random.default_rng(0).random(size_hw)
    for mask in (noise < 0, noise > 0.5, noise > 0.999, noise < 2):
        assert (decode_brush(encode_brush(mask), size_hw, "here") == mask).all()


@pytest.mark.parametrize(
    "code",
    [None, [256], [], encode_brush(DISC)[:-3], encode_brush(DISC[:, :-1]), ["a"]],
)
def test_a_damaged_brush_is_refused(code: Any) -> None:
    """It is of the labels of a stranger: no traceback, and no mask that nobody painted."""
    with pytest.raises(DataError, match="here: its rle"):
        decode_brush(code, SIZE, "here")


def region(kind: str, label: str = "cell", **value: Any) -> dict[str, Any]:
    height, width = SIZE
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {
        **size,
        "id": f"{kind}{value}",
        "type": kind,
        "value": {**value, kind: [label]},
    }


PAINTED = region("brushlabels", format="rle", rle=encode_brush(DISC))
BOX = region(
    "rectanglelabels", "worm", x=50.0, y=25.0, width=25.0, height=50.0, rotation=0
)


def exported(root: Path, *tasks: dict[str, Any]) -> Path:
    """A folder of one image of two planes, and what Label Studio exported."""
    (root / "images/deep").mkdir(parents=True)
    write_image(root / "images/deep/a.tif", np.zeros((2, *SIZE), np.uint16))
    (root / "project-3-at-2026-01-02-03-04-abcd.json").write_text(json.dumps(tasks))
    return root


def task(*regions: dict[str, Any], data: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "data": data or {"sample": "deep/a"},
        "annotations": [{"result": regions}],
        **more,
    }


def objects(root: Path) -> list[tuple[str, np.ndarray]]:
    """Name of the class and mask of each object of the one image."""
    dataset = open_dataset(root, Raster())
    label = dataset.label(dataset.samples[0])
    return [
        (dataset.class_names[one.class_id or 0], one.mask(SIZE))
        for one in label.regions
    ]


def test_what_label_studio_exports_is_read(tmp_path: Path) -> None:
    """Skipped and older annotations, shapes whose classes are a region of their own, and what is no shape."""
    shape = {"id": "x", "points": [[50, 25], [75, 25], [75, 75], [50, 75]]}
    separate = [
        {"id": "x", "type": "polygon", "value": shape},
        {"id": "x", "type": "labels", "value": {**shape, "labels": ["worm"]}},
        {"type": "relation", "from_id": "x", "to_id": "y", "direction": "right"},
        {"id": "z", "type": "choices", "value": {"choices": ["sharp"]}},
    ]
    skipped = {"result": [], "was_cancelled": True}
    root = exported(
        tmp_path / "set", task(annotations=[{"result": [PAINTED, *separate]}, skipped])
    )
    done = convert(root, tmp_path / "out", Raster(), "coco")
    assert (done.kind, done.objects, done.notes) == ("label-studio", 2, ())
    (first, painted), (second, drawn) = objects(tmp_path / "out")
    assert (first, second) == ("cell", "worm")
    assert (painted == DISC).all()
    assert (np.argwhere(drawn).min(0).tolist(), drawn.sum()) == ([6, 16], 12 * 8)
    assert (tmp_path / "out/images/deep/a.tif").read_bytes() == (
        root / "images/deep/a.tif"
    ).read_bytes()


@pytest.mark.parametrize(
    "picture",
    ["/data/upload/1/0123abcd-b%20c.png", "http://here:9090/images/b%20c.png?x=1"],
)
def test_a_task_without_the_field_means_the_image_of_its_picture(
    tmp_path: Path, picture: str
) -> None:
    """Whoever drags pictures into Label Studio has no such field; it puts letters before the name."""
    root = exported(tmp_path / "set", task(PAINTED, data={"image": picture}))
    (root / "images/deep/a.tif").rename(root / "images/b c.tif")
    assert convert(root, tmp_path / "out", Raster(), "coco").objects == 1


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (task(PAINTED, data={"sample": "b"}), "task 7: no image 'b'"),
        (task(PAINTED, data={"image": "http://[/a.png"}), "no image 'a'"),
        (task(PAINTED, data={"image": "http://\u2100"}), "no image"),
        (task({**PAINTED, "original_width": 33}), "33"),
        (task({**PAINTED, "image_rotation": 90}), "labelled on its side"),
        (
            task(region("polygonlabels", points=[[1, "x"]])),
            "a polygon needs its numbers",
        ),
        (task(region("rectanglelabels", x=1)), "a rectangle needs its numbers"),
        (task(region("keypointlabels", x=1, y=1, width=1)), "1 shapes are points"),
        (task(BOX), "--boxes"),
        (task(annotations=[{"result": [PAINTED]}] * 2), "1 annotations"),
        ({"image": "a.png", "cell": []}, "JSON-MIN"),
    ],
)
def test_what_cannot_be_kept_is_named(
    tmp_path: Path, tasks: dict[str, Any], said: str
) -> None:
    """A loss that nobody noticed is found when the original is gone."""
    root = exported(tmp_path / "set", tasks)
    with pytest.raises((DataError, ConfigError), match=said):
        convert(root, tmp_path / "out", Raster(), "coco")
    assert not (tmp_path / "out").exists()


def label_studio_box(root: Path) -> None:
    exported(root, task(BOX))


def turned_label_studio_box(root: Path) -> None:
    """The same pixels: 12 wide and 8 high, turned by a quarter about its top left corner, to the left of it."""
    exported(
        root,
        task(
            region(
                "rectanglelabels",
                "worm",
                x=75.0,
                y=25.0,
                width=37.5,
                height=100 / 3,
                rotation=90,
            )
        ),
    )


def cvat_box(root: Path) -> None:
    exported(root).joinpath("project-3-at-2026-01-02-03-04-abcd.json").unlink()
    box = '<box label="worm" xtl="16.00" ytl="6.00" xbr="24.00" ybr="18.00"/>'
    image = f'<image id="0" name="deep/a.tif" width="32" height="24">{box}</image>'
    (root / "annotations.xml").write_text(
        f"<annotations><version>1.1</version>{image}</annotations>"
    )


def turned_cvat_box(root: Path) -> None:
    """The same pixels: CVAT turns about the centre."""
    cvat_box(root)
    text = (root / "annotations.xml").read_text()
    turned = 'xtl="14" ytl="8" xbr="26" ybr="16" rotation="90.0"'
    (root / "annotations.xml").write_text(
        text.replace('xtl="16.00" ytl="6.00" xbr="24.00" ybr="18.00"', turned)
    )


def labelme_box(root: Path) -> None:
    root.mkdir()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "a.png")
    shape = {"label": "worm", "points": [[24, 18], [16, 6]], "shape_type": "rectangle"}
    (root / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))


def yolo_box(root: Path) -> None:
    for name in ("images", "labels"):
        (root / name / "train").mkdir(parents=True)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "images/train/a.png")
    (root / "labels/train/a.txt").write_text("0 0.625 0.5 0.25 0.5\n")
    (root / "data.yaml").write_text("train: images/train\nnames: {0: worm}\n")


@pytest.mark.parametrize(
    "make",
    [
        label_studio_box,
        turned_label_studio_box,
        cvat_box,
        turned_cvat_box,
        labelme_box,
        yolo_box,
    ],
)
def test_boxes_are_filled_where_asked(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """As COCO they are prompts for `simmat predict --prompts`, which makes masks of them."""
    make(tmp_path / "set")
    convert(tmp_path / "set", tmp_path / "out", Raster(), "coco", boxes=True)
    ((name, mask),) = objects(tmp_path / "out")
    expected = np.zeros(SIZE, np.bool_)
    expected[6:18, 16:24] = True
    assert name == "worm"
    assert (mask == expected).all()


def test_the_mask_in_the_documentation_of_cvat_is_a_disc(tmp_path: Path) -> None:
    """Its runs go row by row inside the box, from background; column by column its outline would be torn."""
    cvat_box(tmp_path / "set")
    runs = "3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, 5, 3"
    path = tmp_path / "set/annotations.xml"
    shape = f'<mask label="car" source="manual" occluded="0" rle="{runs}" left="7" top="8" width="13" height="15"/>'
    path.write_text(path.read_text().replace("</image>", f"{shape}</image>"))
    convert(tmp_path / "set", tmp_path / "out", Raster(), "coco", boxes=True)
    mask = objects(tmp_path / "out")[1][1]
    rows = mask[8:23, 7:20]
    assert rows.sum() == 149
    assert [row.sum() for row in rows] == [
        5,
        7,
        9,
        11,
        11,
        12,
        12,
        13,
        13,
        12,
        12,
        11,
        9,
        7,
        5,
    ]
    # one piece a row
    assert all(np.ptp(np.flatnonzero(row)) + 1 == row.sum() for row in rows)


@pytest.mark.parametrize(
    ("origins", "predicted"),
    [
        (("manual", "prediction"), {"deep/a"}),
        (("manual", "prediction-changed"), set()),
        ((None, None), set()),
    ],
)
def test_predictions_that_nobody_corrected_mark_an_image(
    tmp_path: Path, origins: tuple[str | None, ...], predicted: set[str]
) -> None:
    """Label Studio says of each region whether a person has changed it; an older list of the folder says nothing."""
    regions = [
        {**one, "origin": origin}
        for one, origin in zip((PAINTED, BOX), origins, strict=True)
    ]
    root = exported(tmp_path / "set", task(*regions))
    (root / "predicted.csv").write_text("id\ndeep/a\n")
    convert(root, tmp_path / "out", Raster(), "masks", boxes=True, lossy=True)
    assert read_predicted(tmp_path / "out") == predicted


def test_predictions_that_nobody_accepted_are_no_labels(tmp_path: Path) -> None:
    """Else a model's answers would train as labels without anyone having looked at them."""
    open_task = task(predictions=[{"result": [PAINTED]}], annotations=[])
    root = exported(tmp_path / "set", open_task)
    with pytest.raises(DataError, match=r"no task has an annotation.*accept"):
        convert(root, tmp_path / "out", Raster(), "masks", lossy=True)
    write_image(root / "images/b.tif", np.zeros((2, *SIZE), np.uint16))
    labelled = task(PAINTED, data={"sample": "b"})
    tasks = [labelled, open_task]
    (root / "project-3-at-2026-01-02-03-04-abcd.json").write_text(json.dumps(tasks))
    with pytest.raises(ConfigError, match=r"1 tasks have predictions.*accepted"):
        convert(root, tmp_path / "out", Raster(), "masks")
    assert convert(root, tmp_path / "out", Raster(), "masks", lossy=True).images == 1
