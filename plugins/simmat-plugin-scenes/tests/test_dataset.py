"""`simulate_dataset`: a data set like any other, the same from the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simmat_plugin_scenes.camera import Noise
from simmat_plugin_scenes.dataset import simulate_dataset, split_of
from simmat_plugin_scenes.generate import generate_scene, outdoors
from simmat_plugin_scenes.render import render
from simmat_plugin_scenes.world import World

from simmat.cli import run
from simmat.data.dataset import open_dataset
from simmat.errors import ConfigError, OutputError
from simmat.io.images import read_image
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.builtin import Gray, Raster, Rgb

SIZE_HW = (32, 48)


def made(
    out: Path, count: int = 3, *, seed: int = 0, adapter: ModalityAdapter | None = None
) -> Path:
    """Simulate a tiny data set."""
    return simulate_dataset(adapter or Gray(), out, count, seed, size_hw=SIZE_HW)


@pytest.fixture(scope="module")
def gray_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set that tests only read."""
    return made(tmp_path_factory.mktemp("simulated") / "a")


def digests(folder: Path) -> dict[str, str]:
    """Return relative path -> digest of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, gray_set: Path) -> None:
    """A published figure must be reproducible from the command alone."""
    first = digests(gray_set)
    assert first == digests(made(tmp_path / "b"))
    assert first != digests(made(tmp_path / "c", seed=1))


def test_objects_of_a_sequence_move_and_keep_their_ids(
    tmp_path: Path, gray_set: Path
) -> None:
    """What follows objects is measured on such videos; the first frame is that of the sample without frames."""
    folder = simulate_dataset(Gray(), tmp_path / "a", 3, 0, size_hw=SIZE_HW, frames=5)
    samples = [
        one
        for one in open_dataset(folder, Gray()).split("train")
        if one.sequence == "s00000"
    ]
    assert [one.frame for one in samples] == list(range(5))
    masks = [
        read_image(folder / f"masks/s00000/{frame:04d}.png").planes[0]
        for frame in range(5)
    ]
    assert np.array_equal(masks[0], read_image(gray_set / "masks/s00000.png").planes[0])
    assert not np.array_equal(masks[0], masks[4])
    assert set(np.unique(masks[4])) <= set(np.unique(masks[0]))


def test_a_sample_does_not_depend_on_the_count(tmp_path: Path, gray_set: Path) -> None:
    """A larger set must hold the smaller one, or learning curves compare different data."""
    few, more = digests(gray_set), digests(made(tmp_path / "b", 4))
    assert {name: more[name] for name in few if name != "manifest.csv"} == {
        name: digest for name, digest in few.items() if name != "manifest.csv"
    }


def test_two_sensors_see_the_same_scenes(tmp_path: Path, gray_set: Path) -> None:
    """Comparing sensors on different scenes compares the scenes."""
    rgb = made(tmp_path / "rgb", adapter=Rgb())
    for mask in (gray_set / "masks").iterdir():
        assert mask.read_bytes() == (rgb / "masks" / mask.name).read_bytes()


def test_the_result_is_a_data_set_with_all_splits(gray_set: Path) -> None:
    """It must train at once, with no option said twice."""
    dataset = open_dataset(gray_set, Gray(), {})
    for split in ("train", "val", "test"):
        sample = dataset.split(split)[0]
        image = dataset.image(sample)
        assert image.size_hw == SIZE_HW
        assert len(dataset.label(sample, image).regions) >= 1


def test_masks_hold_the_exact_instances_and_classes_in_sixteen_bits(
    gray_set: Path,
) -> None:
    """Image and mask come from the same rays."""
    scene = generate_scene(np.random.default_rng([0, 0, 0]), SIZE_HW)
    mask = read_image(gray_set / "masks" / "s00000.png").planes
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask[0] % 1000, scene.instance)
    np.testing.assert_array_equal(mask[0] // 1000, scene.class_id)


def test_splits_are_seventy_fifteen_fifteen() -> None:
    """And the first three samples give each split one."""
    assert Counter(split_of(index) for index in range(40)) == {
        "train": 28,
        "val": 6,
        "test": 6,
    }
    assert {split_of(index) for index in range(3)} == {"train", "val", "test"}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    """It may be the only copy of somebody's data."""
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        made(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_sensor_that_cannot_be_simulated_says_so(tmp_path: Path) -> None:
    """`raster` has no physics to simulate."""
    with pytest.raises(ConfigError, match="'raster' cannot be simulated"):
        made(tmp_path / "a", adapter=Raster())


def test_visible_cameras_look_different_by_day_and_night() -> None:
    """Automatic exposure has an end: a night picture is dark and noisy, which is what thermal is for."""
    pictures = {}
    for night in (False, True):
        world = first_world(partial(is_night, night))
        scene = render(world, SIZE_HW, Noise(np.random.default_rng(0)))
        pictures[night] = Rgb().simulate(scene, np.random.default_rng(0)).data
    assert pictures[True].mean() < 0.6 * pictures[False].mean()
    for picture in pictures.values():
        assert picture.min() >= 0
        assert picture.max() <= 255


def first_world(wanted: Callable[[World], bool]) -> World:
    """Return the first outdoor world of a kind; nothing is rendered to find it."""
    return next(
        world
        for seed in range(100)
        if wanted(world := outdoors(np.random.default_rng(seed)))
    )


def is_night(night: bool, world: World) -> bool:
    """Tell whether it is night, or is not."""
    return (max(world.light.sun_rgb) == 0) is night


def test_the_command_writes_the_set_and_says_so(
    tmp_path: Path, gray_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's first command; width comes before height, as in every size a user reads."""
    words = [
        "data",
        "simulate",
        "--modality",
        "gray",
        "--out",
        str(tmp_path / "a"),
        "--count",
        "3",
    ]
    assert run([*words, "--size", "48", "32"]) == 0
    assert "wrote 3 samples of gray to" in capsys.readouterr().out
    assert digests(tmp_path / "a") == digests(gray_set)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 2}, "--count must be at least 3"),
        ({"count": 10**9}, "100000"),
        ({"seed": -1}, "--seed"),
        ({"frames": 10**9}, "--frames must be at most 10000"),
        ({"size_hw": (64, 10**9)}, "--size must be at most 8192, got 1000000000x64"),
        ({"size_hw": (10**9, 64)}, "--size must be at most 8192, got 64x1000000000"),
    ],
)
def test_numbers_out_of_range_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """Before the first scene is drawn: a slip of the finger took the memory, or went on for years."""
    values = {"count": 3, "seed": 0, "size_hw": SIZE_HW, **changes}
    with pytest.raises(ConfigError, match=words):
        simulate_dataset(Rgb(), tmp_path / "a", **values)
    assert list(tmp_path.iterdir()) == []
