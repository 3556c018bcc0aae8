"""Images of several sensors are joined as SimMAT joins them, and refused where they do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from simmat_runtime.align import joined, on_grid
from simmat_runtime.manifest import Channel, Sensor

from simmat import types
from simmat.sensors.warp import Warp
from simmat.types import SensorImage, Window

CHANNELS = (
    Channel("red", "count", "counts", (0.0, 255.0)),
    Channel("thermal", "K", "temperature", (150.0, 400.0)),
)
SHIFT = ((1.0, 0.0, 2.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0))
SENSORS = (
    Sensor("rgb", (True,), None, None),
    Sensor("thermal", (True,), SHIFT, (8, 6)),
)


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.6, -0.02, 3.0], [0.015, 0.55, -2.0], [0, 0, 1]],
        [[2.3, 0.1, -5.0], [-0.1, 2.2, 3.0], [1e-3, 2e-3, 1]],
        [[3.0, 0, 0], [0, 3.0, 0], [0, 0, 1]],
        [[-1.0, 0.2, 50.0], [0.1, -1.0, 40.0], [-0.03, 0.001, 0.9]],
        [[1, 0, 900], [0, 1, 0], [0, 0, 1]],
    ],
    ids=["finer grid", "averaged", "blocks", "behind the camera", "outside"],
)
def test_an_image_is_brought_onto_a_grid_as_simmat_does(
    matrix: list[list[float]],
) -> None:
    """A model that runs elsewhere must see the pixels that it was validated on."""
    rng = np.random.default_rng(0)
    planes = rng.uniform(0, 100, (3, 61, 83)).astype(np.float32)
    planes[0, 10:20, 30:40] = np.nan
    planes[2, 5, 7] = np.nan
    averaged = [True, True, False]
    channels = tuple(types.Channel(f"c{n}", "counts", "count") for n in range(3))
    image = SensorImage.from_planes(planes, channels)
    warp = Warp(np.asarray(matrix, np.float64), image.size_hw)
    whole = Window(0, 0, *image.size_hw)
    expected = warp(image, Window(0, 0, 300, 47), whole, averaged)
    found = on_grid(planes, np.asarray(matrix, np.float64), (300, 47), averaged)
    np.testing.assert_array_equal(np.isfinite(found), expected.valid)
    np.testing.assert_array_equal(np.nan_to_num(found), expected.data)


def test_sensors_are_joined_on_the_grid_of_the_first() -> None:
    """Values out of the range of their channel are no measurement."""
    colour = np.ones((5, 4), np.float32)
    kelvin = np.full((6, 8), 300.0, np.float32)
    kelvin[1, 2] = 1000
    found = joined({"thermal": kelvin, "rgb": colour}, SENSORS, CHANNELS)
    assert found.shape == (2, 5, 4)
    assert np.isnan(found[1, 0, 0])
    assert (found[1].ravel()[1:] == 300).all()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({"rgb": (5, 4)}, "sensors are rgb, thermal; got rgb"),
        ({"rgb": (5, 4), "thermal": (8, 6)}, "thermal is 6x8, .* for 8x6"),
        ({"rgb": (2, 5, 4), "thermal": (6, 8)}, r"\(1, H, W\)"),
    ],
    ids=["one missing", "other size", "other planes"],
)
def test_images_that_do_not_fit_are_refused(
    images: dict[str, tuple[int, ...]], words: str
) -> None:
    """A matrix for another resolution would put each mask beside its object."""
    with pytest.raises(ValueError, match=words):
        joined(
            {name: np.ones(size) for name, size in images.items()}, SENSORS, CHANNELS
        )


def test_images_without_an_alignment_must_have_one_size() -> None:
    """They are registered, or they are not used together."""
    sensors = (SENSORS[0], Sensor("thermal", (True,), None, None))
    images = {"rgb": np.ones((5, 4)), "thermal": np.full((6, 8), 300)}
    with pytest.raises(ValueError, match="one pixel grid"):
        joined(images, sensors, CHANNELS)
    images["thermal"] = np.full((5, 4), 300)
    assert joined(images, sensors, CHANNELS).shape == (2, 5, 4)


def test_each_image_takes_a_matrix_of_its_own() -> None:
    """Hand-held cameras have no rig; without a matrix, the mask would lie beside the object."""
    sensors = (SENSORS[0], Sensor("thermal", (True,), None, None, each=True))
    images = {"rgb": np.ones((5, 4)), "thermal": np.full((5, 4), 300.0)}
    with pytest.raises(ValueError, match="--matrix thermal="):
        joined(images, sensors, CHANNELS)
    found = joined(images, sensors, CHANNELS, {"thermal": SHIFT})
    assert np.isnan(found[1, :, 2:]).all()
    assert (found[1, :4, :2] == 300).all()


def test_a_matrix_replaces_that_of_the_model() -> None:
    """A camera that was mounted anew needs no new training."""
    images = {"rgb": np.ones((5, 4)), "thermal": np.full((5, 4), 300.0)}
    found = joined(images, SENSORS, CHANNELS, {"thermal": np.eye(3)})
    assert (found[1] == 300).all()


@pytest.mark.parametrize(
    ("matrices", "words"),
    [
        ({"rgb": np.eye(3)}, "further sensors, thermal; got one for rgb"),
        ({"thermal": np.eye(2)}, "matrix of thermal"),
        ({"thermal": np.full((3, 3), np.nan)}, "matrix of thermal"),
        ({"thermal": np.ones((3, 3))}, "cannot be inverted"),
    ],
    ids=["of the first", "of another size", "not finite", "singular"],
)
def test_wrong_matrices_are_refused(
    matrices: dict[str, np.ndarray], words: str
) -> None:
    """They come from a file or a command line."""
    images = {"rgb": np.ones((5, 4)), "thermal": np.full((6, 8), 300.0)}
    with pytest.raises(ValueError, match=words):
        joined(images, SENSORS, CHANNELS, matrices)
