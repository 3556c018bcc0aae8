"""What `simmat predict` says of images that are unlike those of the training, before it gives masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import GRAY, tiny_bundle
from PIL import Image
from runs import config, gray_set, registry

from simmat import training
from simmat.bundle import read_bundle_spec
from simmat.cli import run
from simmat.predictor.input_check import sampled
from simmat.sensors.contract import ImageValues, InputContract
from simmat.types import SensorImage, Window


class Windowed:
    """An image that is read in parts."""

    georeference = None
    origin = "large"

    def __init__(self, image: SensorImage) -> None:
        self.image = image

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image.size_hw

    def read(self, window: Window) -> SensorImage:
        return self.image.cut(window)


def scene(rng: np.random.Generator) -> np.ndarray:
    """An 8-bit picture (48, 60), brighter to the right."""
    ramp = np.linspace(30, rng.uniform(110, 125), 60)
    return (ramp + rng.normal(0, 4, (48, 60))).clip(0, 255).astype(np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with the contract of 24 pictures."""
    rng = np.random.default_rng(0)
    images = [SensorImage.from_planes(scene(rng)[None], (GRAY,)) for _ in range(24)]
    values = [ImageValues.of_image(image) for image in images]
    contract = InputContract.of(
        (GRAY,),
        np.stack([one.quantiles for one in values]),
        np.stack([one.correlation for one in values]),
    )
    return tiny_bundle(tmp_path / "bundle", inputs=contract)


def pictures(folder: Path, change: str) -> Path:
    """Write ten pictures, changed as a wrong export would."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for number in range(10):
        plane = scene(rng)
        if change == "double":
            plane = np.clip(plane.astype(int) * 2, 0, 255).astype(np.uint8)
        if change == "border":
            wide = plane.astype(np.uint16)
            wide[:10] = 65535
            Image.fromarray(wide).save(folder / f"p{number}.png")
            continue
        Image.fromarray(plane).save(folder / f"p{number}.png")
    return folder


def predict(bundle: Path, images: Path, out: Path, *more: str) -> int:
    call = ["predict", str(bundle), str(images), "--point", "20,20", *more]
    return run([*call, "--out", str(out), "--device", "cpu"])


@pytest.mark.plugins
def test_a_gain_is_warned_of_once_and_in_every_json(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a thousand images, one line is read."""
    images = pictures(tmp_path / "images", "double")
    assert predict(bundle, images, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert said.count("Warning:") == 1
    assert "the first 10 images, taken together" in said
    assert "'gray'" in said
    for number in range(10):
        record = json.loads((tmp_path / f"out/p{number}.json").read_text())
        assert len(record["warnings"]) == 1
        assert "'gray'" in record["warnings"][0]


@pytest.mark.plugins
def test_the_option_that_repairs_it_is_named_and_does(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user need not know what the sensor calls it."""
    images = pictures(tmp_path / "images", "border")
    assert predict(bundle, images, tmp_path / "out") == 0
    assert "--modality-option gray.nodata=65535" in capsys.readouterr().err
    option = ["--modality-option", "nodata=65535"]
    assert predict(bundle, images, tmp_path / "repaired", *option) == 0
    assert "training images" not in capsys.readouterr().err


def test_of_a_large_raster_evenly_spaced_parts_are_compared() -> None:
    """Ten of them may not fit into memory."""
    plane = np.tile(scene(np.random.default_rng(3)), (30, 30))
    parts = sampled(Windowed(SensorImage.from_planes(plane[None], (GRAY,))))
    assert parts.data.shape == (1, 128, 9 * 128)
    assert (parts.data[0, :, :128] == plane[:128, :128]).all()
    assert (parts.data[0, :, -128:] == plane[-128:, -128:]).all()


@pytest.mark.plugins
def test_training_writes_the_contract_of_its_images(tmp_path: Path) -> None:
    """Without it, nothing could be compared."""
    data = gray_set(tmp_path / "data", train=12)
    training.train(config(data, tmp_path / "run", steps=1, val_every=1), registry())
    inputs = read_bundle_spec(tmp_path / "run").inputs
    assert inputs is not None
    assert (inputs.names, inputs.units) == (("gray",), ("count",))
    low, high = inputs.histograms[0][0], inputs.histograms[0][-1]
    assert 0 <= low < high <= 255
