"""Which images a call of `simmat predict` has: folders of a sensor with several sources, and earlier results."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import GRAY, tiny_bundle
from installed import need_plugins
from PIL import Image
from runs import registry

import simmat
from simmat.errors import ConfigError, DataError
from simmat.inference import ImageOutcome
from simmat.predictor import Predictor
from simmat.sensors.builtin import Rgb
from simmat.sensors.normalize import Statistics

REGISTRY = registry()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of colour and gray images, as it is before training."""
    channels = (*Rgb().channels, GRAY)
    return tiny_bundle(
        tmp_path_factory.mktemp("pairs") / "bundle",
        modality="rgb+gray",
        sensor_channels=channels,
        channels=tuple(channel.with_statistics(60.0, 20.0) for channel in channels),
        statistics=Statistics(
            (60.0,) * 4,
            (20.0,) * 4,
            tuple(map(tuple, np.eye(4).tolist())),
            (1000,) * 4,
        ),
        zero_shot=((1.0,) * 4,) * 3,
        image_size=32,
        mat="channel-attention",
        mat_options={},
    )


def write_pairs(folder: Path, names: tuple[str, ...] = ("a", "b")) -> Path:
    """Write colour and gray images of the same names into `rgb/` and `gray/` of a folder."""
    rng = np.random.default_rng(0)
    for name in names:
        for source, shape in (("rgb", (40, 56, 3)), ("gray", (40, 56))):
            file = folder / source / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(file)
    return folder


def write_unaligned(folder: Path) -> Path:
    """Write a pair whose gray image has half the resolution, with the number of the column as its values."""
    write_pairs(folder, ("a",))
    columns = np.tile(np.arange(28, dtype=np.uint8), (20, 1))
    Image.fromarray(columns).save(folder / "gray/a.png")
    (folder / "card.toml").write_text(
        'regions = "instances"\n[alignment.gray]\nreference = "rgb"\n'
        "matrix = [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]]\n"
    )
    return folder


def measured(
    bundle: Path | Predictor, files: Any, out: Path, **options: Any
) -> list[ImageOutcome]:
    """Measure what a click marks in each image."""
    if "everything" not in options:
        options["points"] = [(20, 10)]
    return simmat.predict(
        bundle, files, out=out, measure=True, registry=REGISTRY, **options
    )


def images_of_table(out: Path) -> set[str]:
    """Return the images with a row in the table."""
    with (out / "objects.csv").open(newline="") as stream:
        return {row["image"] for row in csv.DictReader(stream)}


def test_a_folder_of_pairs_gives_what_a_call_for_each_pair_gives(
    bundle: Path, tmp_path: Path
) -> None:
    """Two cameras write hundreds of pairs, whose objects belong into one table."""
    data, out = tmp_path / "data", tmp_path / "out"
    write_pairs(data / "images")
    found = measured(bundle, data, out)
    assert [one.name for one in found] == ["a", "b"]
    assert images_of_table(out) == {"a", "b"}
    pair = {source: data / f"images/{source}/b.png" for source in ("rgb", "gray")}
    single = tmp_path / "single"
    measured(bundle, pair, single)
    rows = (out / "objects.csv").read_text().splitlines()
    of_b = [row for row in rows if row.startswith("b,")]
    assert (single / "objects.csv").read_text().splitlines()[1:] == of_b
    again = measured(bundle, data, out)
    assert all(one.skipped for one in again)
    assert (out / "objects.csv").read_text().splitlines() == rows


@pytest.mark.parametrize(
    ("layout", "folder", "names"),
    [
        ("images", "", ["a", "b"]),
        ("images", "images", ["a", "b"]),
        ("images/train", "", ["train__a", "train__b"]),
        ("", "", ["a", "b"]),
    ],
)
def test_pairs_are_found_in_the_layouts_of_a_data_set(
    bundle: Path, tmp_path: Path, layout: str, folder: str, names: list[str]
) -> None:
    """A folder that can be trained on can be predicted, and so can the folders that cameras wrote."""
    data = tmp_path / "data"
    write_pairs(data / layout)
    found = measured(bundle, data / folder, tmp_path / "out")
    assert [one.name for one in found] == names


def test_a_manifest_says_which_files_are_a_pair(bundle: Path, tmp_path: Path) -> None:
    """Cameras count their files separately."""
    data = write_pairs(tmp_path / "data")
    (data / "gray/b.png").rename(data / "gray/other.png")
    (data / "manifest.csv").write_text(
        "id,rgb,gray\nnight/1,rgb/b.png,gray/other.png\n"
    )
    found = measured(bundle, data, tmp_path / "out")
    assert [one.name for one in found] == ["night__1"]


def test_a_missing_file_of_a_pair_is_named_before_any_work(
    bundle: Path, tmp_path: Path
) -> None:
    """Pairs whose numbers slipped would all be of two scenes."""
    data, out = tmp_path / "data", tmp_path / "out"
    write_pairs(data / "images")
    (data / "images/gray/b.png").unlink()
    with pytest.raises(DataError, match=r"no file of 'gray' beside images/rgb/b\.png"):
        measured(bundle, data, out)
    assert not out.exists()


def test_a_folder_without_a_source_of_missing_channels_has_the_files_of_the_others(
    bundle: Path, tmp_path: Path
) -> None:
    """At night, the thermal camera is alone; files of both sensors may have the same ending."""
    data = tmp_path / "data"
    write_pairs(data / "images")
    found = measured(bundle, data, tmp_path / "one", missing=["gray"])
    assert [one.name for one in found] == ["a", "b"]
    assert all(one.error is None for one in found)
    shutil.rmtree(data / "images/rgb")
    missing = ["red", "green", "blue"]
    plain = measured(bundle, data / "images/gray", tmp_path / "two", missing=missing)
    assert [one.name for one in plain] == ["a", "b"]


def test_pairs_are_not_taken_for_something_else(bundle: Path, tmp_path: Path) -> None:
    """One file is no pair, pairs are no tiles of a map, and results are no images."""
    data = tmp_path / "data"
    write_pairs(data / "images")
    with pytest.raises(ConfigError, match=r"--source rgb=FILE.*or a folder"):
        measured(bundle, data / "images/rgb/a.png", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--mosaic.*several"):
        measured(bundle, data, tmp_path / "out", everything=True, mosaic=True)
    with pytest.raises(ConfigError, match="contains the images"):
        measured(bundle, data, data)
    assert not (tmp_path / "out").exists()


def test_a_bundle_takes_the_alignment_of_another_rig(
    bundle: Path, tmp_path: Path
) -> None:
    """Who trains on registered images has cameras of their own."""
    data, out = write_unaligned(tmp_path / "data"), tmp_path / "out"
    refused = measured(bundle, data, out)
    assert "simmat align" in str(refused[0].error)
    found = measured(bundle, data, out, data=data)
    assert found[0].error is None
    again = measured(bundle, data, out, data=data)
    assert again[0].skipped
    card = data / "card.toml"
    card.write_text(card.read_text().replace("[0.5, 0, 0]", "[0.5, 0, 1]"))
    changed = measured(bundle, data, out, data=data)
    assert not changed[0].skipped


def test_the_untuned_model_takes_the_card_of_a_data_set(tmp_path: Path) -> None:
    """Measuring with two cameras needs no training."""
    need_plugins("lite")
    data, out = write_unaligned(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(ConfigError, match=r"--data .*card\.toml"):
        simmat.load(foundation="lite", modality="rgb+gray", data=tmp_path)
    untuned = simmat.load(
        foundation="lite",
        modality="rgb+gray",
        image_size=64,
        device="cpu",
        data=data,
        registry=registry("lite"),
    )
    files = {source: data / f"{source}/a.png" for source in ("rgb", "gray")}
    gray = untuned.set_image(files).data[3]
    np.testing.assert_allclose(gray[0, :10], np.arange(10) / 2)
    found = measured(untuned, data, out)
    assert found[0].error is None


def test_prompts_name_images_of_several_sources(bundle: Path, tmp_path: Path) -> None:
    """One click for each pair, by its id or by its first file."""
    data = write_pairs(tmp_path / "data")
    out, prompts = tmp_path / "out", tmp_path / "prompts.csv"
    prompts.write_text('file,object,point\na,cow,"20,20"\nrgb/b.png,calf,"30,9"\n')
    found = simmat.predict(bundle, data, out=out, prompts=prompts)
    assert [outcome.error for outcome in found] == [None, None]
    names = {path.name for path in out.glob("*_mask.png")}
    assert names == {"a_cow_mask.png", "rgb__b_calf_mask.png"}
    prompts.write_text('file,object,point\nc.png,cow,"20,20"\n')
    with pytest.raises(DataError, match=r"c\.png: no image of .*its images are a, b"):
        simmat.predict(bundle, data, out=out, prompts=prompts)
    files = {source: data / f"{source}/a.png" for source in ("rgb", "gray")}
    with pytest.raises(ConfigError, match="give the folder"):
        simmat.predict(bundle, files, out=out, prompts=prompts)
