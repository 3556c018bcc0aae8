"""manifest.csv: read as spreadsheets write it, and all its mistakes told at once."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from data_sets import Pair, Planes, one_square, open_planes, save_image, save_mask

from simmat.data.formats import manifest
from simmat.data.formats.manifest import read_manifest
from simmat.errors import DataError, SpecError
from simmat.sensors.adapter import Source


def write(root: Path, text: str | bytes, *, files: str = "abc") -> Path:
    """Write a manifest beside images and masks a, b, c."""
    (root / "manifest.csv").write_bytes(
        text if isinstance(text, bytes) else text.encode()
    )
    for name in files:
        save_image(root / f"images/{name}.npy", [one_square()])
        save_mask(root / f"masks/{name}.png", one_square())
    return root


def rows(*splits: str) -> str:
    """A sound manifest of a, b, c with these splits."""
    lines = [
        f"{n},{split},images/{n}.npy,masks/{n}.png"
        for n, split in zip("abc", splits, strict=False)
    ]
    return "\n".join(["id,split,image,mask", *lines]) + "\n"


def complaint(root: Path) -> str:
    """What reading the manifest says."""
    with pytest.raises(DataError) as caught:
        read_manifest(root, Planes.sources)
    return str(caught.value)


def test_rows_become_samples_in_order(tmp_path: Path) -> None:
    """Order and splits are the user's."""
    found = read_manifest(write(tmp_path, rows("train", "val", "test")), Planes.sources)
    assert [(sample.id, sample.split) for sample in found] == [
        ("a", "train"),
        ("b", "val"),
        ("c", "test"),
    ]
    assert found[0].files == {"planes": tmp_path / "images/a.npy"}
    assert found[0].mask == tmp_path / "masks/a.png"


def test_spreadsheet_csv_is_read(tmp_path: Path) -> None:
    """Excel writes a byte order mark, CRLF, quotes and a blank last line."""
    text = (
        "\ufeff"
        + rows("train", "val", "test").replace("b,val", '"b",val').replace("\n", "\r\n")
        + "\r\n"
    )
    assert len(read_manifest(write(tmp_path, text), Planes.sources)) == 3


def test_a_file_of_another_ending_than_the_sensor_s_is_refused_by_name(
    tmp_path: Path,
) -> None:
    """In folders and COCO it is; a slip in a column must not put masks where the images should be."""
    write(tmp_path, rows("train", "val", "test").replace("images/b.npy", "masks/b.png"))
    assert re.search(
        r"line 3: .*'masks/b.png' .*'planes' \(.npy\)", complaint(tmp_path)
    )


def test_other_columns_are_kept(tmp_path: Path) -> None:
    """Benchmarks group by what the core knows nothing of."""
    write(tmp_path, "id,split,day,image,mask\na,test,monday,images/a.npy,masks/a.png\n")
    assert read_manifest(tmp_path, Planes.sources)[0].extra == {"day": "monday"}


def test_zero_means_column_overrides_row_by_row(tmp_path: Path) -> None:
    """Sources joined in one set number their background differently; an empty cell is the card's."""
    text = "id,split,image,mask,zero_means\na,test,images/a.npy,masks/a.png,none\nb,test,images/b.npy,masks/b.png,\n"
    found = read_manifest(write(tmp_path, text), Planes.sources)
    assert [sample.zero_means for sample in found] == ["none", None]


def test_several_sources_have_a_column_each(tmp_path: Path) -> None:
    """rgb+thermal is two files a row."""
    write(
        tmp_path,
        "id,split,left,right,mask\na,test,images/a.npy,images/b.npy,masks/a.png\n",
    )
    files = read_manifest(tmp_path, Pair.sources)[0].files
    assert [path.name for path in files.values()] == ["a.npy", "b.npy"]


def test_no_source_takes_the_truth_for_the_image() -> None:
    """A sensor of that name would train and be scored on what it is to find."""
    with pytest.raises(SpecError, match=r"'mask': .*id, split, mask"):
        Source("mask", (".png",))


def test_all_bad_rows_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    """A thousand rows are mended in one go."""
    text = (
        "id,split,image,mask,zero_means\n"
        "a,trian,images/a.npy,masks/a.png,\n"
        "g,validation,images/a.npy,masks/a.png,\n"
        "\n"
        "a,val,images/gone.npy,masks/a.png,nothing\n"
        ",val,../a.npy,/etc/passwd,\n"
        "d,val,images\\a.npy,images,\n"
        "e,val,images/x/../../../a.npy,,\n"
        f"f,val,{'x' * 5000},,\n"
    )
    message = complaint(write(tmp_path, text))
    for words in (
        "line 2: .*'trian'.*'train'",
        "line 3: .*'validation'.*val",
        "line 5: .*'images/gone.npy'",
        "line 5: .*zero_means 'nothing'",
        "line 6: id",
        "line 6: .*'../a.npy' .*data folder",
        "line 6: .*'/etc/passwd' .*data folder",
        "line 7: .*'images.*a.npy'.*/ between",
        "line 7: .*'images' .*folder",
        "more",
    ):
        assert re.search(words, message), words


def test_rows_without_a_mask_are_set_aside(tmp_path: Path) -> None:
    """A table of all images, labelled or not; a mask that is named and is not there is a mistake still."""
    whole = rows("train", "val", "test")
    listing = open_planes(write(tmp_path, whole.replace("masks/c.png", "")))
    assert [sample.id for sample in listing.unlabelled] == ["c"]
    assert [sample.id for sample in listing.samples] == ["a", "b"]
    assert "masks/gone.png" in complaint(
        write(tmp_path, whole.replace("masks/b.png", "masks/gone.png"))
    )
    for name in "abc":
        whole = whole.replace(f"masks/{name}.png", "")
    with pytest.raises(DataError, match="none of the 3 images has a mask"):
        open_planes(write(tmp_path, whole))


def test_what_another_program_writes_while_a_mask_is_noted_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large manifest takes seconds to read; rows that are added meanwhile must not be lost."""
    path, read = tmp_path / "manifest.csv", manifest.read_csv_rows
    path.write_text("id,split,image,mask\na,,images/a.png,\n")
    late = [path.read_text() + "b,,images/b.png,\n"]

    def slowly(*given: Any, **more: Any) -> Any:
        found = read(*given, **more)
        while late:
            path.write_text(late.pop())
            os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(manifest, "read_csv_rows", slowly)
    manifest.set_manifest_mask(tmp_path, "a", "masks/a.png")
    assert (
        path.read_text()
        == "id,split,image,mask\na,,images/a.png,masks/a.png\nb,,images/b.png,\n"
    )


def test_double_ids_are_refused(tmp_path: Path) -> None:
    """Results are filed by id."""
    assert "id 'a'" in complaint(
        write(tmp_path, rows("train", "val", "test").replace("b,val", "a,val"))
    )


def test_half_filled_split_column_is_refused(tmp_path: Path) -> None:
    """Deciding for the empty rows could put a neighbour of a test image into train."""
    assert "1 row" in complaint(write(tmp_path, rows("train", "val", "")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,split,Image,mask\n", "'image'.*'Image'"),
        ("id,split,image\n", "'mask'"),
        ("id,image,mask,mask\n", "'mask' .*twice"),
        ("id;split;image;mask\n", "commas"),
        ("id,image,mask\na,images/a.npy\n", "line 2: .*2 .*3"),
        ("id,image,mask\n", "no rows"),
        ("", "empty"),
        (b"id,image,mask\n\xff\xfe", "UTF-8"),
        ('id,image,mask\n"a,b', "not valid CSV"),
    ],
)
def test_a_table_of_another_form_says_what_is_wrong(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    """Each has its own remedy."""
    message = complaint(write(tmp_path, text))
    assert re.search(words, message)
    assert "manifest.csv" in message


def test_pairs_without_labels_need_no_column_of_masks(tmp_path: Path) -> None:
    """A manifest of images alone is what there is before anybody labels."""
    write(tmp_path, "id,image\na,images/a.npy\n")
    assert "'mask'" in complaint(tmp_path)
    (sample,) = read_manifest(tmp_path, Planes.sources, masks=False)
    assert not sample.has_mask
