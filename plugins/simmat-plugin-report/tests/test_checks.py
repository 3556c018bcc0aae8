"""The check of a whole data set: everything wrong in one go, and hints a person can act on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_sets import folder_of, one_square, open_planes, save_image, save_mask
from simmat_plugin_report.checks import DataReport, check_dataset

from simmat.data.index import read_index
from simmat.errors import DataError


def split_folder(root: Path, **counts: int) -> Path:
    """A sound set with so many samples a split."""
    rng = np.random.default_rng(1)
    for split, count in counts.items():
        for index in range(count):
            save_image(
                root / f"images/{split}/{index}.npy", rng.normal(300, 5, (2, 8, 8))
            )
            save_mask(root / f"masks/{split}/{index}.png", one_square())
    return root


def notes_of(report: DataReport) -> list[str]:
    """Return the texts of warnings and notes."""
    return [found.text for found in report.findings if found.severity != "error"]


def test_sound_set_is_described_and_has_no_problems(tmp_path: Path) -> None:
    """The figures a person compares with what they know of their data: in °C as in pictures; json has kelvin."""
    root = split_folder(tmp_path, train=3, val=1)
    values = np.full((2, 8, 8), 290.0)
    values[0, 0, 0], values[1, :4] = 310, np.nan
    values[1, 4] = 280
    save_image(root / "images/val/0.npy", values)
    save_mask(root / "masks/train/2.png", np.zeros((8, 8)))
    report = check_dataset(open_planes(root, regions="classes"))
    assert report.errors == ()
    train, val = report.splits
    assert (train.samples, train.regions, train.without_region) == (3, 2, ("train/2",))
    assert (train.area_px, train.classes, train.sizes_hw) == (
        (9, 9, 9),
        {1: 2},
        ((8, 8, 3),),
    )
    second = val.channels[1]
    assert (second.name, second.unit, second.low, second.high, second.invalid) == (
        "p1",
        "K",
        280,
        290,
        0.5,
    )
    assert second.mean == pytest.approx(287.5)
    for words in (
        "train: 3 samples, 2 regions",
        "8x8 (3)",
        "Nothing to correct in 4 images.",
        "p1 [K, shown in °C]: 6.85 to 16.85, mean 14.35, 50.0% invalid",
    ):
        assert words in report.text()
    json.dumps(report.model_dump(mode="json"), allow_nan=False)


def test_every_bad_sample_is_reported_even_the_first(tmp_path: Path) -> None:
    """Stopping at the first would make a hundred runs of a hundred errors."""
    root = split_folder(tmp_path, train=6)
    np.save(root / "images/train/0.npy", np.zeros((1, 2, 2), dtype=np.complex64))
    save_image(root / "images/train/1.npy", np.zeros((3, 8, 8)))
    save_mask(root / "masks/train/2.png", np.ones((3, 3)))
    (root / "masks/train/3.png").write_bytes(b"")
    (root / "manifest.csv").write_text(
        "id,split,image,mask\n"
        + "".join(
            f"{i},train,images/train/{i}.npy,masks/train/{i}.png\n"
            for i in (0, 4, 1, 2, 3, 5)
        )
    )
    dataset = open_planes(root)
    bad = {"0.npy", "1.npy", "2.png", "3.png"}
    problems = check_dataset(
        replace(
            dataset, samples=tuple(s._replace(split="train") for s in dataset.samples)
        )
    ).errors
    assert {Path(problem.split(":")[0]).name for problem in problems} == bad


def test_a_split_without_any_region_is_a_problem(tmp_path: Path) -> None:
    """It cannot be scored; the cause is usually the rule or the size."""
    problems = check_dataset(
        open_planes(split_folder(tmp_path, train=2, val=1), min_region=50)
    ).errors
    assert [problem.split(":")[0] for problem in problems] == ["train", "val"]
    assert "--min-region" in problems[0]


def test_the_same_picture_in_two_splits_is_a_problem(tmp_path: Path) -> None:
    """Its score would be one of training; copies under another name count."""
    root = split_folder(tmp_path, train=2, test=2)
    (root / "images/test/1.npy").write_bytes((root / "images/train/0.npy").read_bytes())
    problems = check_dataset(open_planes(root)).errors
    assert len(problems) == 1
    assert "'train/0'" in problems[0]
    assert "'test/1'" in problems[0]


def test_constant_and_empty_channels_are_problems(tmp_path: Path) -> None:
    """Training would stop at them after the wait for statistics."""
    root = split_folder(tmp_path, train=2)
    for index in range(2):
        save_image(
            root / f"images/train/{index}.npy",
            np.stack([np.full((8, 8), 5), np.full((8, 8), np.nan)]) + 0,
        )
    report = check_dataset(open_planes(root))
    assert "Nothing to correct" not in report.text()
    problems = "\n".join(report.errors)
    assert re.search("'p0' .*-268.15 °C", problems)
    assert "'p1'" in problems


def test_a_constant_channel_of_another_split_is_a_note(tmp_path: Path) -> None:
    """Statistics are of training alone, so nothing stops."""
    root = split_folder(tmp_path, train=2, val=1)
    save_image(root / "images/val/0.npy", np.full((2, 8, 8), 5.0))
    report = check_dataset(open_planes(root))
    assert report.errors == ()
    assert re.search("val: .*'p0' .*-268.15 °C", "\n".join(notes_of(report)))


@pytest.mark.parametrize(
    ("value", "words"), [(0, "--nodata 0"), (-9999, "use --nodata -9999")]
)
def test_values_that_look_like_missing_are_pointed_out_until_nodata_is_set(
    tmp_path: Path, value: float, words: str
) -> None:
    """A hint, not a decision."""
    root = split_folder(tmp_path, train=1, val=1)
    values = np.random.default_rng(0).normal(300, 5, (2, 8, 8))
    values[0, :3] = value
    save_image(root / "images/train/0.npy", values)
    (note,) = notes_of(check_dataset(open_planes(root)))
    assert words in note
    assert "value of p0 is" in note
    assert notes_of(check_dataset(open_planes(root, nodata=value))) == []


def test_mostly_dropped_hidden_and_unnamed_regions_are_noted(tmp_path: Path) -> None:
    """Each is a likely mistake in the card."""
    root = split_folder(tmp_path, train=1)
    mask = one_square(value=3)
    mask[7, ::2] = 1
    save_mask(root / "masks/train/0.png", mask)
    values = np.random.default_rng(0).normal(300, 5, (2, 8, 8))
    values[:, 2:5, 2:5] = np.nan
    save_image(root / "images/train/0.npy", values)
    save_image(root / "images/val/0.npy", values + 1)
    save_mask(root / "masks/val/0.png", mask)
    dataset = open_planes(
        root, regions="components", min_region=2, class_names={1: "speck"}
    )
    notes = "\n".join(notes_of(check_dataset(dataset)))
    assert re.search("4 regions .*2 px .*1 are kept", notes)
    assert re.search("1 regions .*scored", notes)
    assert re.search(r"classes .*card: \[3\]", notes)


def test_objects_that_a_rule_joins_are_counted(tmp_path: Path) -> None:
    """Two nerves as one region: whoever clicks on one is then told to find both."""
    root = split_folder(tmp_path, train=3, val=1)
    several = one_square()
    several[6:8, 6:8] = several[0, 7] = 1
    save_mask(root / "masks/train/1.png", several)
    for regions, said in (
        ("classes", "In 1 of 4 images .* 1 more .*components"),
        ("components", None),
    ):
        report = check_dataset(open_planes(root, regions=regions, min_region=2))
        found = [one.text for one in report.findings if one.kind == "joined-regions"]
        assert len(found) == (said is not None)
        assert said is None or re.search(said, found[0])


def test_images_without_a_mask_are_listed(tmp_path: Path) -> None:
    """One whose mask was lost is found here, among those nobody has labelled yet."""
    root = folder_of(tmp_path, 20)
    for index in range(12):
        (root / f"masks/s{index}.png").unlink()
    report = check_dataset(open_planes(root))
    assert report.errors == ()
    assert len(report.model_dump(mode="json")["unlabelled"]) == 12
    assert "images/s0.npy" in report.text()
    assert "(12)" in report.text()
    assert "and 2 more" in report.text()


def test_equal_problems_are_listed_once(tmp_path: Path) -> None:
    """Twenty files in the wrong unit must not hide the one that is damaged."""
    root = split_folder(tmp_path, train=8, val=1)
    for name in range(2, 8):
        save_mask(root / f"masks/train/{name}.png", np.zeros((8, 8 + name)))
    np.save(root / "images/train/1.npy", np.zeros((2, 8, 8), dtype=np.complex64))
    index = read_index(open_planes(root))
    with pytest.raises(
        DataError, match=r"- .*1\.npy: .*\n  - 6 files, first .*/2\.png: .*10x8[^\n]*$"
    ):
        index.training_samples()
    report = check_dataset(index.dataset)
    assert len(report.errors) == 7
    assert "Problems (7)" in report.text()
    assert report.text().count("masks/train/") == 1
