"""A camera with a dead band, or a sensor that is not there today: what is left is used, and nothing is made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import predict
from data_sets import one_square, save_image, save_mask
from runs import registry

from simmat.bundle import Bundle, load_bundle
from simmat.config import load_config
from simmat.errors import BundleError, ConfigError
from simmat.sensors.adapter import ModalityAdapter, PathsBySource, Source
from simmat.sensors.channel_selection import absent_sources, load_without
from simmat.sensors.composed_modality import ComposedModality
from simmat.training import train
from simmat.types import Channel, Prompt, SensorImage

POINT = Prompt.points([(3, 3)])


class Named(ModalityAdapter):
    """Reads .npy files whose first value of each plane says which of its channels it is."""

    description = "test sensor"
    sources: tuple[Source, ...] = (Source("named", (".npy",)),)

    def __init__(self, *names: str, name: str = "named") -> None:
        self.name = name
        self.sources = (Source(name, (".npy",)),)
        self.channels = tuple(Channel(own, "reflectance", "1") for own in names)

    def load(self, files: PathsBySource) -> SensorImage:
        planes = np.load(files[self.name])
        channels = [self.channels[int(plane.flat[0])] for plane in planes]
        return SensorImage.from_planes(planes, channels, origin=str(files[self.name]))


def planes_of(path: Path, *numbers: int) -> Path:
    """Write constant planes, each of its channel's number."""
    np.save(
        path,
        np.stack([np.full((2, 3), number, dtype=np.float32) for number in numbers]),
    )
    return path


SENSOR = Named("blue", "green", "nir")


@pytest.mark.parametrize("there", [(0, 2), (0, 1, 2)])
def test_a_file_may_have_the_missing_plane_or_not(
    tmp_path: Path, there: tuple[int, ...]
) -> None:
    """A dead band is written as zeros by one camera and left out by another."""
    image = load_without(
        SENSOR,
        {"named": planes_of(tmp_path / "a.npy", *there)},
        SENSOR.channels,
        {"green"},
    )
    assert image.channels == SENSOR.channels
    assert image.valid.all(axis=(1, 2)).tolist() == [True, False, True]
    assert not image.valid[1].any()
    np.testing.assert_array_equal(image.data[:, 0, 0], [0, 0, 2])


@pytest.mark.parametrize("gone", ["left", "right"])
def test_a_sensor_that_is_not_there_needs_no_file(tmp_path: Path, gone: str) -> None:
    """Either of two cameras may fail, the one that gives the pixel grid too."""
    sensor = ComposedModality(
        [Named("a", "b", name="left"), Named("c", "d", name="right")]
    )
    names = {"left": {"a", "b"}, "right": {"c", "d"}}
    there = "right" if gone == "left" else "left"
    assert absent_sources(sensor, sensor.channels, names[gone]) == (gone,)
    image = load_without(
        sensor,
        {there: planes_of(tmp_path / "x.npy", 0, 1)},
        sensor.channels,
        names[gone],
    )
    assert image.channels == sensor.channels
    assert {
        c.name
        for c, good in zip(image.channels, image.valid, strict=True)
        if good.all()
    } == names[there]


def made(root: Path, *, mat: str) -> Bundle:
    """Train one step on three planes."""
    rng = np.random.default_rng(0)
    for index in range(4):
        values = rng.normal(9, 2, (3, 8, 8))
        values[:, 2:5, 2:5] += 9
        save_image(root / f"data/images/s{index}.npy", values)
        save_mask(root / f"data/masks/s{index}.png", one_square())
    settings = {
        "modality": "raster",
        "data": root / "data",
        "out": root / "run",
        "foundation": "tiny",
    }
    quick = {
        "image_size": 64,
        "steps": 1,
        "batch_size": 2,
        "prompts_per_image": 1,
        "device": "cpu",
    }
    train(
        load_config(None, {**settings, **quick, "regions": "instances", "mat": mat}),
        registry(),
    )
    return load_bundle(root / "run/bundle.safetensors", registry())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of three planes, with attention over channels."""
    return made(tmp_path_factory.mktemp("three"), mat="channel-attention")


def files_of(bundle: Bundle) -> tuple[Path, np.ndarray]:
    path = bundle.path.parent.parent / "data/images/s0.npy"
    return path, np.load(path)


def test_values_in_a_missing_band_change_nothing(
    tmp_path: Path, bundle: Bundle
) -> None:
    """Noise, a fill value, nothing at all: the answer comes from the other bands."""
    _, values = files_of(bundle)
    answers = []
    for planes in (
        values,
        np.stack([values[0], values[1] * 0 - 9999, values[2]]),
        values[[0, 2]],
    ):
        save_image(tmp_path / "a.npy", planes)
        answers.append(
            predict(
                bundle, {"raster": tmp_path / "a.npy"}, POINT, missing=["band1"]
            ).logits
        )
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_a_file_that_lacks_a_band_is_refused_with_the_way_on(
    tmp_path: Path, bundle: Bundle
) -> None:
    """Nobody is to be told a mask of fewer bands without having said so."""
    _, values = files_of(bundle)
    save_image(tmp_path / "a.npy", values[:2])
    with pytest.raises(BundleError, match="--missing band2"):
        predict(bundle, {"raster": tmp_path / "a.npy"}, POINT)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["band7"], "no channel 'band7'"),
        ([0, 1, 2], "--missing"),
        ([3], "no channel 3"),
    ],
)
def test_channels_that_cannot_be_missing_are_refused(
    bundle: Bundle, missing: list[str | int], message: str
) -> None:
    """A misspelt band would be read as there."""
    with pytest.raises(ConfigError, match=message):
        predict(bundle, {"raster": files_of(bundle)[0]}, POINT, missing=missing)


def test_a_layer_that_needs_all_its_channels_is_refused_by_name(tmp_path: Path) -> None:
    """A convolution would take the zeros for measurements and answer something."""
    convolution = made(tmp_path, mat="mat-residual")
    with pytest.raises(ConfigError, match=r"'mat-residual'.*--mat channel-attention"):
        predict(
            convolution, {"raster": files_of(convolution)[0]}, POINT, missing=["band1"]
        )
