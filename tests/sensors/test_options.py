"""Options of sensors: who says them, in which order they count, and what becomes of contradictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image
from pydantic import Field

from simmat.api import load
from simmat.data.card import DataCard
from simmat.data.dataset import open_dataset
from simmat.errors import ConfigError
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import (
    ModalityAdapter,
    PathsBySource,
    Source,
)
from simmat.sensors.options import ModalityOptions
from simmat.types import Channel, SensorImage


class EyeOptions(ModalityOptions):
    """Options of a camera."""

    gain: float = Field(1.0, gt=0, description="What the numbers are multiplied by.")
    files: Literal["one", "two"] = Field(
        "one", description="How many files a sample has."
    )


class Eye(ModalityAdapter):
    """A camera whose files do not say their gain."""

    name = "eye"
    description = "a camera"
    channels = (Channel("eye", "counts", "count"),)
    Options = EyeOptions
    options: EyeOptions

    def __init__(self, options: EyeOptions | None = None) -> None:
        super().__init__(options)
        self.sources = tuple(
            Source(name, (".png",))
            for name in ("eye", "eye2")[: 1 + (self.options.files == "two")]
        )

    def load(self, files: PathsBySource) -> SensorImage:
        planes = (
            np.asarray(Image.open(files["eye"]), dtype=np.float32)[None]
            * self.options.gain
        )
        return SensorImage.from_planes(planes, self.channels, origin=str(files["eye"]))


def registry() -> Registry:
    """The built-in sensors, the model `tiny` and the camera."""
    return load_plugins(env={"SIMMAT_PLUGINS": "testing"}).with_modality(Eye())[0]


def data(root: Path, card: str = "") -> Path:
    """A folder of four images, each an object of 9 px."""
    for folder in ("images/eye", "images/gray", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        plane = np.full((16, 16), 10, np.uint8)
        plane[4:7, 4:7] = 20
        plane[0, 0] = index  # another file each: one that was trained on has no score
        for folder in ("images/eye", "images/gray"):
            Image.fromarray(plane).save(root / folder / f"{index}.png")
        Image.fromarray((plane == 20).astype(np.uint8)).save(
            root / "masks" / f"{index}.png"
        )
    (root / "card.toml").write_text('regions = "instances"\n' + card)
    return root


def gains(root: Path, name: str, options: Mapping[str, object] | None = None) -> float:
    """Return the gain that a data set is read with."""
    dataset = open_dataset(root, registry().modality(name, options))
    (part,) = (part for part in dataset.adapter.sensors() if isinstance(part, Eye))
    assert dataset.image(dataset.samples[0]).data.max() == 20 * part.options.gain
    return part.options.gain


def test_an_option_counts_before_the_card_and_the_card_before_the_default(
    tmp_path: Path,
) -> None:
    """A file fact is said once; three places that may say it need an order."""
    plain, said = (
        data(tmp_path / "plain"),
        data(tmp_path / "said", "[modality_options.eye]\ngain = 3.0\n"),
    )
    assert (
        gains(plain, "eye"),
        gains(plain, "eye", {"gain": 2.0}),
        gains(said, "eye"),
    ) == (1.0, 2.0, 3.0)
    assert gains(said, "eye", {"gain": 3.0}) == 3.0
    assert (
        gains(data(tmp_path / "flat", "[modality_options]\ngain = 4\n"), "eye") == 4.0
    )


def test_an_option_that_contradicts_the_card_is_refused(tmp_path: Path) -> None:
    """One of the two is wrong, and only the user knows which."""
    root = data(tmp_path / "set", "[modality_options.eye]\ngain = 3.0\n")
    with pytest.raises(ConfigError) as caught:
        gains(root, "eye", {"gain": 2.0})
    assert all(part in str(caught.value) for part in ("'eye'", "gain=2.0", "gain=3.0"))


@pytest.mark.parametrize("options", [{"eye.gain": 2.0}, {"eye": {"gain": 2.0}}])
def test_a_part_of_a_composition_has_its_options(
    tmp_path: Path, options: Mapping[str, object]
) -> None:
    """Two sensors may have options of one name."""
    assert gains(data(tmp_path / "set"), "gray+eye", options) == 2.0
    with pytest.raises(ConfigError, match=r"eye\.gain"):
        registry().modality("gray+eye", {"gain": 2.0})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gian": 2.0}, ("'gian'", "'gain'")),
        ({"gain": "high"}, ("gain", "'high'", "number")),
        ({"gain": True}, ("gain", "True", "number")),
        ({"gain": -1.0}, ("gain", "-1.0", "greater than 0")),
        ({"files": "three"}, ("files", "'three'", "'one' or 'two'")),
        ({"gray": {"gain": 1.0}}, ("'gray'", "eye")),
        ({"gain": 2.0, "eye": {"gain": 2.0}}, ("'gain'", "twice")),
    ],
)
def test_a_wrong_option_names_itself_and_what_is_allowed(
    options: Mapping[str, object], said: tuple[str, ...]
) -> None:
    """Nothing of pydantic's own words reaches the user."""
    with pytest.raises(ConfigError) as caught:
        registry().modality("eye", options)
    message = str(caught.value)
    assert all(part in message for part in said)
    assert not any(
        word in message for word in ("Input should", "Extra inputs", "[type=")
    )


def test_a_bundle_reads_files_of_another_unit(tmp_path: Path) -> None:
    """A new camera writes other numbers of the same scene; results of both ways of reading are not taken as one."""
    spoken = {"eye": {"gain": 2.0}}
    bundle = tiny_bundle(
        tmp_path / "bundle",
        modality="eye",
        modality_options=spoken,
        sensor_channels=Eye.channels,
        channels=(Eye.channels[0].with_statistics(20.0, 5.0),),
        card=DataCard(regions="instances", modality_options=spoken),
    )
    image = data(tmp_path / "set") / "images/eye/0.png"
    plain, other = (
        load(bundle, modality_options=one, registry=registry())
        for one in (None, {"gain": 4})
    )
    assert [one.set_image(image).data.max() for one in (plain, other)] == [40, 80]
    assert plain.digest != other.digest
    with pytest.raises(ConfigError, match="gian"):
        load(bundle, modality_options={"gian": 4}, registry=registry())
