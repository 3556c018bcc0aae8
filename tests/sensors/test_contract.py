"""The input contract: images of the own sensor fit it, and faults are named with their channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from simmat.documents import InvalidDocumentError, validate
from simmat.sensors.contract import GROUP, MIN_IMAGES, ImageValues, InputContract
from simmat.types import Channel, SensorImage

CHANNELS = (
    Channel("red", "counts", "count"),
    Channel("nir", "counts", "count"),
    Channel("thermal", "brightness_temperature", "K"),
)


def scenes(count: int, seed: int) -> list[SensorImage]:
    """Images of a camera with two bands in 12 bits and temperatures, each scene a little brighter or warmer."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        ground = rng.random((40, 50)) * rng.uniform(0.7, 1)
        red = 300 + 500 * ground + rng.normal(0, 20, ground.shape)
        nir = 2400 - 900 * ground + rng.normal(0, 30, ground.shape)
        kelvin = rng.normal(293, 2) + 12 * ground
        planes = np.stack([red.round(), nir.round(), kelvin]).astype(np.float32)
        found.append(SensorImage.from_planes(planes, CHANNELS))
    return found


def contract_of(images: list[SensorImage]) -> InputContract | None:
    values = [ImageValues.of_image(image) for image in images]
    return InputContract.of(
        CHANNELS,
        np.stack([one.quantiles for one in values]),
        np.stack([one.correlation for one in values]),
    )


@pytest.fixture(scope="module")
def contract() -> InputContract:
    """The contract of 40 images."""
    found = contract_of(scenes(40, seed=1))
    assert found is not None
    return found


def changed(
    images: list[SensorImage], change: Callable[[np.ndarray], None]
) -> list[SensorImage]:
    """Change the planes of images in place of copies."""
    found = []
    for image in images:
        data = image.data.copy()
        change(data)
        found.append(replace(image, data=data))
    return found


def test_images_of_the_own_sensor_fit(contract: InputContract) -> None:
    """A warning that comes without a reason is soon not read."""
    others = scenes(60, seed=2)
    alarms = sum(bool(contract.check([image])) for image in others)
    assert alarms <= 1
    for start in range(0, 60, GROUP):
        assert contract.check(others[start : start + GROUP]) == []


def test_a_gain_of_one_channel_is_named(contract: InputContract) -> None:
    """The user must know which file to look at, and by how much it differs."""

    def double(data: np.ndarray) -> None:
        data[0] *= 2

    (fault,) = contract.check(changed(scenes(GROUP, seed=3), double))
    assert (fault.kind, fault.channels) == ("gain", ("red",))
    assert 1.8 < fault.amount < 2.2
    assert "'red'" in fault.text


def test_an_offset_is_named_in_the_unit_of_the_channel(
    contract: InputContract,
) -> None:
    """Degrees read as kelvin are 273.15 too low."""

    def shift(data: np.ndarray) -> None:
        data[2] -= 273.15

    (fault,) = contract.check(changed(scenes(GROUP, seed=5), shift))
    assert (fault.channels, fault.kind) == (("thermal",), "offset")
    assert -280 < fault.amount < -266
    assert " K below" in fault.text


def test_swapped_channels_are_named(contract: InputContract) -> None:
    """Two files in the wrong order give masks that look plausible."""

    def swap(data: np.ndarray) -> None:
        data[[0, 1]] = data[[1, 0]]

    (fault,) = contract.check(changed(scenes(1, seed=6), swap))
    assert (fault.kind, fault.channels) == ("order", ("red", "nir"))


def test_a_fill_value_is_named_and_the_rest_still_fits(
    contract: InputContract,
) -> None:
    """A border of -9999 is no measurement, and no gain either."""

    def border(data: np.ndarray) -> None:
        data[:, :5] = -9999

    faults = contract.check(changed(scenes(1, seed=7), border))
    assert {fault.kind for fault in faults} == {"nodata"}
    assert {fault.amount for fault in faults} == {-9999.0}
    assert [fault.channels for fault in faults] == [("red",), ("nir",), ("thermal",)]


def test_few_images_make_no_contract() -> None:
    """Limits of three images would be broken by the fourth."""
    assert contract_of(scenes(MIN_IMAGES - 1, seed=8)) is None
    assert contract_of(scenes(MIN_IMAGES, seed=8)) is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("images", "AAAA"),
        ("images", "no base64!"),
        ("correlations", "AAAA"),
        ("units", ["count"]),
        ("histograms", [[1.0, 2.0]] * 3),
        ("likeness", 2.0),
    ],
)
def test_a_damaged_one_is_refused(
    contract: InputContract, field: str, value: object
) -> None:
    """A bundle may come from anyone."""
    values = {**contract.model_dump(mode="json"), field: value}
    try:
        problems = list(validate(InputContract, values).problems())
    except InvalidDocumentError as error:
        problems = [str(error)]
    assert problems
