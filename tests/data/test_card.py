"""The data card: what is said about a data set, and that nothing is guessed."""

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
from simmat.data.card import DataCard, load_card, make_card, write_card
from simmat.data.dataset import open_dataset
from simmat.errors import ConfigError, DataError
from simmat.evaluation import evaluate_bundle
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter, PathsBySource
from simmat.sensors.builtin import Gray
from simmat.sensors.composed_modality import ComposedModality
from simmat.types import Prompt, SensorImage


def test_a_missing_region_rule_is_refused_with_the_rules_there_are(
    tmp_path: Path,
) -> None:
    """A guessed rule would train on the wrong objects without a word."""
    with pytest.raises(ConfigError, match="--regions") as caught:
        load_card(tmp_path, {"regions": None})
    for rule in ("instances", "classes", "components", "panoptic", "card.toml"):
        assert rule in str(caught.value)


def test_command_line_overrides_the_file_and_none_means_not_given(
    tmp_path: Path,
) -> None:
    """The card in the folder serves by default, a flag has the last word."""
    (tmp_path / "card.toml").write_text('regions = "classes"\nmin_region = 9\n')
    card = load_card(tmp_path, {"regions": "components", "min_region": None})
    assert (card.regions, card.min_region) == ("components", 9)


def test_a_size_given_again_replaces_the_whole_rule(tmp_path: Path) -> None:
    """A share in the card would make --min-region 10 do nothing."""
    (tmp_path / "card.toml").write_text(
        'regions = "classes"\nmin_region_share = 0.01\n'
    )
    card = load_card(
        tmp_path, {"min_region": 10}, defaults={"min_region": 500, "ignore": 9}
    )
    assert (card.smallest_px((480, 640)), card.ignore) == (10, 9)
    assert (
        load_card(tmp_path, {}, defaults={"min_region": 5000}).smallest_px((480, 640))
        == 3072
    )


def test_written_card_reads_back_equal(tmp_path: Path) -> None:
    """A card that loses a field changes what is trained."""
    card = DataCard(
        regions="components",
        min_region=30,
        nodata={"depth": 0, "thermal": -9999.5},
        ignore=255,
        zero_means="unlabelled",
        class_names={1: "boat", 12: 'a "big" plane\n'},
        intrinsics={"fx": 525.0, "fy": 524.5, "cx": 319.5, "cy": 239.5},
        notes="täst \\ \x7f",
    )
    write_card(tmp_path, card)
    assert load_card(tmp_path, {}) == card


def test_written_card_holds_only_what_was_set(tmp_path: Path) -> None:
    """A file people read and edit; a default written down would be frozen."""
    assert (
        write_card(tmp_path, DataCard(regions="classes")).read_text()
        == 'format = 1\nregions = "classes"\n'
    )


def test_all_wrong_fields_are_reported_at_once_with_the_nearest_name(
    tmp_path: Path,
) -> None:
    """A user fixes a file once, not once a field."""
    with pytest.raises(ConfigError) as caught:
        make_card(
            {"regions": "instance", "min_regoin": 3, "nodata": float("nan")},
            where="here",
        )
    message = str(caught.value)
    assert "'min_region'" in message
    assert "'instances', 'classes', 'components' or 'panoptic'" in message
    assert "nodata" in message


@pytest.mark.parametrize(
    ("intrinsics", "said"),
    [
        ({"fx": 525.0}, "fy is missing"),
        ({"fx": 525.0, "fy": 0.0, "cx": 1.0, "cy": 1.0}, "greater than 0"),
        ({"fx": 525.0, "fy": 525.0, "cx": float("nan"), "cy": 1.0}, "finite"),
    ],
)
def test_incomplete_intrinsics_are_refused(
    intrinsics: dict[str, float], said: str
) -> None:
    """A sensor that needs the camera must not find out in the middle of training."""
    with pytest.raises(ConfigError, match=said):
        make_card({"regions": "classes", "intrinsics": intrinsics}, where="here")


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
