"""Windows of images: when a training takes them, which, and what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from data_sets import Planes, open_planes, save_image

from simmat.data.augment import Augmentation
from simmat.data.batches import TrainingItems
from simmat.data.card import DataCard
from simmat.data.crops import choose_crop, crop_windows, plan_blocks
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.index import read_index
from simmat.data.pipeline import Pipeline
from simmat.errors import DataError
from simmat.evaluation.scoring import trained_card
from simmat.io.tiff import TiffImage
from simmat.sensors.adapter import PathsBySource
from simmat.sensors.builtin import Raster
from simmat.sensors.normalize import fit_channels
from simmat.types import SensorImage, Window

SIDE, CROP = 160, 16


def scene(root: Path, height: int = SIDE, width: int = SIDE) -> Path:
    """A folder with one image whose values are the positions of its pixels, and squares of 6 pixels 10 apart."""
    position = np.arange(height * width, dtype=np.float32).reshape(height, width)
    save_image(root / "images/scene.npy", position[None])
    mask = np.zeros((height, width), np.uint16)
    for number, (y, x) in enumerate(
        np.ndindex((height - 6) // 10 + 1, (width - 6) // 10 + 1), start=1
    ):
        mask[10 * y : 10 * y + 6, 10 * x : 10 * x + 6] = number
    (root / "masks").mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(root / "masks/scene.tif", mask, tile=(16, 16), compression="zlib")
    return root


def pixels(dataset: Dataset, split: str) -> set[float]:
    """The pixels of the image that are in a split."""
    return {
        value
        for sample in dataset.split(split)
        for value in dataset.image(sample).data.ravel().tolist()
    }


def items_of(dataset: Dataset, **settings: Any) -> TrainingItems:
    index = read_index(dataset)
    samples = index.training_samples()
    channels = fit_channels(
        index.dataset.channels(),
        index.statistics(samples),
        pixel_mean=(0.0,) * 3,
        pixel_std=(1.0,) * 3,
    )
    pipeline = Pipeline(dataset.adapter, channels, 32)
    given: dict[str, Any] = {
        "augmentation": Augmentation.none(),
        "prompts": 2,
        "batch_size": 2,
        "seed": 3,
        **settings,
    }
    return TrainingItems(index.dataset, samples, pipeline, **given)


@pytest.mark.parametrize(
    "size_hw", [(160, 160), (37, 500), (9, 9), (16, 250), (1000, 1000)]
)
def test_blocks_cover_every_pixel_once(size_hw: tuple[int, int]) -> None:
    """A pixel in two blocks could be in training and test; one in none would be lost."""
    seen = np.zeros(size_hw, np.int64)
    for block in plan_blocks(size_hw, CROP):
        seen[block.slices] += 1
    assert (seen == 1).all()


def test_windows_lie_in_their_block_and_apart() -> None:
    """A pixel in two windows would be scored twice."""
    block = Window(32, 16, 70, 90)
    seen = np.zeros((100, 100), np.int64)
    for window in crop_windows(block, CROP):
        assert window.size_hw == (CROP, CROP)
        seen[window.slices] += 1
    assert seen.max() == 1
    assert seen[block.slices].sum() == seen.sum() == 2 * 4 * CROP**2


def test_splits_share_no_pixel(tmp_path: Path) -> None:
    """Neighbouring pixels are alike, so a shared one makes scores too good."""
    dataset = open_planes(scene(tmp_path), crop=CROP)
    found = [pixels(dataset, split) for split in ("train", "val", "test")]
    assert all(found)
    assert len(set.union(*found)) == sum(map(len, found))
    assert all(
        dataset.image(sample).size_hw == (CROP, CROP) for sample in dataset.split("val")
    )
    assert open_planes(tmp_path, crop=CROP).samples == dataset.samples


def test_a_window_is_that_part_of_image_and_mask(tmp_path: Path) -> None:
    """Image and mask are read window by window, and must stay on one grid."""
    dataset = open_planes(scene(tmp_path), crop=CROP)
    whole = open_planes(scene_in_three(tmp_path / "whole"))
    image, label = whole.image(whole.samples[0]), whole.label(whole.samples[0])
    union = np.zeros(label.size_hw, np.bool_)
    for region in label.regions:
        union |= region.mask(label.size_hw)
    for sample in dataset.samples[:8]:
        assert sample.window is not None
        assert np.array_equal(
            dataset.image(sample).data, image.data[:, *sample.window.slices]
        )
        cut = dataset.label(sample, dataset.image(sample))
        here = np.zeros(cut.size_hw, np.bool_)
        for region in cut.regions:
            here |= region.mask(cut.size_hw)
        assert np.array_equal(here, union[sample.window.slices])


def scene_in_three(root: Path) -> Path:
    """The same image three times, so that it can be opened without a crop."""
    scene(root)
    for name in ("other", "third"):
        (root / f"images/{name}.npy").write_bytes(
            (root / "images/scene.npy").read_bytes()
        )
        (root / f"masks/{name}.tif").write_bytes(
            (root / "masks/scene.tif").read_bytes()
        )
    return root


def named_scenes(root: Path) -> Path:
    """A data set of a scene in each split."""
    for split in ("train", "val", "test"):
        scene(root / split)
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
            for path in (root / split / kind).iterdir():
                path.rename(root / kind / split / path.name)
    return root


def test_images_of_named_splits_are_not_divided(tmp_path: Path) -> None:
    """Objects at a border would be halved, and counted twice."""
    dataset = open_planes(named_scenes(tmp_path), crop=CROP)
    assert sorted((sample.id, sample.split) for sample in dataset.samples) == [
        ("test/scene", "test"),
        ("train/scene", "train"),
        ("val/scene", "val"),
    ]
    assert all(sample.window is None for sample in dataset.samples)
    assert not dataset.by_hash


@pytest.mark.parametrize(
    ("objects", "images", "input_side", "crop"),
    [
        ([30, 40, 50, 60], [256] * 4, 256, 0),  # large enough
        ([10, 12, 14, 16], [256] * 4, 256, 0),  # small, and nothing would enlarge them
        ([10, 12, 14, 16], [1024] * 4, 256, 256),  # full scale
        ([10, 12, 14, 16], [1024] * 4, 1024, 0),
        ([60, 60, 60, 60], [1800] * 4, 256, 960),  # 16 px in the input
        ([60, 60, 60, 60], [1400] * 4, 256, 0),  # hardly larger than the windows
        ([10, 10, 10, 400], [2000] * 4, 256, 683),  # holds the largest, too
        ([10] * 3 + [9] * 7, [2000] * 3 + [200] * 7, 256, 256),  # in large images only
        ([10] * 1 + [9] * 9, [2000] * 1 + [200] * 9, 256, 0),
        ([], [], 256, 0),
    ],
)
def test_windows_are_taken_where_they_enlarge_small_objects(
    objects: list[float], images: list[float], input_side: int, crop: int
) -> None:
    """Objects of few pixels in the input are missed, and windows cost time and what is around an object."""
    found, reason = choose_crop(
        np.asarray(objects, float), np.asarray(images, float), input_side
    )
    assert found == crop
    if objects:
        assert (f"windows of {crop} px" if crop else "whole images") in reason


class Traced(Planes):
    """The test sensor, which notes the windows it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[Window] = []

    def window_size(self, files: PathsBySource) -> tuple[int, int]:
        return SIDE, SIDE

    def load_window(self, files: PathsBySource, window: Window) -> SensorImage:
        self.windows.append(window)
        return self.load(files).cut(window)


def test_training_takes_other_crops_inside_the_same_blocks(tmp_path: Path) -> None:
    """Random crops are the point of --crop; one that leaves its block would train on pixels of the test split."""
    sensor = Traced()
    items = items_of(
        open_dataset(scene(tmp_path), sensor, {"regions": "instances", "crop": CROP})
    )
    blocks = [sample.window for sample in items.samples]
    sensor.windows.clear()
    for position in range(40):
        assert items[position].targets.any()
    assert len(set(sensor.windows)) > 30
    for window in sensor.windows:
        assert window.size_hw == (CROP, CROP)
        assert any(
            block is not None
            and block.y0 <= window.y0
            and window.y1 <= block.y1
            and block.x0 <= window.x0
            and window.x1 <= block.x1
            for block in blocks
        )


def test_a_bundle_brings_its_crop_and_the_numbers_of_its_classes() -> None:
    """Scores on another raster must be of the same windows, and class 1 of the same class."""
    card = DataCard(
        regions="instances", class_attribute="crop", class_names={1: "maize"}, crop=64
    )
    assert (
        trained_card(card).items()
        >= {"class_attribute": "crop", "class_names": {1: "maize"}, "crop": 64}.items()
    )
    assert "class_names" not in trained_card(
        DataCard(regions="classes", class_names={1: "maize"})
    )


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    """Its windows would be shifted against those of the image, which no window shows."""
    scene(tmp_path)
    tifffile.imwrite(tmp_path / "masks/scene.tif", np.ones((SIDE, SIDE + 16), np.uint8))
    with pytest.raises(DataError, match=rf"masks/scene\.tif.*{SIDE + 16}x{SIDE}"):
        open_planes(tmp_path, crop=CROP)


def test_an_image_of_too_few_crops_says_to_make_them_smaller(tmp_path: Path) -> None:
    """Three splits need three blocks."""
    with pytest.raises(DataError, match="smaller --crop"):
        open_planes(scene(tmp_path), crop=96).split("val")


def test_a_large_tiff_is_never_decoded_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raster of 20,000 x 20,000 pixels does not fit into memory, nor does its mask."""
    scene(tmp_path)
    (tmp_path / "images/scene.npy").unlink()
    values = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), np.uint16)
    tifffile.imwrite(
        tmp_path / "images/scene.tif", values, tile=(16, 16), compression="zlib"
    )
    read = TiffImage.read
    # None fails
    monkeypatch.setattr(
        TiffImage, "read", lambda self, window: read(self, Window(*window))
    )
    dataset = open_dataset(tmp_path, Raster(), {"regions": "instances", "crop": CROP})
    assert items_of(dataset)[0].targets.any()
