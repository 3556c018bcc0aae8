"""A sensor that needs the data card: it has it wherever a file is read, and from nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import predict
from data_sets import Planes
from runs import config, gray_set, registry

from simmat import training
from simmat.bundle import load_bundle
from simmat.data.dataset import open_dataset
from simmat.errors import DataError
from simmat.evaluation import evaluate_bundle
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter, PathsBySource
from simmat.sensors.builtin import Gray
from simmat.sensors.composed_modality import ComposedModality
from simmat.types import Prompt, SensorImage

CAMERA = "\n[intrinsics]\nfx = 50.0\nfy = 50.0\ncx = 27.5\ncy = 19.5\n"


class Focal(Gray):
    """A grey sensor whose values are counts times the focal length."""

    name = "focal"
    fx: float | None = None

    def configured(self, card: Mapping[str, Any]) -> ModalityAdapter:
        """Take the focal length."""
        other = Focal()
        other.fx = card["intrinsics"] and card["intrinsics"]["fx"]
        return other

    def load(self, files: PathsBySource) -> SensorImage:
        """Refuse to read without it."""
        if self.fx is None:
            raise DataError("the card says no intrinsics")
        image = super().load(files)
        return replace(image, data=image.data * np.float32(self.fx))


def with_focal() -> Registry:
    """The built-in parts and the sensor above."""
    return registry().with_modality(Focal())[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = gray_set(tmp_path_factory.mktemp("data") / "set")
    (root / "card.toml").write_text('format = 1\nregions = "instances"\n' + CAMERA)
    return root


def test_the_card_reaches_the_sensor_in_training_scoring_and_prediction(
    data: Path, tmp_path: Path
) -> None:
    """Intrinsics that only training knew would make every prediction wrong or impossible."""
    installed = with_focal()
    trained = training.train(
        config(data, tmp_path / "run", modality="focal", steps=2, val_every=1),
        installed,
    )
    bundle = load_bundle(trained, installed)
    assert evaluate_bundle(bundle, data)[0].objects
    picture = data / "images/s0.png"
    seen = predict(bundle, {"gray": picture}, Prompt.points([(14, 20)])).image
    np.testing.assert_array_equal(seen.data, 50 * Gray().load({"gray": picture}).data)


def test_the_cameras_of_two_data_sets_do_not_mix(data: Path, tmp_path: Path) -> None:
    """An installed sensor is shared; configuring it in place would change the other data set's values."""
    sensor = Focal()
    first = open_dataset(data, sensor, {})
    second = open_dataset(gray_set(tmp_path / "other"), sensor, {})
    first.image(first.samples[0])
    with pytest.raises(DataError, match="no intrinsics"):
        second.image(second.samples[0])


@pytest.mark.parametrize(
    "wrapped",
    [ComposedModality([Focal()], [0]), ComposedModality([Focal(), Planes()])],
    ids=["picked channels", "composed"],
)
def test_wrapped_sensors_are_configured_too(wrapped: ModalityAdapter) -> None:
    """`rgb+hha` and `--channels` must work like the sensor alone."""
    ready = wrapped.configured(
        {"intrinsics": {"fx": 7.0, "fy": 7.0, "cx": 0.0, "cy": 0.0}}
    )
    assert ready.sensors()[0].fx == 7.0  # type: ignore[attr-defined]
    assert (ready.name, ready.source_names()) == (wrapped.name, wrapped.source_names())
