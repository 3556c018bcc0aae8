"""Statistics of channels, in one pass over images of any size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_sets import folder_of, open_planes, save_image, save_mask
from simmat_plugin_report import channel_stats as module
from simmat_plugin_report.channel_stats import channel_stats

from simmat.cli import run
from simmat.data.dataset import Dataset, open_images
from simmat.data.samples import Sample
from simmat.errors import DataError
from simmat.io.images import write_image
from simmat.sensors.builtin import Raster
from simmat.types import SensorImage

RASTER = ["--modality", "raster"]


def test_the_figures_are_those_of_numpy_without_missing_values(tmp_path: Path) -> None:
    """Missing values must not enter the mean, and each channel has its own."""
    rng = np.random.default_rng(1)
    planes = rng.normal(300, 5, (3, 2, 8, 8)).astype(np.float32)
    planes[0, 0, :4] = np.nan
    planes[:, 1] *= 100
    for number, values in enumerate(planes):
        save_image(tmp_path / f"images/s{number}.npy", values)
        save_mask(tmp_path / f"masks/s{number}.png", np.eye(8))
    dataset = open_planes(tmp_path)
    _, (first, second), _ = channel_stats(dataset, dataset.samples, bins=10)
    good = planes[:, 0][np.isfinite(planes[:, 0])]
    assert (first.pixels, first.valid, first.missing) == (
        192,
        160,
        pytest.approx(1 / 6),
    )
    assert (first.low, first.high) == (good.min(), good.max())
    assert first.mean == pytest.approx(good.mean(dtype=np.float64))
    assert first.std == pytest.approx(good.std(dtype=np.float64))
    assert 150 <= sum(first.bins) <= 160  # without the ends of the distribution
    assert second.percentiles["50"] == np.sort(planes[:, 1].ravel())[95]


def test_an_image_larger_than_memory_is_read_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures do not depend on how it was read."""
    (tmp_path / "images").mkdir()
    planes = np.random.default_rng(0).integers(0, 60000, (2, 70, 90)).astype(np.uint16)
    write_image(tmp_path / "images/a.tif", planes)
    whole = channel_stats(dataset := open_images(tmp_path, Raster()), dataset.samples)
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    monkeypatch.setattr(module, "READ_PX", 32)
    parts = channel_stats(dataset, dataset.samples)
    for one, other in zip(whole[1], parts[1], strict=True):
        assert (one.low, one.percentiles, one.bins) == (
            other.low,
            other.percentiles,
            other.bins,
        )
        assert one.mean == pytest.approx(other.mean)
        assert one.std == pytest.approx(other.std)


def test_a_damaged_image_is_reported_and_the_others_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bad file must not hide the figures of the rest, nor pass unseen."""
    root = folder_of(tmp_path / "set", 4)
    # the first, which shows what channels there are
    (root / "images/s0.npy").write_bytes(b"damaged")
    assert run(["data", "stats", str(root), *RASTER, "--json"]) == 2
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["images"] == 3
    assert list(report["faults"]) == ["s0"]
    assert "s0 is left out" in captured.err


def test_a_channel_without_a_measurement_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no mean; a wrong nodata value is found that way."""
    for number in range(2):
        save_image(
            tmp_path / f"s{number}.npy",
            np.stack([np.full((4, 4), np.nan), np.arange(16.0).reshape(4, 4)]),
        )
    assert run(["data", "stats", str(tmp_path), *RASTER]) == 0
    said = capsys.readouterr().out
    assert "band0 [count], counts: 0 valid pixels, 100.00% missing" in said
    assert "p50 7" in said


def test_an_image_that_is_damaged_at_its_end_counts_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said to be left out, so its first windows may not be in the figures."""
    dataset = open_planes(folder_of(tmp_path, 3, channels=1))
    bad, *good = dataset.samples
    expected = channel_stats(dataset, good)
    real = module.read_parts

    def breaks_off(dataset: Dataset, sample: Sample) -> Iterator[SensorImage]:
        yield from real(dataset, sample)
        if sample is bad:
            raise DataError("a tile is damaged")

    monkeypatch.setattr(module, "read_parts", breaks_off)
    found = channel_stats(dataset, dataset.samples)
    assert set(found[2]) == {bad.id}
    assert found[:2] == expected[:2]


def test_of_more_values_than_fit_every_nth_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory must not grow with the images; extremes and moments are those of all values."""
    dataset = open_planes(folder_of(tmp_path, 6, channels=1))
    _, (whole,), _ = channel_stats(dataset, dataset.samples)
    monkeypatch.setattr(module, "MAX_VALUES", 100)
    _, (thinned,), _ = channel_stats(dataset, dataset.samples)
    assert (thinned.low, thinned.high, thinned.mean, thinned.std) == (
        whole.low,
        whole.high,
        whole.mean,
        whole.std,
    )
    assert 40 < sum(thinned.bins) <= 100
    assert whole.low < thinned.percentiles["50"] < whole.high
