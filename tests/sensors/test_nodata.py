"""`nodata`: a number that is stored in a file, said for a sensor or for one source of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import save_mask

from simmat.config import TrainConfig, dump_toml, load_config
from simmat.data.dataset import Dataset, open_dataset
from simmat.errors import ConfigError
from simmat.io.images import read_image, write_image
from simmat.sensors.adapter import ModalityAdapter, PathsBySource, Source
from simmat.sensors.builtin import Gray, Rgb
from simmat.sensors.composed_modality import ComposedModality
from simmat.types import Channel, SensorImage


class Tenths(ModalityAdapter):
    """Stored numbers are tenths of a kelvin."""

    name, description = "tenths", "test sensor"
    sources = (Source("tenths", (".npy",)),)
    channels = (Channel("tenths", "temperature", "K"),)

    def load(self, files: PathsBySource) -> SensorImage:
        image = read_image(files["tenths"], self.nodata("tenths"))
        return SensorImage.from_planes(
            image.planes / 10, self.channels, valid=image.valid, origin=str(image.path)
        )


def with_nodata(adapter: ModalityAdapter, number: float) -> ModalityAdapter:
    return adapter.with_options({adapter.name: {"nodata": number}})


def tenths(
    root: Path, adapter: ModalityAdapter, stored: np.ndarray, **card: object
) -> Dataset:
    """A data set of one image of each split."""
    for name, shift in (("train", 0), ("val", 1)):
        (root / "images" / name).mkdir(parents=True)
        np.save(
            root / f"images/{name}/a.npy",
            np.where(stored == -9999, stored, stored + shift),
        )
        save_mask(root / f"masks/{name}/a.png", np.pad(np.ones((3, 3)), 3)[:8, :8])
    return open_dataset(root, adapter, {"regions": "instances", **card})


def stored_numbers() -> np.ndarray:
    stored = np.random.default_rng(0).integers(2800, 3000, (8, 8)).astype(np.int16)
    stored[0] = -9999
    return stored


def joined(root: Path, **card: object) -> Dataset:
    """`rgb+gray`, both black in the first row."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for source, planes in (("rgb", 3), ("gray", 1)):
            (root / "images" / split / source).mkdir(parents=True)
            values = rng.integers(1, 256, (planes, 8, 8)).astype(np.uint8)
            values[:, 0] = 0
            write_image(root / f"images/{split}/{source}/a.png", values)
        save_mask(root / f"masks/{split}/a.png", np.pad(np.ones((3, 3)), 3)[:8, :8])
    return open_dataset(
        root, ComposedModality([Rgb(), Gray()]), {"regions": "instances", **card}
    )


def test_nodata_is_the_number_in_the_file_and_not_the_scaled_one(
    tmp_path: Path,
) -> None:
    """A GIS shows the stored number, and that is what people type."""
    dataset = tenths(tmp_path, Tenths(), stored_numbers(), nodata=-9999)
    image = dataset.image(dataset.samples[0])
    np.testing.assert_array_equal(image.valid[0], stored_numbers() != -9999)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.float32, 0.1),
        (np.float32, -3.4028234663852886e38),
        (np.float16, 0.1),
        (np.uint8, 7),
    ],
)
def test_nodata_matches_what_the_file_can_hold_of_it(
    tmp_path: Path, dtype: type, value: float
) -> None:
    """0.1 and the lowest float32 are usual; a file holds their nearest neighbour."""
    np.save(tmp_path / "a.npy", np.array([[value, 1]]).astype(dtype))
    assert with_nodata(Gray(), value).load(
        {"gray": tmp_path / "a.npy"}
    ).valid.tolist() == [[[False, True]]]


def test_nodata_as_an_option_is_that_of_the_card(tmp_path: Path) -> None:
    """Either may say it; two different numbers are a mistake in one of them."""
    with_option = tenths(tmp_path / "a", with_nodata(Tenths(), -9999), stored_numbers())
    assert not with_option.image(with_option.samples[0]).valid[0, 0].any()
    tenths(tmp_path / "b", with_nodata(Tenths(), -9999), stored_numbers(), nodata=-9999)
    with pytest.raises(ConfigError, match=r"nodata=-9999.*nodata=0"):
        tenths(tmp_path / "c", with_nodata(Tenths(), -9999), stored_numbers(), nodata=0)


def test_nodata_of_a_source_leaves_the_other_sensors_alone(tmp_path: Path) -> None:
    """A black pixel of a picture is a measurement, whatever 0 means beside it."""
    dataset = joined(tmp_path, nodata={"gray": 0})
    valid = dataset.image(dataset.samples[0]).valid
    assert valid[:3].all()
    assert not valid[3, 0].any()
    assert valid[3, 1:].all()


def test_one_number_for_several_sensors_is_refused_with_what_to_say(
    tmp_path: Path,
) -> None:
    """It would make black pictures invalid throughout."""
    with pytest.raises(ConfigError, match=r"--nodata gray=0.*--nodata rgb=0,gray=0"):
        joined(tmp_path, nodata=0)


def test_nodata_of_no_source_is_refused(tmp_path: Path) -> None:
    """A misspelt source would leave its fill values in."""
    with pytest.raises(ConfigError, match=r"'grey'.* rgb, gray.*'gray'"):
        joined(tmp_path, nodata={"grey": 0})


def test_a_config_keeps_nodata_of_sources(tmp_path: Path) -> None:
    """The run's own config.toml must say what was said."""
    given = {
        "modality": "rgb+gray",
        "data": tmp_path,
        "out": tmp_path / "o",
        "nodata": "gray=0, rgb=-1",
    }
    config = load_config(None, given)
    assert config.nodata == {"gray": 0.0, "rgb": -1.0}
    (tmp_path / "c.toml").write_text(dump_toml(config))
    assert load_config(tmp_path / "c.toml") == config
    assert TrainConfig.model_fields["nodata"].default is None
