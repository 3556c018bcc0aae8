"""Folders alone: images and masks of the same names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from data_sets import (
    Pair,
    Planes,
    folder_of,
    one_square,
    open_planes,
    save_image,
    save_mask,
)

from simmat.data.formats.folders import find_samples, unlabelled_samples
from simmat.errors import DataError
from simmat.sensors.adapter import Source


def put(root: Path, *names: str) -> Path:
    """Write an image or a mask at each path."""
    for name in names:
        (save_mask if name.lower().endswith(("png", "jpg")) else save_image)(
            root / name, one_square()
        )
    return root


def complaint(root: Path) -> str:
    """What scanning says."""
    with pytest.raises(DataError) as caught:
        find_samples(root, Planes.sources)
    return str(caught.value)


def test_images_and_masks_of_one_name_are_a_sample(tmp_path: Path) -> None:
    """The simplest data set needs no table."""
    listing = open_planes(folder_of(tmp_path, 5))
    assert [sample.id for sample in listing.samples] == ["s0", "s1", "s2", "s3", "s4"]
    assert {
        sample.mask.stem == sample.id for sample in listing.samples if sample.mask
    } == {True}
    assert {sample.split for sample in listing.samples} == {"train", "val", "test"}


def test_endings_in_capitals_hidden_files_and_folders_do_not_disturb(
    tmp_path: Path,
) -> None:
    """Cameras write .NPY or .TIF, systems write .DS_Store."""
    put(
        tmp_path,
        *(f"images/{n}.npy" for n in "ab c"),
        *(f"masks/{n}.PNG" for n in "ab c"),
    )
    (tmp_path / "images/a.npy").rename(tmp_path / "images/a.NPY")
    (tmp_path / "images/.DS_Store").write_text("")
    assert [sample.id for sample in find_samples(tmp_path, Planes.sources)] == [
        " ",
        "a",
        "b",
        "c",
    ]


def test_folders_named_after_splits_say_the_split(tmp_path: Path) -> None:
    """The usual layout of published sets; equal names in two splits are two samples."""
    splits = ("train", "val", "test")
    put(
        tmp_path,
        "images/.cache/0.npy",
        *(f"images/{s}/0.npy" for s in splits),
        *(f"masks/{s}/0.png" for s in splits),
    )
    found = find_samples(tmp_path, Planes.sources)
    assert [(sample.id, sample.split) for sample in found] == [
        (f"{s}/0", s) for s in sorted(splits)
    ]
    assert found[0].mask == tmp_path / "masks/test/0.png"


def test_one_mask_does_not_serve_two_images(tmp_path: Path) -> None:
    """train/0 and test/0 are different scenes."""
    put(tmp_path, "images/train/0.npy", "images/test/0.npy", "masks/0.png")
    assert re.search(r"masks/0\.png: .*masks/train/", complaint(tmp_path))


def test_several_sources_lie_in_folders_of_their_names(tmp_path: Path) -> None:
    """A sample is one file of each."""
    put(
        tmp_path,
        *(f"images/{s}/{n}.npy" for s in ("left", "right") for n in "abc"),
        *(f"masks/{n}.png" for n in "abc"),
    )
    found = find_samples(tmp_path, Pair.sources)[0]
    assert found.files == {
        "left": tmp_path / "images/left/a.npy",
        "right": tmp_path / "images/right/a.npy",
    }


BANDS = (Source("green", ("_1.npy",)), Source("red", ("_2.npy",)))
"""Sources that differ in their endings."""


def test_files_of_several_sources_may_be_side_by_side(tmp_path: Path) -> None:
    """Cameras of several bands write IMG_0001_1.tif, IMG_0001_2.tif, … into one folder."""
    names = [f"images/000/IMG_{n}_{band}.npy" for n in (1, 2) for band in (1, 2)]
    put(tmp_path, *names, "masks/000/IMG_1.png", "masks/000/IMG_2.png")
    for samples in (
        find_samples(tmp_path, BANDS),
        unlabelled_samples(tmp_path / "images", BANDS),
        find_samples(tmp_path / "images", BANDS, masks=False),
    ):
        assert [sample.id for sample in samples] == ["000/IMG_1", "000/IMG_2"]
        assert samples[1].files == {
            "green": tmp_path / names[2],
            "red": tmp_path / names[3],
        }
    (tmp_path / names[3]).unlink()
    with pytest.raises(DataError, match=r"'000/IMG_2' .*'red'"):
        find_samples(tmp_path, BANDS)


def test_sources_that_endings_do_not_tell_apart_need_folders(tmp_path: Path) -> None:
    """With `.npy` and `_2.npy`, a file of the second is one of the first, too."""
    put(tmp_path, "images/a_1.npy", "images/a_2.npy", "masks/a.png")
    with pytest.raises(DataError, match="images/red/"):
        find_samples(tmp_path, (Source("green", (".npy",)), BANDS[1]))


def test_a_source_without_its_folder_is_named(tmp_path: Path) -> None:
    """Most often it is called otherwise."""
    put(tmp_path, "images/left/a.npy", "images/rigth/a.npy", "masks/a.png")
    with pytest.raises(DataError, match=r"images/right/ .*'right'"):
        find_samples(tmp_path, Pair.sources)


def test_all_mismatches_are_reported_at_once(tmp_path: Path) -> None:
    """One run, one list."""
    put(
        tmp_path,
        "images/a.npy",
        "images/b.bmp.npy",
        "images/c.npy",
        "masks/c.png",
        "masks/c.tif.png",
        "masks/x.png",
    )
    put(tmp_path, "masks/c.jpg")
    (tmp_path / "images/c.NPY").write_bytes(b"")
    message = complaint(tmp_path)
    for words in (
        "masks/x.png: .*image",
        "two masks .*masks/c.jpg, masks/c.png",
        "two images .*images/c.NPY, images/c.npy",
    ):
        assert re.search(words, message), words


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("images/validation/a.npy", "masks/a.png"), "images/validation/.*'val'"),
        (
            ("images/Train/a.npy", "images/Test/b.npy", "masks/a.png", "masks/b.png"),
            "images/Train/.*'train'",
        ),
        (
            ("images/train/a.npy", "images/TEST/b.npy", "masks/a.png", "masks/b.png"),
            "images/TEST/.*'test'",
        ),
        (("images/planes/train/a.npy", "masks/train/a.png"), "images/train/planes/"),
        (("images/planes/Valid/a.npy", "masks/Valid/a.png"), "images/val/planes/"),
        (
            ("images/train/a.npy", "images/b.npy", "masks/a.png"),
            "images/ .*folders of the splits",
        ),
        (("images/train/a.npy", "images/trian/b.npy", "masks/a.png"), "trian .*train/"),
        (("images/.hidden.npy", "masks/a.png"), r"images/ .*\(.npy\)"),
        (("images/a.npy",), "masks/"),
        ((), "images/"),
    ],
)
def test_layouts_that_could_be_misread_are_refused(
    tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    """A split folder taken for part of a name would mix train and test."""
    assert re.search(words, complaint(put(tmp_path, *names)))


def test_masks_named_by_a_rule_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """a_mask.png for a.npy is usual; a thousand of them are one problem."""
    put(
        tmp_path,
        *(f"images/a{n}.npy" for n in range(4)),
        *(f"masks/a{n}_mask.png" for n in range(4)),
    )
    found = complaint(tmp_path)
    assert re.search(r"same names.*manifest\.csv", found)
    assert re.search(r"4 files, first masks/a0_mask\.png", found)


def test_images_without_a_mask_are_set_aside_and_the_others_divided(
    tmp_path: Path,
) -> None:
    """300 images with 20 masks is how labelling begins; each split gets its part of the 20."""
    put(
        tmp_path,
        *(f"images/{n:03}.npy" for n in range(300)),
        *(f"masks/{n:03}.png" for n in range(0, 300, 15)),
    )
    listing = open_planes(tmp_path)
    assert len(listing.unlabelled) == 280
    splits = [sample.split for sample in listing.samples]
    assert [splits.count(name) for name in ("train", "val", "test")] == [14, 3, 3]


def test_folders_within_are_part_of_the_id_also_behind_links(tmp_path: Path) -> None:
    """Large sets lie elsewhere and are linked; a link in a circle must not hang the scan."""
    put(
        tmp_path,
        *(f"store/i/{n}.npy" for n in "abc"),
        *(f"store/m/{n}.png" for n in "abc"),
    )
    for kind, target in (("images", "i"), ("masks", "m")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "site").symlink_to(
            tmp_path / "store" / target, target_is_directory=True
        )
        (tmp_path / "store" / target / "round").symlink_to(
            tmp_path / kind, target_is_directory=True
        )
    assert [sample.id for sample in find_samples(tmp_path, Planes.sources)] == [
        "site/a",
        "site/b",
        "site/c",
    ]
