"""`simmat data index`: a data set over published folders that stay as they are."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from layout_trees import RELEASED_TEST, TREES, tree
from runs import files_of
from simmat_plugin_aims.index import index_layout
from simmat_plugin_aims.layouts import LAYOUTS

from simmat.cli import run
from simmat.data.card import load_card
from simmat.errors import DataError, OutputError

Rows = list[dict[str, str]]


def index(layout: str, root: Path, **options: object) -> Rows:
    """Index a folder and return the manifest's rows."""
    folder, _ = index_layout(layout, root, **options)  # type: ignore[arg-type]
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("layout", sorted(TREES))
def test_every_file_of_the_manifest_is_there_and_the_original_folder_stays(
    tmp_path: Path, layout: str
) -> None:
    """Published data lie on shared and read-only disks, and training must not stumble over what indexing promised."""
    before = files_of(tree(layout, tmp_path / "data"))
    rows = index(layout, tmp_path / "data")
    columns = [name for name in rows[0] if name not in ("id", "split")]
    assert rows
    assert all(
        (tmp_path / "data-simmat" / row[name]).is_file()
        for row in rows
        for name in columns
    )
    assert files_of(tmp_path / "data") == before


@pytest.mark.parametrize("layout", sorted(TREES))
def test_validation_is_drawn_from_training_alone(tmp_path: Path, layout: str) -> None:
    """The release chose its best model on the test set; a part of train does that here, always the same part."""
    rows = index(layout, tree(layout, tmp_path / "data"))
    again = index(layout, tmp_path / "data", out=tmp_path / "again")
    by_split = {
        split: {row["id"] for row in rows if row["split"] == split}
        for split in ("train", "val", "test")
    }
    assert all(by_split.values())
    assert {name.split("/")[-1] for name in by_split["test"]} == RELEASED_TEST[layout]
    assert [row["split"] for row in again] == [row["split"] for row in rows]


@pytest.mark.parametrize(
    ("layout", "side", "least"),
    [
        ("ivrg-nir", 1024, 1000),
        ("ivrg-nir", 512, 250),
        ("rgbp-glass", 512, 100),
        ("zju-rgbp", 512, 10000),
    ],
)
def test_the_threshold_is_that_of_the_benchmark(
    tmp_path: Path, layout: str, side: int, least: int
) -> None:
    """A score over other regions could not be compared. IVRG counts pixels after squashing to 1024 x 1024."""
    index(layout, tree(layout, tmp_path / "data"))
    assert load_card(tmp_path / "data-simmat", {}).smallest_px((side, side)) == least


def test_a_threshold_on_the_command_line_wins(tmp_path: Path) -> None:
    """The benchmark's choice is a default."""
    index(
        "rgbp-glass",
        tree("rgbp-glass", tmp_path / "data"),
        card={"min_region": 7, "regions": None},
    )
    assert load_card(tmp_path / "data-simmat", {}).min_region == 7


def test_broken_ids_are_left_out_and_reported(tmp_path: Path) -> None:
    """The benchmark leaves out two images of RGBP-Glass; a different set would give another score."""
    folder, found = index_layout("pgsnet", tree("rgbp-glass", tmp_path / "data"))
    assert "20210808013065" not in (folder / "manifest.csv").read_text()
    assert found.excluded == ["train/20210808013065 (broken in the release)"]


def test_the_released_val_of_zju_is_tested_on(tmp_path: Path) -> None:
    """The benchmark's figures are of that folder; validating on it would choose a model by them."""
    rows = index("zju-rgbp", tree("zju-rgbp", tmp_path / "data"))
    assert {row["id"] for row in rows if row["split"] == "test"} == {"val/d"}


def test_a_degree_sign_that_an_archive_damaged_does_not_matter(tmp_path: Path) -> None:
    """Unpacking under another locale leaves "a_0#U00b0.png"; the folder is still what was published."""
    root = tree("zju-rgbp", tmp_path / "data")
    for path in root.rglob("*°.png"):
        path.rename(
            path.with_name(
                path.name.replace("°", "#U00b0" if "a_" in path.name else "")
            )
        )
    assert len(index("zju-rgbp", root)) == 4


def test_lists_may_hold_paths_and_endings(tmp_path: Path) -> None:
    """What a line of train.txt looks like is not written down anywhere."""
    root = tree("nyudv2", tmp_path / "data")
    (root / "train.txt").write_text(
        "RGB/0001.png Depth/0001.npy\n./RGB/0002.png\n0003.png\n\n0004\n0004\n"
    )
    assert {row["id"] for row in index("nyudv2", root)} == {
        f"000{n}" for n in range(1, 7)
    }


def test_a_training_image_that_is_tested_on_is_left_out_of_training(
    tmp_path: Path,
) -> None:
    """Its score would be of an image seen in training."""
    root = tree("nyudv2", tmp_path / "data")
    (root / "train.txt").write_text("0001\n0002\n0003\n0005\n")
    _, found = index_layout("nyudv2", root)
    assert Counter(sample.split for sample in found.samples) == {
        "train": 2,
        "val": 1,
        "test": 2,
    }
    assert "1 training samples" in found.notes[0]


def test_files_that_lack_their_pair_are_listed(tmp_path: Path) -> None:
    """A half-unpacked archive should be seen before a day of training."""
    root = tree("nyudv2", tmp_path / "data")
    (root / "Depth/0002.npy").unlink()
    (root / "Mask_gt/0005.png").unlink()
    with pytest.raises(DataError) as caught:
        index("nyudv2", root)
    message = str(caught.value)
    for part in (
        "2 samples .*'nyudv2' .*--skip-missing",
        "train .*'0002' .*depth",
        "test .*'0005' .*mask",
    ):
        assert re.search(part, message)
    assert not (tmp_path / "data-simmat").exists()


def test_samples_that_are_not_whole_can_be_skipped(tmp_path: Path) -> None:
    """The folder must not be touched, so there is no other way on where a release itself is short of a file."""
    root = tree("rgbp-glass", tmp_path / "data")
    (root / "train/aolp/20210802_aolp.tiff").unlink()
    rows = index("rgbp-glass", root, skip_missing=True)
    assert {row["id"] for row in rows} == {
        "train/20210801",
        "train/20210803",
        "test/20210901",
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_another_layout_is_shown_the_right_tree(
    tmp_path: Path, layout: str
) -> None:
    """Whoever unpacked one level too deep sees what is looked for."""
    (tmp_path / "data/sub").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        index(layout, tmp_path / "data")
    assert LAYOUTS[layout].tree in str(caught.value)
    assert "  - no f" in str(caught.value)


def test_the_folder_one_level_below_is_named(tmp_path: Path) -> None:
    """An archive often holds one folder with all the rest in it."""
    tree("nyudv2", tmp_path / "data/NYUDepthv2")
    with pytest.raises(DataError, match=f"did you mean {tmp_path}/data/NYUDepthv2"):
        index("nyudv2", tmp_path / "data")


@pytest.mark.parametrize("out", ["data", "data/new", "data/../data/x/y"])
def test_nothing_is_written_into_the_data(tmp_path: Path, out: str) -> None:
    """The promise is that the folder stays untouched."""
    root = tree("nyudv2", tmp_path / "data")
    with pytest.raises(OutputError, match=r"data.*--out"):
        index("nyudv2", root, out=tmp_path / out)


def test_the_command_says_what_it_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next command stands in its answer."""
    tree("rgbp-glass", tmp_path / "data")
    assert run(["data", "index", "PGSNet", str(tmp_path / "data")]) == 0
    out, err = capsys.readouterr()
    assert f"wrote {tmp_path}/data-simmat: 4 samples (2 train, 1 val, 1 test)" in out
    assert "left out: 1\n  - train/20210808013065" in err
    assert (
        f"simmat data check {tmp_path}/data-simmat --modality polarization-aims" in err
    )


def test_both_folders_can_move_together(tmp_path: Path) -> None:
    """Beside each other they hold no absolute path, so a mounted disk may change its name."""
    index("nyudv2", tree("nyudv2", tmp_path / "a/data"))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b/data-simmat/original/RGB/0001.png").is_file()
