"""`rgb`, `gray` and `raster`: what they take; channels and windows of any sensor; faults in its own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from data_sets import Planes
from PIL import Image

from simmat import Channel, ModalityAdapter, SensorImage, Source
from simmat.errors import ConfigError, DataError, PluginError
from simmat.io.images import read_image, write_image
from simmat.sensors.adapter import PathsBySource, load_sample
from simmat.sensors.builtin import Gray, Raster, Rgb, band_channels
from simmat.sensors.channel_selection import parse_channels, pick_channels
from simmat.sensors.composed_modality import ComposedModality
from simmat.sensors.normalize import rgb_indices
from simmat.sensors.sensor_toml import TomlModality, parse_sensor_definition
from simmat.types import Window

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_rgb_gives_the_counts_of_the_file_as_rgb_channels(tmp_path: Path) -> None:
    """Channels declared RGB keep the foundation model's own statistics."""
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    image = Rgb().load({"rgb": tmp_path / "a.png"})
    assert rgb_indices(image.channels) == (0, 1, 2)
    np.testing.assert_array_equal(image.data, np.moveaxis(COLOUR, 2, 0))
    assert image.valid.all()


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (COLOUR[..., 0], "--modality gray"),
        (np.dstack([COLOUR, COLOUR[..., :1]]), "--channels 0,1,2"),
    ],
)
def test_rgb_refuses_other_pictures_and_names_the_right_modality(
    tmp_path: Path, values: np.ndarray, advice: str
) -> None:
    """Grey repeated three times, or alpha dropped, would be a silent repair."""
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=advice):
        Rgb().load({"rgb": tmp_path / "a.png"})


def test_gray_marks_what_is_not_a_number_invalid(tmp_path: Path) -> None:
    """Float cameras write NaN where they saw nothing."""
    np.save(
        tmp_path / "a.npy", np.array([[1.5, np.nan], [2.5, np.inf]], dtype=np.float32)
    )
    image = Gray().load({"gray": tmp_path / "a.npy"})
    np.testing.assert_array_equal(image.valid[0], [[True, False], [True, False]])


def test_raster_gives_all_planes_in_the_order_of_the_file(tmp_path: Path) -> None:
    """`--channels 0,3` must mean the file's own bands."""
    values = RNG.integers(-99, 9999, (12, 6, 8)).astype(np.int16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(values, 0, 2),
        photometric="minisblack",
        planarconfig="contig",
    )
    image = Raster().load({"raster": tmp_path / "a.tif"})
    np.testing.assert_array_equal(image.data, values)
    assert [channel.name for channel in image.channels] == [
        f"band{i}" for i in range(12)
    ]


@pytest.mark.parametrize(
    ("adapter", "name", "planes", "top"),
    [
        (Rgb(), "a.png", 3, 255),
        (Gray(), "a.png", 1, 255),
        (Gray(), "a.png", 1, 65535),
        (Gray(), "a.tif", 1, 0.5),
        (Raster(), "a.tif", 4, 65535),
        (Raster(), "a.npy", 4, 0.5),
    ],
)
def test_what_is_saved_is_loaded_again(
    tmp_path: Path, adapter: ModalityAdapter, name: str, planes: int, top: float
) -> None:
    """Simulated data sets are written this way."""
    values = np.linspace(0, top, planes * 20).reshape(planes, 4, 5)
    image = SensorImage.from_planes(
        np.rint(values) if top > 1 else values,
        adapter.channels or band_channels(planes),
    )
    adapter.save(image, {adapter.name: tmp_path / name})
    np.testing.assert_array_equal(
        adapter.load({adapter.name: tmp_path / name}).data, image.data
    )


def test_invalid_pixels_stay_invalid_when_saved(tmp_path: Path) -> None:
    """A hole must not come back as a measurement of 0."""
    valid = np.array([[[True, False]]])
    image = SensorImage.from_planes(
        np.array([[[3.0, 4.0]]]), Gray.channels, valid=valid
    )
    Gray().save(image, {"gray": tmp_path / "a.tif"})
    np.testing.assert_array_equal(
        Gray().load({"gray": tmp_path / "a.tif"}).valid, valid
    )


CHANNELS = tuple(
    Channel(name, "reflectance", "1", wavelength_um=centre)
    for name, centre in (
        ("blue", 0.49),
        ("red", 0.665),
        ("nir", 0.842),
        ("nir08", 0.865),
        ("quality", None),
    )
)


def test_names_indices_and_wavelengths_can_be_mixed() -> None:
    """People know a band by its name, a program by its place, a spectroscopist by its wavelength."""
    assert pick_channels(CHANNELS, ["nir", 0, "665nm"]) == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "index"), [("0.86um", 3), ("0.86 µm", 3), ("845nm", 2), ("500nm", 0)]
)
def test_a_wavelength_means_the_nearest_band(text: str, index: int) -> None:
    """Cameras of one kind differ by some nanometres."""
    assert pick_channels(CHANNELS, [text]) == [index]


@pytest.mark.parametrize(
    ("selected", "said"),
    [
        # a thermal band is not what a near-infrared one shows
        (["1.6um"], r"5 % of 1\.6 um.*blue 0\.49 um, red 0\.665 um"),
        (["red", "665nm"], "twice"),
        # from the end, as Python counts, would pick another band without a word
        ([-1], r"-1; channels: 0 blue, 1 .*, 4 quality"),
        (["²"], "no channel '"),
        (["--1"], "no channel '"),
        (["9" * 5000], "no channel '"),
        # Python reads no number of more than 4300 digits
        (parse_channels("7" * 5000), "777"),
        (parse_channels(f"0-{'7' * 5000}"), "777"),
    ],
    ids=range(8),
)
def test_what_is_no_channel_is_refused_with_those_there_are(
    selected: Sequence[str | int], said: str
) -> None:
    """A slip of the keyboard picks nothing."""
    with pytest.raises(ConfigError, match=said):
        pick_channels(CHANNELS, selected)


def test_a_wavelength_needs_bands_that_state_theirs() -> None:
    """Nothing is guessed from the order of planes."""
    with pytest.raises(ConfigError, match=r"wavelength.*\['quality'\]"):
        pick_channels(CHANNELS[4:], ["665nm"])


WINDOW = Window(3, 5, 20, 31)
NUMBERS = np.random.default_rng(0).integers(1, 250, (4, 33, 47)).astype(np.uint8)


class Plain(ModalityAdapter):
    """A sensor as before there were windows."""

    name, description = "plain", "counts"
    sources = (Source("plain", (".tif",)),)
    channels = (Channel("plain", "counts", "count"),)

    def load(self, files: PathsBySource) -> SensorImage:
        return SensorImage.from_planes(
            read_image(files["plain"], self.nodata("plain")).planes, self.channels
        )


class Halved(Gray):
    """A sensor that changes the values of one that reads windows."""

    def load(self, files: PathsBySource) -> SensorImage:
        image = super().load(files)
        return SensorImage.from_planes(image.data / 2, image.channels)


def _declared() -> TomlModality:
    rule = {
        "name": "echo",
        "quantity": "echo_strength",
        "unit": "count",
        "nodata": int(NUMBERS[0, 10, 10]),
        "plane": 0,
    }
    values = {
        "format": 1,
        "name": "sonar",
        "source": [{"files": ["*.tif"]}],
        "channel": [rule],
    }
    return TomlModality(parse_sensor_definition(values, "sensor.toml"))


SENSORS = {
    "gray": (Gray(), {"gray": 1}),
    "rgb": (Rgb(), {"rgb": 3}),
    "raster": (Raster(), {"raster": 4}),
    "composed": (ComposedModality([Raster(), Gray()]), {"raster": 2, "gray": 1}),
    "selected": (ComposedModality([Raster()], [2, 0]), {"raster": 4}),
    "declared": (_declared(), {"sonar": 2}),
    "plain": (Plain(), {"plain": 1}),
    "plain composed": (ComposedModality([Plain(), Gray()]), {"plain": 1, "gray": 1}),
    "halved": (Halved(), {"gray": 1}),
}


def _write(
    folder: Path, planes: dict[str, int], ending: str = ".tif"
) -> dict[str, Path]:
    files = {name: folder / f"{name}{ending}" for name in planes}
    for name, count in planes.items():
        if name == "rgb":
            import tifffile

            tifffile.imwrite(
                files[name],
                np.moveaxis(NUMBERS[:3], 0, 2),
                photometric="rgb",
                tile=(16, 16),
            )
        else:
            write_image(files[name], NUMBERS[:count])
    return files


@pytest.mark.parametrize("name", SENSORS)
def test_a_window_of_a_sample_is_the_same_part_of_the_whole(
    tmp_path: Path, name: str
) -> None:
    """Whoever cuts an image into windows sees what it sees in a small one, whether the sensor knows windows or not."""
    sensor, planes = SENSORS[name]
    files = _write(tmp_path, planes)
    whole = load_sample(sensor, files).cut(WINDOW)
    part = load_sample(sensor, files, window=WINDOW)
    np.testing.assert_array_equal(part.data, whole.data)
    np.testing.assert_array_equal(part.valid, whole.valid)
    assert part.channels == whole.channels
    reads = not any(word in name for word in ("plain", "halved"))
    assert sensor.window_size(files) == ((33, 47) if reads else None)


class Faulty(Planes):
    """Does what it is told instead of reading."""

    name = "faulty"

    def __init__(self, does: Any) -> None:
        super().__init__()
        self.does = does

    def load(self, files: PathsBySource) -> SensorImage:
        if isinstance(self.does, Exception):
            raise self.does
        return self.does  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "does", [RuntimeError("camera on fire"), FileNotFoundError("x"), None, [1, 2]]
)
def test_a_fault_of_a_sensor_names_sensor_and_file(does: object) -> None:
    """It is not SimMAT's, and of a thousand files one must be found."""
    with pytest.raises(
        PluginError,
        match=r"modality 'faulty' \(\S*test_builtin\) failed on a/b\.npy",
    ):
        load_sample(Faulty(does), {"planes": Path("a/b.npy")})


def test_what_a_sensor_says_on_purpose_stays(tmp_path: Path) -> None:
    """Its words are the best there are."""
    with pytest.raises(DataError, match=r"^too dark$"):
        load_sample(Faulty(DataError("too dark")), {"planes": tmp_path})
