"""A sensor described by a `sensor.toml`: what it reads, what the network gets, and what is refused."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from simmat.errors import ConfigError, DataError
from simmat.io.images import write_image
from simmat.sensors.adapter import (
    ModalityAdapter,
    PathsBySource,
    Source,
    load_sample,
    with_data_card,
)
from simmat.sensors.composed_modality import ComposedModality
from simmat.sensors.sensor_toml import (
    TomlModality,
    parse_sensor_definition,
    read_sensor,
)
from simmat.types import Channel, SensorImage, Window

ONE = {"name": "echo", "quantity": "echo_strength", "unit": "count"}


def sensor(*channels: dict[str, Any], source: Any = None, **more: Any) -> TomlModality:
    """A sensor of one source unless said."""
    sources = source or [{"files": ["*.png", "*.tif", "*.npy"]}]
    values = {
        "format": 1,
        "name": "sonar",
        "source": sources,
        "channel": [dict(c) for c in channels],
        **more,
    }
    return TomlModality(parse_sensor_definition(values, "sensor.toml"))


def written(path: Path, planes: npt.ArrayLike) -> dict[str, Path]:
    """Write planes and return them as the files of a sample."""
    write_image(path, np.asarray(planes))
    return {"sonar": path}


def prepared(
    adapter: TomlModality, values: npt.ArrayLike, tmp_path: Path
) -> SensorImage:
    """What the network gets of one float plane, before the pipeline's z-score."""
    planes = np.asarray(values, dtype=np.float32)
    return adapter.transform(
        adapter.load(
            written(tmp_path / "x.npy", planes[None] if planes.ndim == 2 else planes)
        )
    )


def refused(values: dict[str, Any] | str, tmp_path: Path) -> str:
    """The message of a description that is refused."""
    file = tmp_path / "sensor.toml"
    if isinstance(values, str):
        file.write_text(textwrap.dedent(values), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            read_sensor(file)
    else:
        with pytest.raises(ConfigError) as caught:
            parse_sensor_definition(values, "sensor.toml")
    return str(caught.value)


def test_a_16_bit_png_is_read_in_the_declared_unit(tmp_path: Path) -> None:
    """value = stored * scale + offset, from the whole 16 bits: a thermal camera's centikelvin."""
    stored = np.array([[27315, 30000], [65535, 0]], dtype=np.uint16)
    adapter = sensor({**ONE, "unit": "K", "scale": 0.01, "offset": 0.5, "nodata": 0})
    image = adapter.load(written(tmp_path / "a.png", stored[None]))
    assert image.data[0, 0].tolist() == pytest.approx([273.65, 300.5])
    assert image.data[0, 1, 0] == pytest.approx(655.85)
    assert image.valid[0].tolist() == [[True, True], [True, False]]
    assert image.channels[0].unit == "K"


def test_planes_and_bands_are_taken_by_number(tmp_path: Path) -> None:
    """`plane` counts from 0 as Python does, `band` from 1 as GIS programs do."""
    planes = np.stack(
        [np.full((2, 3), value, dtype=np.int16) for value in (10, 20, 30)]
    )
    adapter = sensor(
        {**ONE, "name": "third", "plane": 2},
        {**ONE, "name": "first", "band": 1, "wavelength_um": 0.5},
    )
    for name in ("a.tif", "a.npy"):
        image = adapter.load(written(tmp_path / name, planes))
        assert [channel.name for channel in image.channels] == ["third", "first"]
        assert image.data[:, 0, 0].tolist() == [30, 10]
    assert image.channels[1].wavelength_um == 0.5


def test_several_files_make_one_image(tmp_path: Path) -> None:
    """Cameras with a file a band are common."""
    sources = [
        {"name": "near", "files": "*_near.npy"},
        {"name": "far", "files": "*_far.npy"},
    ]
    adapter = sensor(
        {**ONE, "source": "far"}, {**ONE, "name": "b", "source": "near"}, source=sources
    )
    files = {name: tmp_path / f"1_{name}.npy" for name in ("near", "far")}
    for value, file in enumerate(files.values()):
        np.save(file, np.full((2, 2), value, dtype=np.uint8))
    assert adapter.load(files).data[:, 0, 0].tolist() == [1, 0]
    assert adapter.sources[0].extensions == ("_near.npy",)
    np.save(files["far"], np.zeros((2, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"1_near\.npy is 2x2, .*1_far\.npy is 3x2"):
        adapter.load(files)


@pytest.mark.parametrize("stored", [0.1, -9999.0])
def test_every_declared_nodata_value_is_invalid(stored: float, tmp_path: Path) -> None:
    """Also one that float32 cannot hold exactly, as 0.1."""
    values = np.array([[1.0, stored]], dtype=np.float32)
    image = sensor({**ONE, "nodata": [-9999, 0.1]}).load(
        written(tmp_path / "a.npy", values[None])
    )
    assert image.valid.tolist() == [[[True, False]]]


def stating(path: Path, *scales: tuple[int, float, float]) -> dict[str, Path]:
    """Write centikelvin whose TIFF states plane, scale and offset as GDAL does, and return it as a sample."""
    text = "".join(
        f'<Item name="{role.upper()}" sample="{plane}" role="{role}">{value}</Item>'
        for plane, *values in scales
        for role, value in zip(("scale", "offset"), values, strict=True)
    )
    tag = [(42112, "s", 0, f"<GDALMetadata>{text}</GDALMetadata>", True)]
    planes = np.full((2, 4, 4), 29475, np.uint16)
    tifffile.imwrite(
        path,
        planes,
        photometric="minisblack",
        planarconfig="separate",
        metadata=None,
        extratags=tag,
    )
    return {"sonar": path}


@pytest.mark.parametrize(
    "declared", [{}, {"scale": 0.1}, {"scale": 0.01, "offset": 5.0}]
)
def test_a_scale_that_the_file_states_and_the_description_does_not_is_refused(
    declared: dict[str, float], tmp_path: Path
) -> None:
    """29475 K would train, and mean nothing."""
    files = stating(tmp_path / "a.tif", (0, 0.01, 0.0))
    with pytest.raises(DataError, match=r"a\.tif: .*scale = 0.01 and offset = 0"):
        sensor({**ONE, "unit": "K", "plane": 0, **declared}).load(files)


def test_a_scale_that_file_and_description_agree_on_is_applied_once(
    tmp_path: Path,
) -> None:
    """Writers keep the scale as float32, whose digits differ from those of the description."""
    files = stating(
        tmp_path / "a.tif", (0, float(np.float32(0.01)), -float(np.float32(0.1)))
    )
    image = sensor(
        {**ONE, "unit": "K", "plane": 0, "scale": 0.01, "offset": -0.1}
    ).load(files)
    assert image.data[0, 0, 0] == pytest.approx(294.65)


@pytest.mark.parametrize(
    ("channel", "source", "said"),
    [
        (ONE, {}, "3 planes.*'echo' .*plane = 0 to 2"),
        ({**ONE, "plane": 3}, {}, "3 planes.*'echo' .*plane = 3"),
        ({**ONE, "plane": 0}, {"planes": 4}, "3 planes .*source 'sonar' .*planes = 4"),
    ],
)
def test_a_file_with_other_planes_is_refused(
    channel: dict[str, Any], source: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """No plane is guessed: a colour picture is no grey one."""
    files = written(tmp_path / "a.png", np.zeros((3, 2, 2), dtype=np.uint8))
    with pytest.raises(DataError, match=rf"a\.png: .*{said}"):
        sensor(channel, source=[{"files": "*.png", **source}]).load(files)


def test_decibel_is_10_log_of_power_and_20_log_of_amplitude(tmp_path: Path) -> None:
    """Which of the two the numbers are must be said; the floor keeps a count of zero."""
    power = sensor({**ONE, "normalize": {"kind": "db", "of": "power"}})
    image = prepared(power, [[1, 100, 0, -1]], tmp_path)
    assert image.data[0, 0, :2].tolist() == pytest.approx([0, 20])
    assert image.valid[0, 0].tolist() == [True, True, False, False]
    assert image.channels[0].unit == "dB"
    amplitude = sensor(
        {**ONE, "normalize": {"kind": "db", "of": "amplitude", "floor": 0.1}}
    )
    image = prepared(amplitude, [[100, 0]], tmp_path)
    assert image.data[0, 0].tolist() == pytest.approx([40, -20])
    assert image.valid.all()


def test_percentile_is_taken_of_every_image_alone(tmp_path: Path) -> None:
    """A microscope's gain differs from image to image; missing values must not shift the percentiles."""
    adapter = sensor(
        {
            **ONE,
            "nodata": -9999,
            "normalize": {"kind": "percentile", "low": 0, "high": 50},
        }
    )
    image = prepared(adapter, [[0, 10, 20, 30, 40, -9999]], tmp_path)
    assert image.data[0, 0, :5].tolist() == pytest.approx([0, 0.5, 1, 1, 1])
    assert not image.valid[0, 0, 5]
    again = prepared(adapter, [[100, 300, 500, 700, 900, -9999]], tmp_path)
    assert again.data[0, 0, :5].tolist() == pytest.approx([0, 0.5, 1, 1, 1])
    assert prepared(adapter, [[7, 7]], tmp_path).data.tolist() == [[[0, 0]]]


def test_a_fixed_range_and_a_stated_z_score_need_no_statistics(tmp_path: Path) -> None:
    """The same value must reach the network whatever the training split was."""
    from simmat.sensors.normalize import Statistics, fit_channels, normalize

    adapter = sensor(
        {**ONE, "plane": 0, "normalize": {"kind": "range", "low": 0, "high": 12**0.5}},
        {
            **ONE,
            "name": "t",
            "plane": 1,
            "normalize": {"kind": "z-score", "mean": 10, "std": 2},
        },
        {**ONE, "name": "u", "plane": 2},
    )
    image = prepared(adapter, np.array([[[0, 99.0]], [[14, 6]], [[5, 9]]]), tmp_path)
    statistics = Statistics((7.0,) * 3, (2.0,) * 3, ((1.0,) * 3,) * 3, (9,) * 3)
    fitted = fit_channels(
        image.channels, statistics, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1)
    )
    network = normalize(image, fitted)
    assert network[:, 0, 0].tolist() == pytest.approx([-(3**0.5), 2, -1])
    assert network[:, 0, 1].tolist() == pytest.approx([3**0.5, -2, 1])


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    """One run, one list: file, table, key, what was got and what is allowed."""
    said = refused(
        """
        format = 1
        name = "My Sonar"
        descripton = "x"
        [[source]]
        files = "*.exr"
        [[channel]]
        name = "echo"
        quantity = "echo_strength"
        unit = 3
        wavelenght_um = 3
        plane = -1
        normalize = "rnage"
        [[channel]]
        name = "b"
        unit = "1"
        quantity = "x"
        nodata = "zero"
        valid_range = [1]
        normalize = { kind = "db", off = "power" }
        """,
        tmp_path,
    )
    assert said.startswith(f"{tmp_path}/sensor.toml: 11 problems:")
    for problem in (
        "name .* got 'My Sonar'",
        r"source 1 \('sensor'\): files .*\.png .*, got '\*\.exr'",
        r"channel 1 \('echo'\): unit .* string, got 3",
        r"channel 1 \('echo'\): plane .* 0, got -1",
        r"channel 1 \('echo'\): normalize .*kind .*'z-score'",
        r"channel 2 \('b'\): nodata .* number, got 'zero'",
        r"channel 2 \('b'\): valid_range 2 is missing",
        r"channel 2 \('b'\): normalize: .*'off'.* 'of'",
        "'wavelenght_um'.* 'wavelength_um'",
        "'descripton'.* 'description'",
    ):
        assert re.search(problem, said), problem


def test_settings_that_exclude_each_other_are_named() -> None:
    """Each key alone is fine; together they contradict."""
    two = [
        {"name": "a", "files": "*.png", "planes": 2},
        {"name": "b", "files": "*.png"},
    ]
    with pytest.raises(ConfigError) as caught:
        sensor(
            {**ONE, "source": "a", "plane": 1, "band": 2},
            {**ONE, "source": "c"},
            {**ONE, "name": "x", "plane": 0},
            {**ONE, "name": "y", "source": "a", "scale": 0.0, "valid_range": [3, 1]},
            {
                **ONE,
                "name": "z",
                "source": "a",
                "plane": 2,
                "normalize": {"kind": "range", "low": 3, "high": 1},
            },
            {
                **ONE,
                "name": "v",
                "source": "a",
                "plane": 0,
                "normalize": {"kind": "z-score", "mean": 3},
            },
            {**ONE, "name": "w", "source": "b", "quantity": "srgb", "normalize": "log"},
            source=two,
        )
    problems = (
        "'echo'",
        r"channel 1 \('echo'\): plane = 1 .* band = 2",
        r"channel 2 \('echo'\): source .* a, b, got 'c'",
        r"channel 3 \('x'\): source .* a, b",
        r"channel 4 \('y'\): plane or band",
        r"channel 4 \('y'\): .*valid_range .* low < high",
        r"channel 5 \('z'\): normalize\.low .*normalize\.high, got 3 and 1",
        r"channel 6 \('v'\): .*mean and std",
        r"channel 7 \('w'\): .*'srgb' .*leave normalize out",
    )
    for problem, line in zip(problems, str(caught.value).splitlines()[1:], strict=True):
        assert re.search(problem, line), line


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    """A slip in a path is as easy as one in a name."""
    (tmp_path / "sonar.toml").touch()
    with pytest.raises(ConfigError, match=r"sonr\.toml.*sonar\.toml"):
        read_sensor(tmp_path / "sonr.toml")


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sensor-toml.md").read_text(encoding="utf-8")
DESCRIBED = dict(
    re.findall(r"^```toml\n# (\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
)
DESCRIBED["water.toml"] = (ROOT / "examples" / "water.toml").read_text("utf-8")
SETS = {
    "sonar.toml": ("sonar-objects", 100),
    "water.toml": ("multispectral-water", 100),
}


def test_every_description_of_the_page_is_one(tmp_path: Path) -> None:
    """The page is copied from; a slip in it is a slip in many."""
    assert DESCRIBED.keys() == SETS.keys()
    for name, text in DESCRIBED.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_sensor(tmp_path / name).channels


def test_the_commented_example_is_one() -> None:
    """It shows every key, so it must be right in every key."""
    adapter = read_sensor(ROOT / "examples" / "sensor.toml")
    assert [channel.name for channel in adapter.channels] == [
        "red",
        "nir",
        "swir",
        "height",
    ]
    assert [rule.index for rule in adapter.definition.channel] == [3, 4, 5, None]


RED = [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
"""The pixel (0, 0) of the first band is the pixel (2, 1) of red."""
NIR = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
"""The camera of nir has half of the resolution."""


def rig(*extra_sources: str) -> TomlModality:
    """Return a sensor with a file for each of three bands; nir is the first channel, but the last file."""
    bands = ("green", "red", "nir")
    sources = []
    for name in (*bands, *extra_sources):
        sources.append({"name": name, "files": f"*_{name}.npy"})
    channels = []
    for name in ("nir", "green", "red"):
        channels.append(
            {"name": name, "source": name, "quantity": "counts", "unit": "count"}
        )
    values = {"format": 1, "name": "rig", "source": sources, "channel": channels}
    return TomlModality(parse_sensor_definition(values, "rig.toml"))


class Colour(ModalityAdapter):
    """Another camera, of one plane."""

    name = "colour"
    description = "test"
    sources = (Source("colour", (".npy",)),)
    channels = (Channel("gray", "value", "1"),)

    def load(self, files: PathsBySource) -> SensorImage:
        return SensorImage.from_planes(np.load(files["colour"]), self.channels)


class Joined(Colour):
    """A sensor of two files on one grid."""

    name = "joined"
    sources = (Source("left", (".npy",)), Source("right", (".npy",)))


def ramp(height: int, width: int) -> np.ndarray:
    """Return values by which a pixel is recognized."""
    y, x = np.mgrid[:height, :width]
    return (10 * y + x).astype(np.uint16)


def write(root: Path, planes: Mapping[str, np.ndarray]) -> dict[str, Path]:
    """Write a file for each source."""
    files = {}
    for name, plane in planes.items():
        files[name] = root / f"a_{name}.npy"
        np.save(files[name], plane)
    return files


def card(reference: str = "green", **matrices: Any) -> dict[str, Any]:
    """Return a card that states where sources lie on the grid of a reference."""
    alignment = {}
    for name, matrix in matrices.items():
        alignment[name] = {"reference": reference, "matrix": matrix}
    return {"alignment": alignment}


def test_bands_are_brought_onto_the_grid_of_the_first(tmp_path: Path) -> None:
    """Every band lies where its matrix says, in the order of the channels, in whole images and in windows."""
    files = write(tmp_path, {"green": ramp(6, 8), "red": ramp(6, 8), "nir": ramp(3, 4)})
    with pytest.raises(DataError, match="simmat align"):
        rig().load(files)
    sensor = with_data_card(rig(), card(red=RED, nir=NIR))
    image = sensor.load(files)
    assert [channel.name for channel in image.channels] == ["nir", "green", "red"]
    np.testing.assert_array_equal(image.data[1], ramp(6, 8))
    np.testing.assert_array_equal(image.data[2, :5, :6], ramp(6, 8)[1:, 2:])
    np.testing.assert_array_equal(image.valid[2].sum(), 5 * 6)
    np.testing.assert_array_equal(image.data[0, :5:2, :7:2], ramp(3, 4))
    assert sensor.window_size(files) == (6, 8)
    window = Window(1, 2, 5, 7)
    part = load_sample(sensor, files, window)
    np.testing.assert_array_equal(part.data, image.cut(window).data)
    np.testing.assert_array_equal(part.valid, image.cut(window).valid)


def test_a_band_that_is_placed_by_nothing_is_refused() -> None:
    """A matrix to another sensor's pixels says nothing if the first band has none."""
    for sensor in (rig(), ComposedModality([Colour(), rig()])):
        with pytest.raises(ConfigError, match=r"alignment\.red.*'green'"):
            with_data_card(sensor, card("colour", red=RED))


def test_files_on_one_grid_have_no_alignment_of_their_own() -> None:
    """Half-images of one chip are not moved against each other."""
    for sensor in (Joined(), ComposedModality([Colour(), Joined()])):
        with pytest.raises(ConfigError, match=r"alignment\.right.*one pixel grid"):
            with_data_card(sensor, card("left", right=RED))
    unused = rig("pan")
    assert unused.cameras() == (unused,)
    with pytest.raises(ConfigError, match=r"alignment\.red.*one pixel grid"):
        with_data_card(unused, card(red=RED))
