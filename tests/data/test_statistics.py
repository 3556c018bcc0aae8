"""Statistics of the training pixels equal numpy's on all pixels at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from data_sets import folder_of, open_planes, save_image

from simmat.data.dataset import Dataset
from simmat.data.index import read_index
from simmat.data.index_file import FOLDER
from simmat.errors import DataError
from simmat.sensors import normalize


def holey(root: Path, count: int = 5) -> tuple[Dataset, np.ndarray]:
    """A set of correlated 3-channel images of different level with holes, and all its pixels (3, P) with NaN."""
    rng = np.random.default_rng(3)
    folder_of(root, count)
    images = []
    for index in range(count):
        first = rng.normal(300 + 20 * index, 4 + index, (8, 8))
        values = np.stack(
            [first, 0.5 * first + rng.normal(0, 3, (8, 8)), rng.normal(0, 1e-3, (8, 8))]
        )
        values[rng.random(values.shape) < 0.2] = np.nan
        images.append(values.astype(np.float32))
        save_image(root / f"images/s{index}.npy", values)
    return open_planes(root), np.concatenate(
        [image.reshape(3, -1) for image in images], axis=1
    ).astype(np.float64)


def test_equal_to_numpy_over_all_valid_pixels(tmp_path: Path) -> None:
    """Streaming is an economy of memory, not an estimate."""
    dataset, pixels = holey(tmp_path)
    found = read_index(dataset).statistics(dataset.samples)
    assert np.allclose(found.mean, np.nanmean(pixels, axis=1), rtol=1e-9)
    assert np.allclose(found.std, np.nanstd(pixels, axis=1), rtol=1e-9)
    assert found.pixels == tuple(np.isfinite(pixels).sum(axis=1))
    for i in range(3):
        for j in range(3):
            both = np.isfinite(pixels[i]) & np.isfinite(pixels[j])
            expected = np.corrcoef(pixels[i, both], pixels[j, both])[0, 1]
            assert found.correlation[i][j] == pytest.approx(expected, abs=1e-9)


def test_order_and_block_size_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same data must give the same bundle on every file system."""
    dataset, _ = holey(tmp_path)
    forward = read_index(dataset).statistics(dataset.samples)
    monkeypatch.setattr(normalize, "BLOCK_VALUES", 50)
    shutil.rmtree(dataset.root / FOLDER)
    backward = read_index(dataset).statistics(dataset.samples[::-1])
    for one, other in zip(
        (forward.mean, forward.std), (backward.mean, backward.std), strict=True
    ):
        assert np.allclose(one, other, rtol=1e-9)
    assert np.allclose(forward.correlation, backward.correlation, atol=1e-9)


def test_large_offset_keeps_its_digits(tmp_path: Path) -> None:
    """Sums of squares of 1e6 would drown a std of 0.5."""
    root = folder_of(tmp_path, 3, channels=1)
    rng = np.random.default_rng(0)
    values = [
        (1e6 + rng.integers(0, 3, (1, 8, 8)) * 0.5).astype(np.float32) for _ in range(3)
    ]
    for index, planes in enumerate(values):
        save_image(root / f"images/s{index}.npy", planes)
    dataset = open_planes(root)
    expected = np.std(np.concatenate(values).astype(np.float64))
    assert read_index(dataset).statistics(dataset.samples).std[0] == pytest.approx(
        expected, rel=1e-9
    )


def test_nodata_is_left_out(tmp_path: Path) -> None:
    """-9999 in the mean would ruin every pixel."""
    root = folder_of(tmp_path, 3, channels=1)
    values = np.full((1, 8, 8), -9999.0)
    values[0, 0, :2] = 1, 3
    for index in range(3):
        save_image(root / f"images/s{index}.npy", values)
    dataset = open_planes(root, nodata=-9999)
    found = read_index(dataset).statistics(dataset.samples)
    assert (found.mean, found.std, found.pixels) == ((2.0,), (1.0,), (6,))


def test_a_channel_missing_from_the_first_images_counts_from_its_first_pixel(
    tmp_path: Path,
) -> None:
    """A band that was switched on later must not have its mean drawn to the empty start."""
    root = folder_of(tmp_path, 3)
    for index in range(3):
        values = np.stack([np.arange(64.0).reshape(8, 8), np.full((8, 8), np.nan)])
        if index:
            values[1] = 500 + values[0] * index
        save_image(root / f"images/s{index}.npy", values)
    dataset = open_planes(root)
    found = read_index(dataset).statistics(
        sorted(dataset.samples, key=lambda sample: sample.id)
    )
    both = np.concatenate([500 + np.arange(64.0), 500 + 2 * np.arange(64.0)])
    assert (found.mean[1], found.std[1]) == pytest.approx(
        (both.mean(), both.std()), rel=1e-9
    )
    assert found.correlation[0][1] == pytest.approx(
        np.corrcoef(np.tile(np.arange(64), 2), both)[0, 1], abs=1e-9
    )


def test_one_image_of_several_samples_counts_once(tmp_path: Path) -> None:
    """Three people's masks of one photograph do not make it three photographs."""
    folder_of(tmp_path, 3)
    rows = [
        f"{i}{copy},train,images/s{i}.npy,masks/s{i}.png"
        for i in range(3)
        for copy in range(1 + 5 * (i == 0))
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(["id,split,image,mask", *rows]))
    dataset = open_planes(tmp_path)
    assert read_index(dataset).statistics(dataset.samples).pixels == (192, 192)


def test_channels_without_information_are_named_all_at_once(tmp_path: Path) -> None:
    """Dividing by a std of 0 would give the network infinities."""
    values = np.random.default_rng(0).normal(size=(3, 8, 8))
    values[1], values[2] = np.nan, 0.1
    root = folder_of(tmp_path, 3)
    for index in range(3):
        save_image(root / f"images/s{index}.npy", values)
    dataset = open_planes(root)
    with pytest.raises(DataError) as caught:
        read_index(dataset).statistics(dataset.samples)
    assert "'p1'" in str(caught.value)
    assert "'p2' is 0.1 K in every valid pixel" in str(caught.value)
    assert "--channels" in str(caught.value)


def test_progress_is_reported_for_every_sample(tmp_path: Path) -> None:
    """A minute without a sign looks like a hang."""
    dataset, _ = holey(tmp_path)
    steps: list[int] = []
    read_index(dataset, steps.append)
    assert sum(steps) == len(dataset.samples)


def test_channels_never_seen_together_have_no_correlation(tmp_path: Path) -> None:
    """0 / 0 must not reach the zero-shot map."""
    values = np.full((2, 8, 8), np.nan)
    values[0, 0], values[1, 1] = np.arange(8), np.arange(8)
    root = folder_of(tmp_path, 3)
    for index in range(3):
        save_image(root / f"images/s{index}.npy", values)
    dataset = open_planes(root)
    assert read_index(dataset).statistics(dataset.samples).correlation == (
        (1.0, 0.0),
        (0.0, 1.0),
    )
