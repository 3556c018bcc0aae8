"""Tables of which nobody has written down the columns: what is told, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from layout_trees import ivrg_nir, picture, rgb_thermal_glass, table, write
from simmat_plugin_aims.layouts import LAYOUTS

from simmat.data.samples import Sample
from simmat.errors import DataError

read_ivrg_nir, read_rgb_thermal_glass = (
    LAYOUTS[name].read for name in ("ivrg-nir", "rgb-thermal-glass")
)
TRAIN = "IVRG-nir_train_GroundTruth.csv"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An IVRG folder of four training and two test images."""
    ivrg_nir(tmp_path)
    return tmp_path


def train(root: Path, text: str) -> list[Sample]:
    """Replace the training table and read it."""
    (root / TRAIN).write_text(text, encoding="utf-8")
    found = read_ivrg_nir(root)
    assert not found.missing
    return [sample for sample in found.samples if sample.split == "train"]


def relative(root: Path, sample: Sample) -> list[str]:
    """Return rgb, nir and mask of a sample."""
    assert sample.mask is not None
    return [
        path.relative_to(root / "Outdoor_dataset").as_posix()
        for path in (*sample.files.values(), sample.mask)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "image,mask\nOutdoor_dataset/nir/train0.png,Outdoor_dataset/mask/train0.png\n",
        "mask,image\nOutdoor_dataset/mask/train0.png,Outdoor_dataset/nir/train0.png\n",
        ",ImageId,MaskId,x,y\n0,nir/train0.png,mask/train0.png,12,30\n",
        "nir/train0.png,mask/train0.png\n",
        "rgb;nir;GroundTruth\nrgb/train0.png;nir/train0.png;mask/train0.png\n",
        "image\tmask\nD:\\IVRG\\Outdoor_dataset\\nir\\train0.png\tD:\\IVRG\\Outdoor_dataset\\mask\\train0.png\n",
        "\ufeffrgb_path,mask_path\n/home/x/Outdoor_dataset/rgb/train0.png,/home/x/Outdoor_dataset/mask/train0.png\n",
    ],
    ids=[
        "two columns",
        "other order",
        "more columns",
        "no header",
        "semicolons",
        "windows",
        "colour only",
    ],
)
def test_the_columns_are_recognized_by_their_words(root: Path, text: str) -> None:
    """Whatever a release calls its columns, the same three files are meant."""
    (only,) = train(root, text)
    assert relative(root, only) == [
        "rgb/train0.png",
        "nir/train0.png",
        "mask/train0.png",
    ]


def test_a_kind_is_recognized_by_the_end_of_a_name_too(tmp_path: Path) -> None:
    """The scene data set keeps 1_nir.tiff beside 1_rgb.tiff."""
    for split in ("train", "test"):
        for kind, planes in (("rgb", 3), ("nir", 1), ("label", 1)):
            ending = "png" if kind == "label" else "tiff"
            write(
                tmp_path / f"Outdoor_dataset/field/{split}7_{kind}.{ending}",
                picture(kind, planes),
            )
        row = (f"field/{split}7_nir.tiff", f"field/{split}7_label.png")
        table(tmp_path / f"IVRG-nir_{split}_GroundTruth.csv", "a,b", [row])
    sample = read_ivrg_nir(tmp_path).samples[0]
    assert relative(tmp_path, sample) == [
        "field/train7_rgb.tiff",
        "field/train7_nir.tiff",
        "field/train7_label.png",
    ]


def test_a_thermal_array_is_recognized_by_its_ending(tmp_path: Path) -> None:
    """Where neither title nor folder says it, only one kind can be an array."""
    rgb_thermal_glass(tmp_path)
    for path in (tmp_path / "train/thermal", tmp_path / "test/thermal"):
        path.rename(path.with_name("array"))
    for path in tmp_path.glob("*.csv"):
        path.write_text(
            path.read_text()
            .replace("/thermal/", "/array/")
            .replace("thermal_path", "second")
        )
    assert len(read_rgb_thermal_glass(tmp_path).samples) == 6


def test_a_row_for_each_object_makes_one_sample(root: Path) -> None:
    """A table of clicks names one image many times."""
    rows = "image,mask,x,y\n" + "nir/train0.png,mask/train0.png,1,2\n" * 3
    assert len(train(root, rows)) == 1


def test_a_mask_for_each_object_makes_several_samples_with_ids_of_their_own(
    root: Path,
) -> None:
    """Ids must be unique, and such samples must not be parted into train and val, which goes by the image."""
    write(root / "Outdoor_dataset/mask/other.png", picture("m", 1))
    rows = "image,mask\nnir/train0.png,mask/train0.png\nnir/train0.png,mask/other.png\n"
    assert [sample.id for sample in train(root, rows)] == [
        "Outdoor_dataset/rgb/train0",
        "Outdoor_dataset/rgb/train0#2",
    ]


def test_rows_that_name_no_file_are_listed(root: Path) -> None:
    """With the line, so that it can be found in a table of thousands."""
    (root / TRAIN).write_text(
        "image,mask\nnir/train0.png,mask/train0.png\nnir/gone.png,mask/train1.png\n"
    )
    (line,) = read_ivrg_nir(root).missing
    assert f"{TRAIN} line 3: nir 'nir/gone.png'" in line


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "images"),
        ("image,click\nnir/train0.png,7\n", "masks"),
        (
            "nir,mask,mask\nnir/train0.png,mask/train0.png,mask/train1.png\n",
            "two .*mask",
        ),
    ],
)
def test_columns_that_cannot_be_recognized_are_refused(
    root: Path, text: str, why: str
) -> None:
    """A guess between masks would train on the wrong ones."""
    with pytest.raises(DataError, match=rf"{why}.*nir: nir, infrared"):
        train(root, text)


def test_a_name_that_two_files_have_is_not_guessed(root: Path) -> None:
    """A table that leaves out the folder may mean either."""
    write(root / "Outdoor_dataset/b/nir/train0.png", picture("n", 1))
    (root / TRAIN).write_text("image,mask\nnir/train0.png,mask/train0.png\n")
    (line,) = read_ivrg_nir(root).missing
    assert re.search(
        "'nir/train0.png' .*Outdoor_dataset/b/nir/train0.png .*Outdoor_dataset/nir/train0.png",
        line,
    )
