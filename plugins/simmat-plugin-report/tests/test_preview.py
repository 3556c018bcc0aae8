"""Sheets of the images of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import folder_of, one_square, open_planes, save_image, save_mask
from PIL import Image
from simmat_plugin_report import preview
from simmat_plugin_report.preview import (
    PreviewPanel,
    Sheet,
    panels_of,
    preview_sheets,
    track_numbers,
)

from simmat.cli import run
from simmat.data.dataset import open_dataset
from simmat.io.images import write_image
from simmat.sensors.builtin import Raster
from simmat.types import Channel

RGB = tuple(Channel(name, "srgb", "count") for name in ("red", "green", "blue"))
THERMAL = Channel("thermal", "brightness_temperature", "K", wavelength_um=10.0)


def bands(*wavelengths: float | None) -> list[Channel]:
    return [
        Channel(f"b{i}", "reflectance", "1", wavelength_um=w)
        for i, w in enumerate(wavelengths)
    ]


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (
            [*RGB, THERMAL],
            [PreviewPanel("true colour", (0, 1, 2)), PreviewPanel("thermal", (3,))],
        ),
        (bands(0.49, 0.56, 0.66, 0.84), [PreviewPanel("false colour", (3, 2, 0))]),
        (bands(0.84, 1.6, 2.2), [PreviewPanel("false colour", (2, 1, 0))]),
        (bands(0.66, 0.84), [PreviewPanel("b0", (0,)), PreviewPanel("b1", (1,))]),
        (bands(*[None] * 12), [PreviewPanel("false colour", (0, 1, 2))]),
        (
            [*bands(0.49, 0.56, 0.66), THERMAL],
            [PreviewPanel("false colour", (2, 1, 0)), PreviewPanel("thermal", (3,))],
        ),
    ],
)
def test_pictures_follow_the_channels(
    channels: list[Channel], expected: list[PreviewPanel]
) -> None:
    """Bands make false colour; what has a scale of its own is shown by itself."""
    assert list(panels_of(channels)) == expected


def test_labels_are_drawn_over_the_pictures(tmp_path: Path) -> None:
    """Whether a mask fits its object is what one looks for first."""
    dataset = open_planes(folder_of(tmp_path / "set", 3, channels=1, size=40))
    with_labels, without = (
        np.asarray(next(iter(preview_sheets(dataset, dataset.samples, labels=labels))))
        for labels in (True, False)
    )
    assert (with_labels != without).any()


def test_a_scale_for_all_shows_equal_values_in_equal_colours(tmp_path: Path) -> None:
    """A cold and a warm image look alike when each has its own scale."""
    for number, level in enumerate((280, 290, 300)):
        save_image(
            tmp_path / f"images/s{number}.npy",
            level + np.linspace(0, 5, 1600).reshape(1, 40, 40),
        )
        save_mask(tmp_path / f"masks/s{number}.png", one_square(40))
    dataset = open_planes(tmp_path)
    own, same = (
        np.asarray(
            next(
                iter(
                    preview_sheets(
                        dataset, dataset.samples, labels=False, same_scale=scale
                    )
                )
            )
        )[80:200]
        for scale in (False, True)
    )
    middles = [
        [int(sheet[60, 18 + 120 + number * 260].sum()) for number in range(3)]
        for sheet in (own, same)
    ]
    assert max(middles[0]) - min(middles[0]) < 20
    assert middles[1][0] < middles[1][1] < middles[1][2]


def test_one_unreadable_image_leaves_the_others_visible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sheet shows where the fault is; all faults are said."""
    root = folder_of(tmp_path / "set", 4, channels=1)
    for name in ("s0", "s2"):  # the first shows what channels there are
        (root / f"images/{name}.npy").write_bytes(b"damaged")
    out = tmp_path / "sheet.png"
    assert (
        run(["data", "preview", str(root), "--modality", "raster", "--out", str(out)])
        == 0
    )
    assert "s2 is not shown" in capsys.readouterr().err
    with Image.open(out) as sheet:
        assert sheet.width > 400


def test_of_a_large_image_the_middle_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A satellite scene is larger than memory."""
    mask = np.zeros((300, 410), np.uint16)
    mask[40:200, 50:330] = 1
    for folder, plane in (("images", mask * 900 + np.arange(410)), ("masks", mask)):
        (tmp_path / folder).mkdir()
        for name in "abc":
            write_image(
                tmp_path / folder / f"{name}.tif", plane[None].astype(np.uint16)
            )
    dataset = open_dataset(tmp_path, Raster(), {"regions": "classes"})
    monkeypatch.setattr(preview, "MAX_PIXELS", 1000)
    monkeypatch.setattr(preview, "MIDDLE_PX", 64)
    item = preview.read_item(dataset, dataset.samples[0], labels=True)
    assert item.image is not None
    assert item.label is not None
    assert (item.size_hw, item.image.size_hw, item.label.size_hw) == (
        (300, 410),
        (64, 64),
        (64, 64),
    )
    np.testing.assert_array_equal(
        item.image.data[0, 0], mask[118, 173:237] * 900.0 + np.arange(173, 237)
    )
    assert len(list(preview_sheets(dataset, dataset.samples[:1]))) == 1


def test_names_that_cannot_be_drawn_are_escaped(tmp_path: Path) -> None:
    """Files come from strangers: line breaks, bytes that are not UTF-8, and names of classes of any kind."""
    root = folder_of(tmp_path / "set", 3, channels=1)
    for folder, ending in (("images", ".npy"), ("masks", ".png")):
        (root / folder / f"s1{ending}").rename(root / folder / f"a\n\udcff<b>{ending}")
    dataset = open_planes(root, regions="classes", class_names={1: "c\x07\n☃"})
    (sheet,) = preview_sheets(dataset, dataset.samples)
    assert sheet.width > 300


def test_many_images_make_numbered_sheets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sheet of hundreds of images shows none of them."""
    root = folder_of(tmp_path / "set", 5, channels=1)
    monkeypatch.setattr(preview, "PER_SHEET", 2)
    command = ["data", "preview", str(root), "--modality", "raster"]
    assert run([*command, "--out", str(tmp_path / "out/sheet.png")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"sheet-{n}.png" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "sheet.jpg"], ".png"),
        (["--out", "sheet.svg"], ".png"),
        (["--out", "sheet.png", "--count", "0"], "count"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One clear error, before anything is read."""
    root = folder_of(tmp_path / "set", 4, channels=1)
    monkeypatch.chdir(tmp_path)
    assert run(["data", "preview", str(root), "--modality", "raster", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("same_scale", [False, True])
@pytest.mark.parametrize("damaged", [0, 1])
def test_a_sheet_whose_images_are_all_damaged_says_so_in_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, same_scale: bool, damaged: int
) -> None:
    """It has the size of the others, wherever it is among them."""
    dataset = open_planes(folder_of(tmp_path / "set", 3, channels=1, size=40))
    samples = dataset.samples[:2]
    samples[damaged].reference.write_bytes(b"no image")
    problems: list[tuple[str, str]] = []
    monkeypatch.setattr(preview, "PER_SHEET", 1)
    sheets = list(
        preview_sheets(dataset, samples, same_scale=same_scale, problems=problems)
    )
    assert [name for name, _ in problems] == [samples[damaged].id]
    assert sheets[0].size == sheets[1].size
    cell = np.asarray(sheets[damaged])[80:180, 30:240]
    # lines of text, not a column of letters
    assert (cell.max(axis=2) > 200).any(axis=0).mean() > 0.4


def test_a_sequence_is_a_strip_and_a_track_keeps_its_colour(tmp_path: Path) -> None:
    """What one looks for is whether an object is the same one in the next frame."""
    for name in "ab":
        for number in range(20):
            save_image(
                tmp_path / f"frames/{name}/{number}.npy",
                np.full((1, 40, 40), 280 + number),
            )
            mask = 3 * one_square(40)
            mask[20:23, 20:23] = 1 if number < 4 else 0  # the first object leaves
            save_mask(tmp_path / f"masks/{name}/{number}.png", mask)
    dataset = open_planes(tmp_path)
    shown = preview.shown_samples(dataset.samples, 12)
    assert [sample.id for sample in shown[::3]] == ["a/0", "a/10", "b/0", "b/10"]
    items = [preview.read_item(dataset, sample, labels=True) for sample in shown]
    sheet = Sheet(dataset, items, [PreviewPanel("p0", (0,))], same_scale=True)
    assert [row for row, _ in sheet.places(8)] == [0] * 6 + [1] * 6
    assert [track_numbers(item) for item in items[:3]] == [[1, 3], [1, 3], [3]]
