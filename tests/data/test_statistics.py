"""Statistics of the training pixels equal numpy's on all pixels at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import folder_of, open_planes, save_image

from simmat.data.dataset import Dataset
from simmat.data.index import read_index
from simmat.errors import DataError


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
