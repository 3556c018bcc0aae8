"""`simmat data convert`: labels survive the way through every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from simmat_plugin_convert.command import command
from simmat_plugin_convert.convert import Conversion, convert

from simmat.data.dataset import Dataset, open_dataset
from simmat.data.formats.coco import draw_segmentation
from simmat.data.predicted import read_predicted, write_predicted
from simmat.errors import ConfigError, DataError, OutputError, SimMATError
from simmat.io.images import write_image
from simmat.sensors.builtin import Raster

FORMATS = ("coco", "labelme", "cvat", "yolo", "label-studio")
SIZE = (24, 32)


def squares() -> np.ndarray:
    """Three objects of two classes; one has a hole, one is in two pieces that touch at a corner."""
    mask = np.zeros(SIZE, np.uint8)
    mask[2:9, 3:10] = 1
    mask[4:6, 5:8] = 0
    mask[12:14, 4:8] = 2
    mask[14:17, 8:11] = 2
    mask[20:22, 20:30] = 1
    return mask


def mask_set(
    root: Path, card: str = 'regions = "components"\n', *, splits: bool = False
) -> Path:
    """Write three 16-bit images with masks."""
    for number, split in enumerate(("train", "val", "test")):
        inner = split if splits else "."
        planes = (
            np.random.default_rng(number)
            .integers(0, 60000, (5, *SIZE))
            .astype(np.uint16)
        )
        for folder in ("images", "masks"):
            (root / folder / inner).mkdir(parents=True, exist_ok=True)
        write_image(root / "images" / inner / f"s{number}.tif", planes)
        write_image(
            root / "masks" / inner / f"s{number}.png",
            np.roll(squares(), number, axis=1)[None],
        )
    (root / "card.toml").write_text(card)
    return root


def found(root: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return sample -> class name and mask of its objects, sorted."""
    dataset = open_dataset(root, Raster())
    return {
        sample.id: sorted(
            (
                dataset.class_names.get(one.class_id or 0, ""),
                one.window,
                one.crop.tobytes(),
            )
            for one in dataset.label(sample).regions
        )
        for sample in dataset.samples
    }


NAMED = 'regions = "components"\nnodata = 0\nmin_region = 4\n\n[class_names]\n1 = "ring"\n2 = "steps, two"\n'


@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_masks_come_back_to_the_pixel(
    tmp_path: Path, kind: str, polygons: bool
) -> None:
    """Labels are the most expensive part of a data set; a change of tools must not change them."""
    start = mask_set(tmp_path / "masks", NAMED, splits=True)
    there = convert(start, tmp_path / kind, Raster(), kind, polygons=polygons)
    assert (there.kind, there.images, there.objects, there.notes) == ("masks", 3, 9, ())
    back = convert(tmp_path / kind, tmp_path / "back", Raster(), "masks")
    assert (back.kind, back.notes) == (kind, ())
    assert found(tmp_path / "back") == found(start)
    for path in (start / "images").rglob("*.tif"):
        again = tmp_path / "back" / path.relative_to(start)
        assert again.read_bytes() == path.read_bytes()
    card = open_dataset(tmp_path / "back", Raster()).card
    assert (card.regions, card.nodata, card.min_region) == ("panoptic", 0, 4)


def coco_set(
    root: Path, annotations: list[dict[str, object]], size: tuple[int, int] = SIZE
) -> Path:
    """Write a COCO data set of three images; all annotations are of the first."""
    (root / "images").mkdir(parents=True)
    images = []
    for number in range(3):
        Image.fromarray(np.full(size, number, np.uint8)).save(
            root / f"images/i{number}.png"
        )
        images.append(
            {
                "id": number,
                "file_name": f"i{number}.png",
                "height": size[0],
                "width": size[1],
            }
        )
    rows = [
        {"id": n, "image_id": 0, "category_id": 1, "iscrowd": 0, **row}
        for n, row in enumerate(annotations)
    ]
    categories = [
        {"id": n, "name": name} for n, name in enumerate(("cell", "worm"), start=1)
    ]
    document = {"images": images, "annotations": rows, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(document))
    return root


def test_a_yolo_set_that_validates_on_its_training_images_is_read_once(
    tmp_path: Path,
) -> None:
    """Ultralytics' own example has train = val; two copies of an image would be a leak."""
    start = convert(
        mask_set(tmp_path / "masks", splits=True), tmp_path / "yolo", Raster(), "yolo"
    )
    listing = tmp_path / "yolo" / "data.yaml"
    content = yaml.safe_load(listing.read_text())
    listing.write_text(yaml.safe_dump({**content, "val": content["train"]}))
    done = convert(tmp_path / "yolo", tmp_path / "coco", Raster(), "coco")
    assert (start.images, done.images) == (3, 2)  # train and test
    assert len(done.notes) == 1
    assert "train/s0.tif in train and val" in done.notes[0]


OVERLAPPING = [
    {"segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]},
    {"segmentation": [[6, 6, 20, 6, 20, 20, 6, 20]], "category_id": 2},
    {"segmentation": [[7, 7, 22, 7, 22, 10, 7, 10]], "category_id": 2},
]


@pytest.mark.parametrize("kind", FORMATS[1:])
def test_objects_that_overlap_keep_their_pixels_order_and_class(
    tmp_path: Path, kind: str
) -> None:
    """Where one object lies on another, both are whole in the file."""
    start = coco_set(tmp_path / "coco", OVERLAPPING)
    convert(start, tmp_path / kind, Raster(), kind)
    convert(tmp_path / kind, tmp_path / "back", Raster(), "coco")

    def ordered(root: Path) -> list[tuple[object, ...]]:
        dataset = open_dataset(root, Raster())
        label = dataset.label(
            next(sample for sample in dataset.samples if sample.id.endswith("i0"))
        )
        return [
            (dataset.class_names[one.class_id or 0], one.window, one.crop.tobytes())
            for one in label.regions
        ]

    assert ordered(tmp_path / "back") == ordered(start)
    assert len(ordered(start)) == 3


CROWD = {"segmentation": [[25, 0, 32, 0, 32, 9, 25, 9]], "iscrowd": 1}
HIDING = {"segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]], "iscrowd": 1}


@pytest.mark.parametrize("kind", ["labelme", "cvat", "label-studio"])
def test_areas_to_ignore_come_back(tmp_path: Path, kind: str) -> None:
    """Nobody looked there; as background, right answers would count as wrong."""
    start = coco_set(tmp_path / "coco", [*OVERLAPPING[:1], CROWD])
    convert(start, tmp_path / kind, Raster(), kind)
    convert(tmp_path / kind, tmp_path / "back", Raster(), "coco")
    convert(tmp_path / kind, tmp_path / "masks", Raster(), "masks")
    for root in (tmp_path / "back", tmp_path / "masks"):
        dataset = open_dataset(root, Raster())
        label = dataset.label(
            next(sample for sample in dataset.samples if sample.id == "i0")
        )
        assert label.ignore.sum() == 63
        assert [one.area for one in label.regions] == [100]


@pytest.mark.parametrize(
    ("to", "annotations", "said"),
    [
        ("yolo", [*OVERLAPPING[:1], CROWD], "ignore"),
        ("masks", OVERLAPPING, "2 objects overlap"),
        ("masks", [OVERLAPPING[0], HIDING], "1 objects reach into areas to ignore"),
    ],
)
def test_what_a_format_cannot_hold_is_reported_and_nothing_is_written(
    tmp_path: Path, to: str, annotations: list[dict[str, object]], said: str
) -> None:
    """A loss that nobody noticed is found when the original is gone."""
    start = coco_set(tmp_path / "coco", annotations)
    with pytest.raises(ConfigError, match=said):
        convert(start, tmp_path / "out", Raster(), to)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


TOUCHING = [
    {"segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]},
    {"segmentation": [[12, 2, 20, 2, 20, 12, 12, 12]]},
    {
        "segmentation": [
            [2, 14, 6, 14, 6, 18, 2, 18],
            [20, 14, 24, 14, 24, 18, 20, 18],
        ],
        "category_id": 2,
    },
]


@pytest.mark.parametrize("hidden", [None, 1002, 2])
def test_objects_that_touch_or_are_in_pieces_keep_class_and_pixels_as_masks(
    tmp_path: Path, hidden: int | None
) -> None:
    """Neither a class nor a number alone holds them; the ignored value is never that of an object."""
    start = tmp_path / "labelme"
    convert(coco_set(tmp_path / "coco", [*TOUCHING, CROWD]), start, Raster(), "labelme")
    if hidden is not None:
        start.joinpath("card.toml").write_text(f"ignore = {hidden}\n")
    done = convert(start, tmp_path / "out", Raster(), "masks")
    assert done.notes == ()
    dataset = open_dataset(tmp_path / "out", Raster())
    assert dataset.card.regions == "panoptic"
    label = dataset.label(
        next(sample for sample in dataset.samples if sample.id == "i0")
    )
    assert label.ignore.sum() == 63
    regions = [
        (dataset.class_names[one.class_id or 0], one.window, one.area)
        for one in label.regions
    ]
    assert regions == [
        ("cell", (2, 2, 12, 12), 100),
        ("cell", (2, 12, 12, 20), 80),
        ("worm", (14, 2, 18, 24), 32),
    ]


def test_more_objects_of_a_class_than_masks_count_are_refused(tmp_path: Path) -> None:
    """Number 1000 of class 1 would be the background of class 2."""
    boxes = [(2 * (n % 40), 2 * (n // 40)) for n in range(1000)]
    rows = [
        {"segmentation": [[x, y, x + 2, y, x + 2, y + 2, x, y + 2]]} for x, y in boxes
    ]
    start = coco_set(tmp_path / "coco", rows[:999], size=(60, 80))
    assert convert(start, tmp_path / "out", Raster(), "masks").objects == 999
    start = coco_set(tmp_path / "coco2", rows, size=(60, 80))
    with pytest.raises(ConfigError, match="at most 999 objects"):
        convert(start, tmp_path / "out2", Raster(), "masks")


def test_values_above_16_bits_make_a_mask_of_32(tmp_path: Path) -> None:
    """The classes of a card may have any number."""
    start = coco_set(tmp_path / "coco", TOUCHING[:2])
    document = json.loads(
        (start / "annotations.json")
        .read_text()
        .replace('"category_id": 1', '"category_id": 70')
    )
    document["categories"][0]["id"] = 70
    (start / "annotations.json").write_text(json.dumps(document))
    convert(start, tmp_path / "out", Raster(), "masks")
    assert found(tmp_path / "out") == found(start)
    assert (tmp_path / "out/masks/i0.tif").is_file()


@pytest.mark.parametrize("kind", FORMATS)
def test_objects_without_a_class_have_none_when_they_come_back(
    tmp_path: Path, kind: str
) -> None:
    """Instance masks know no classes; all other formats need one, which is called object."""
    start = mask_set(tmp_path / "masks", 'regions = "instances"\n')
    convert(start, tmp_path / kind, Raster(), kind)
    convert(tmp_path / kind, tmp_path / "back", Raster(), "masks")
    dataset = open_dataset(tmp_path / "back", Raster())
    assert (dataset.card.regions, dataset.class_names) == ("instances", {})
    assert sum(len(dataset.label(sample).regions) for sample in dataset.samples) == 6


def test_images_are_linked_or_left_where_they_are(tmp_path: Path) -> None:
    """Rasters of many gigabytes need no second copy."""
    start = mask_set(tmp_path / "masks", NAMED)
    convert(start, tmp_path / "linked", Raster(), "coco", images="link")
    assert (tmp_path / "linked/images/s0.tif").is_symlink()
    assert found(tmp_path / "linked") == found(start)
    convert(start, tmp_path / "labels", Raster(), "yolo", images="none")
    assert not list((tmp_path / "labels").rglob("*.tif"))


def test_labels_of_the_tools_themselves_are_read(tmp_path: Path) -> None:
    """Files as LabelMe, CVAT and Ultralytics write them, not only as we do."""
    root = tmp_path / "cvat"
    (root / "images/deep").mkdir(parents=True)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "images/deep/a.png")
    (root / "annotations.xml").write_text(
        """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><job><labels>
        <label><name>b</name></label><label><name>a</name></label></labels></job></meta>
        <image id="7" name="deep/a.png" width="32" height="24">
        <polygon label="a" source="manual" occluded="0" points="2.00,2.00;6.00,2.00;6.00,5.00;2.00,5.00" z_order="1"/>
        <mask label="b" source="manual" occluded="0" rle="1, 4, 1" left="10" top="3" width="3" height="2" z_order="0"/>
        <tag label="a" source="manual"/></image></annotations>"""
    )
    done = convert(root, tmp_path / "out", Raster(), "coco")
    assert done.objects == 2
    dataset = open_dataset_of_one(tmp_path / "out")
    (first, second) = dataset["annotations"]
    assert (
        first["category_id"],
        first["area"],
        second["category_id"],
        second["area"],
    ) == (1, 4, 2, 12)
    drawn = draw_segmentation(first["segmentation"], SIZE)
    assert drawn[3:5, 10:13].tolist() == [[False, True, True], [True, True, False]]


def open_dataset_of_one(root: Path) -> dict[str, list[dict[str, object]]]:
    """Return the COCO document of a folder."""
    document: dict[str, list[dict[str, object]]] = json.loads(
        (root / "annotations.json").read_text()
    )
    return document


def labelme(root: Path, *shapes: dict[str, object], image: str = "a.png") -> None:
    """Write one LabelMe file."""
    root.mkdir(exist_ok=True)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "a.png")
    document = {
        "imagePath": image,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
        "shapes": list(shapes),
    }
    (root / "a.json").write_text(json.dumps(document))


def shape(
    label: object = "cell", kind: str = "polygon", **more: object
) -> dict[str, object]:
    return {
        "label": label,
        "points": [[2, 2], [9, 2], [9, 9]],
        "shape_type": kind,
        **more,
    }


def yolo(root: Path, line: str, **content: object) -> None:
    """Write one YOLO label file."""
    for name in ("images", "labels"):
        (root / name / "train").mkdir(parents=True)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "images/train/a.png")
    (root / "labels/train/a.txt").write_text(line)
    (root / "data.yaml").write_text(
        yaml.safe_dump({"train": "images/train", "names": {0: "cell"}, **content})
    )


def tagged(root: Path, value: str) -> None:
    """Write a YOLO data set with one more value in data.yaml."""
    yolo(root, SQUARE)
    with (root / "data.yaml").open("a") as file:
        file.write(f"more: {value}\n")


def endless() -> list[Any]:
    """A few lines of yaml, whose whole text would fill any memory."""
    names: list[Any] = ["a"]
    for _ in range(40):
        names = [names] * 9
    return names


def cvat(root: Path, text: str) -> None:
    root.mkdir()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "a.png")
    (root / "annotations.xml").write_text(text)


def damaged_among_good(root: Path) -> None:
    labelme(root, shape())
    (root / "b.json").write_text('{"shapes": [')


def image_damaged(root: Path) -> None:
    labelme(root, shape())
    (root / "a.png").write_bytes(b"damaged")


IMAGE = '<annotations><version>1.1</version><image id="0" name="{}" width="32" height="{}">{}</image></annotations>'


def box(**changes: str) -> str:
    """Return the xml of CVAT for one box."""
    values = {"xtl": "1", "ytl": "1", "xbr": "9", "ybr": "9", **changes}
    stated = " ".join(f'{name}="{value}"' for name, value in values.items())
    return IMAGE.format("a.png", 24, f'<box label="a" {stated}/>')


def endless_runs() -> str:
    """Return a mask of CVAT whose runs add up to a number of more digits than Python writes."""
    runs = ",".join(["9" * 4300] * 12)
    return f'<mask label="a" rle="{runs}" left="0" top="0" width="3" height="2"/>'


SQUARE = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root.mkdir(), "no labels found"),
        (lambda root: None, "no such folder"),
        (lambda root: labelme(root, shape("")), "no class name"),
        (lambda root: labelme(root, shape(3)), "no class name"),
        (lambda root: labelme(root, shape("a\nb")), "cannot be written"),
        (lambda root: labelme(root, shape(points=[[1, 1], [2, 2]])), "3 corners"),
        (
            lambda root: labelme(root, shape(points=[[40, 2], [50, 2], [50, 9]])),
            "outside",
        ),
        (
            lambda root: labelme(
                root, shape(points=[[1, 1], [2, float("nan")], [5, 5]])
            ),
            "finite",
        ),
        (
            lambda root: labelme(
                root, shape(kind="mask", points=[[0, 0], [3, 3]], mask="????")
            ),
            "base64",
        ),
        (lambda root: labelme(root, shape(), image="../../etc/passwd"), "outside"),
        (lambda root: labelme(root, shape(), image="/etc/passwd"), "outside"),
        (lambda root: labelme(root, shape(), image="missing.png"), "no such image"),
        (lambda root: labelme(root, shape(kind="rectangle")), "left out"),
        (damaged_among_good, "b.json"),
        (image_damaged, "a.png"),
        (lambda root: yolo(root, SQUARE.replace("0 ", "4 ", 1)), "class 4 has no name"),
        (lambda root: yolo(root, SQUARE, names=None), "name"),
        (lambda root: yolo(root, SQUARE, names=["a", "a"]), "same name"),
        (lambda root: yolo(root, SQUARE, names=endless()), "names"),
        (lambda root: yolo(root, SQUARE, path="a" * 2**20), "larger than 1 MiB"),
        (lambda root: yolo(root, SQUARE, train="../../elsewhere"), "outside"),
        (lambda root: yolo(root, SQUARE, train="images/none"), "no such folder"),
        (lambda root: yolo(root, "0 1.5 1.5 1.7 1.5 1.7 1.7\n"), "outside"),
        (lambda root: yolo(root, "cell 0.1 0.1\n"), "line 1"),
        (lambda root: yolo(root, "0 0.5 0.5 0.2 0.2\n"), "left out"),
        (lambda root: cvat(root, "<annotations>"), "XML"),
        (
            lambda root: cvat(root, '<!DOCTYPE a [<!ENTITY b "c">]><annotations/>'),
            "entities",
        ),
        (
            lambda root: cvat(root, "<annotation><folder/></annotation>"),
            "CVAT for images 1.1",
        ),
        (lambda root: cvat(root, IMAGE.format("../../a.png", 24, "")), "outside"),
        (lambda root: yolo(root, "0 1e308 0.1 1e308 0.5 0.5 0.5\n"), "finite"),
        (lambda root: yolo(root, SQUARE, nc=10**150), "a number of 151 characters"),
        (lambda root: tagged(root, "!!int ''"), "data.yaml: not a yaml file"),
        (lambda root: tagged(root, "!!float ''"), "data.yaml: not a yaml file"),
        (lambda root: tagged(root, "!!bool x"), "data.yaml: not a yaml file"),
        (lambda root: tagged(root, "!!timestamp x"), "data.yaml: not a yaml file"),
        (
            lambda root: cvat(root, IMAGE.format("b" * 10**4, 24, "")),
            "no such image",
        ),
        (
            lambda root: cvat(
                root, IMAGE.format("b.png", 24, "").replace('"0"', f'"{"b" * 10**6}"')
            ),
            "no such image",
        ),
        (lambda root: yolo(root, SQUARE, train="b" * 10**4), "no such folder"),
        (lambda root: cvat(root, box(rotation="inf")), "must be finite numbers"),
        (lambda root: cvat(root, box(rotation="nan")), "must be finite numbers"),
        (
            lambda root: cvat(root, IMAGE.format("a.png", 24, endless_runs())),
            "do not add up",
        ),
        (lambda root: cvat(root, IMAGE.format("a.png", 25, "")), "32x25"),
        (
            lambda root: cvat(
                root,
                IMAGE.format("a.png", 24, '<polygon label="" points="1,1;5,1;5,5"/>'),
            ),
            "class name",
        ),
        (
            lambda root: cvat(
                root, IMAGE.format("a.png", 24, '<polygon label="a" points="1,1;x"/>')
            ),
            "points",
        ),
        (
            lambda root: cvat(
                root,
                IMAGE.format(
                    "a.png",
                    24,
                    '<mask label="a" rle="1,9" left="0" top="0" width="2" height="2"/>',
                ),
            ),
            "add up",
        ),
        (
            lambda root: cvat(
                root,
                IMAGE.format(
                    "a.png",
                    24,
                    '<mask label="a" rle="0,4" left="31" top="0" width="2" height="2"/>',
                ),
            ),
            "outside",
        ),
    ],
)
def test_bad_input_is_refused_with_its_place_and_nothing_is_written(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    """One clear error each, before a file is written; what comes from strangers leaves no folder."""
    root = tmp_path / "set"
    make(root)
    with pytest.raises(SimMATError, match=said) as error:
        convert(root, tmp_path / "out", Raster(), "coco")
    assert "set" in str(error.value)
    assert not (tmp_path / "out").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"set"}


def test_a_name_that_formats_cannot_hold_is_refused(tmp_path: Path) -> None:
    """XML and lists by line would name another file than the one that is there."""
    start = mask_set(tmp_path / "masks", NAMED)
    for path in (start / "images/s1.tif", start / "masks/s1.png"):
        path.rename(path.with_stem("a\n\udcff"))
    with pytest.raises(ConfigError, match="rename"):
        convert(start, tmp_path / "out", Raster(), "cvat")
    assert not (tmp_path / "out").exists()


def with_ids(start: Path, *ids: str) -> None:
    """Write a manifest with these ids for the three images."""
    rows = [f"{id},images/s{n}.tif,masks/s{n}.png" for n, id in enumerate(ids)]
    (start / "manifest.csv").write_text("\n".join(["id,image,mask", *rows]))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_id_does_not_name_a_file_outside_of_the_new_folder(
    tmp_path: Path, kind: str
) -> None:
    """An absolute one did, and overwrote what was there; ids may be paths, and are inside of the folder."""
    start = mask_set(tmp_path / "masks", NAMED)
    outside = tmp_path / "outside/s"
    with_ids(start, str(outside), "./day 1//s1", "s2")
    convert(start, tmp_path / "out", Raster(), kind, lossy=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks", "out"]
    names = {str(path) for path in (tmp_path / "out").rglob("*")}
    for inner in (str(outside).strip("/"), "day 1/s1", "s2"):
        assert any(name.endswith(f"/{inner}.tif") for name in names), inner


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("../x", "'../x'.*rename it"),
        ("a/../b", "'a/../b'.*rename it"),
        ("..", "rename it"),
        (".", "rename it"),
        ("n" * 300, "at most 200 bytes; shorten it"),
        ("./s0", "names the same file as 's0'"),
        ("s0.tif/b", "the folder 's0.tif' may be a file of 's0'; rename one"),
        (".x.deadbeef.simmat-tmp", "begin with a dot are not read; rename it"),
        ("a/.b/c", "begin with a dot are not read; rename it"),
    ],
)
def test_an_id_that_cannot_name_a_file_is_refused(
    tmp_path: Path, id: str, said: str
) -> None:
    """By its name, before anything is written."""
    start = mask_set(tmp_path / "masks", NAMED)
    with_ids(start, "s0", id, "s2")
    with pytest.raises(ConfigError, match=said):
        convert(start, tmp_path / "out", Raster(), "masks")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks"]


def test_a_folder_with_files_is_not_written_into(tmp_path: Path) -> None:
    """What was there stays, whatever it is."""
    start = mask_set(tmp_path / "masks", NAMED)
    for out in (start, start / "out", tmp_path):
        with pytest.raises(OutputError):
            convert(start, out, Raster(), "coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks"]


def test_counts_of_a_conversion(tmp_path: Path) -> None:
    """Images without a mask are no background, so they are left out, which is a loss."""
    start = mask_set(tmp_path / "masks", NAMED)
    write_image(start / "images/extra.tif", np.zeros((1, *SIZE), np.uint8))
    with pytest.raises(ConfigError, match="--lossy"):
        convert(start, tmp_path / "out", Raster(), "coco")
    done = convert(start, tmp_path / "out", Raster(), "coco", lossy=True)
    assert isinstance(done, Conversion)
    assert done.images == 3
    assert isinstance(open_dataset(tmp_path / "out", Raster()), Dataset)


def test_an_object_with_the_box_of_the_area_to_ignore_is_written(
    tmp_path: Path,
) -> None:
    """Two masks of one box were compared as arrays, which ends in a ValueError."""
    frame = {"segmentation": [[0, 0, 32, 0, 32, 24, 0, 24]]}
    corners = {
        "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4], [28, 20, 32, 20, 32, 24, 28, 24]],
        "iscrowd": 1,
    }
    start = coco_set(tmp_path / "coco", [frame, corners])
    convert(start, tmp_path / "again", Raster(), "coco")
    rows = json.loads((tmp_path / "again" / "annotations.json").read_text())[
        "annotations"
    ]
    assert [row["iscrowd"] for row in rows] == [0, 1]


def turned_set(root: Path) -> Path:
    """Write a set of three JPEG images with masks; the EXIF of the first turns it upside down."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        exif = Image.Exif()
        exif[0x0112] = 3 if number == 0 else 1
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(
            root / f"images/i{number}.jpg", exif=exif
        )
        write_image(root / f"masks/i{number}.png", squares()[None])
    (root / "card.toml").write_text(NAMED.replace("nodata = 0\n", ""))
    return root


@pytest.mark.parametrize("kind", ["labelme", "cvat", "yolo", "label-studio"])
def test_images_that_exif_turns_are_refused_both_ways(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These tools turn them, SimMAT does not: labels would lie upside down, and no size shows it."""
    start = turned_set(tmp_path / "set")
    with pytest.raises(DataError, match=r"i0\.jpg: its EXIF orientation is 3"):
        convert(start, tmp_path / "out", Raster(), kind)
    convert(start, tmp_path / "coco", Raster(), "coco")  # which does not turn them
    with monkeypatch.context() as patch:
        patch.setattr("simmat_plugin_convert.convert.ROTATED_BY_EXIF", ())
        convert(start, tmp_path / kind, Raster(), kind)
    with pytest.raises(DataError, match=r"i0\.jpg: its EXIF orientation is 3"):
        convert(tmp_path / kind, tmp_path / "back", Raster(), "masks")


def test_a_mask_larger_than_its_image_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a few bytes could ask for 2 GiB a shape."""
    start = mask_set(tmp_path / "masks", NAMED)
    convert(start, tmp_path / "cvat", Raster(), "cvat")
    path = tmp_path / "cvat" / "annotations.xml"
    shape = '<mask label="ring" rle="2147483648" left="0" top="0" width="65536" height="32768"/>'
    path.write_text(path.read_text().replace("</image>", f"{shape}</image>", 1))
    real = np.repeat
    monkeypatch.setattr(
        np,
        "repeat",
        lambda a, n: pytest.fail("decoded") if np.sum(n) > 2**20 else real(a, n),
    )
    with pytest.raises(
        DataError,
        match="a mask of 65536x32768 is larger than the image, which is 32x24",
    ):
        convert(tmp_path / "cvat", tmp_path / "back", Raster(), "masks")


def test_splits_that_a_training_wrote_down_come_along(tmp_path: Path) -> None:
    """Drawn anew, an image that a model was trained on could become a test image."""
    start = mask_set(tmp_path / "masks")
    (start / "splits.csv").write_text("id,split\ns0,test\ns1,train\ns2,val\n")
    convert(start, tmp_path / "coco", Raster(), "coco")
    samples = open_dataset(tmp_path / "coco", Raster()).samples
    splits = {sample.id.rpartition("/")[2]: sample.split for sample in samples}
    assert splits == {"s0": "test", "s1": "train", "s2": "val"}


@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize("kind", ["masks", *FORMATS])
def test_labels_of_a_model_stay_marked(
    tmp_path: Path, kind: str, *, splits: bool
) -> None:
    """There and back: else they would validate the model that made them."""
    data = mask_set(tmp_path / "data", NAMED, splits=splits)
    predicted = {"train/s0", "test/s2"} if splits else {"s0", "s2"}
    write_predicted(data, predicted)
    there = tmp_path / kind
    done = convert(data, there, Raster(), kind)
    assert any("2 images were made by a model" in note for note in done.notes)
    convert(there, tmp_path / "back", Raster(), "masks")
    back = open_dataset(tmp_path / "back", Raster())
    names = {one.split("/")[-1] for one in predicted}
    marked = {one.id.split("/")[-1] for one in back.samples if one.predicted}
    assert marked == names
    assert len(back.samples) == 3


def test_scores_of_coco_mark_an_image(tmp_path: Path) -> None:
    """The json of `simmat predict`, as the labels of a data set."""
    root = tmp_path / "coco"
    convert(mask_set(tmp_path / "data"), root, Raster(), "coco")
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"][0]["score"] = 0.9
    (root / "annotations.json").write_text(json.dumps(content))
    convert(root, tmp_path / "masks", Raster(), "masks")
    assert read_predicted(tmp_path / "masks") == {"s0"}


def test_shapes_that_cvat_made_alone_mark_an_image(tmp_path: Path) -> None:
    """Its interactive tools, which a person clicks, are "semi-auto"."""
    root = tmp_path / "cvat"
    convert(mask_set(tmp_path / "data"), root, Raster(), "cvat")
    text = (root / "annotations.xml").read_text()
    assert 'source="auto"' not in text
    first, second, third = text.split("</image>")[:3]
    first = first.replace('source="file"', 'source="auto"', 1)
    second = second.replace('source="file"', 'source="semi-auto"', 1)
    rest = text.split("</image>", 3)[3]
    (root / "annotations.xml").write_text("</image>".join([first, second, third, rest]))
    convert(root, tmp_path / "masks", Raster(), "masks")
    assert read_predicted(tmp_path / "masks") == {"s0"}


def test_objects_take_no_more_memory_than_an_image_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line is an object as large as its image, and a file holds millions of lines."""
    yolo(tmp_path / "set", "0 0 0 1 0 1 1 0 1\n" * 100)
    monkeypatch.setenv("SIMMAT_MAX_IMAGE_GIB", str(10_000 / 2**30))
    with pytest.raises(DataError, match=r"a\.txt.*SIMMAT_MAX_IMAGE_GIB"):
        convert(tmp_path / "set", tmp_path / "out", Raster(), "coco")
    assert not (tmp_path / "out").exists()


@pytest.mark.plugins
def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    """Counts are what one compares with the tool that the labels came from."""
    start = mask_set(tmp_path / "masks", "")
    options = [
        "--regions",
        "components",
        "--to",
        "cvat",
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(command, [str(start), *options])
    assert result.exit_code == 0, result.output
    assert "3 images with 9 objects as cvat" in result.output
