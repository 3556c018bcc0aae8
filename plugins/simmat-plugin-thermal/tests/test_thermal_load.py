"""Kelvin where the file says so, counts where it does not, and never a guess, also by `simmat modalities guess`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from simmat_plugin_guess.guess import Candidate, GroupGuess, guess_folder
from simmat_plugin_thermal.adapter import (
    COUNTS,
    TEMPERATURE,
    MinMaxThermal,
    Thermal,
    ThermalOptions,
)

from simmat.errors import ConfigError, DataError
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import SensorImage

ADAPTERS: dict[str, ModalityAdapter] = {
    "thermal": Thermal(),
    "thermal-k": Thermal(ThermalOptions(unit="K")),
    "thermal-ck": Thermal(ThermalOptions(unit="cK")),
    "thermal-mk": Thermal(ThermalOptions(unit="mK")),
    "thermal-c": Thermal(ThermalOptions(unit="C")),
    "thermal-minmax": MinMaxThermal(),
}
Write = Callable[[Path, np.ndarray], None]
KELVIN = np.array([[280.0, 300.25], [310.5, 350.75]])


def load(path: Path, modality: str = "thermal") -> SensorImage:
    """Read one file as a modality."""
    return ADAPTERS[modality].load({"thermal": path})


@pytest.mark.parametrize(
    ("unit", "stored"),
    [
        ("cK", np.rint(KELVIN * 100).astype(np.uint16)),
        ("K", KELVIN.astype(np.float32)),
        ("mK", np.rint(KELVIN * 1000).astype(np.uint32)),
        ("degC", (KELVIN - 273.15).astype(np.float32)),
    ],
)
def test_a_tiff_that_states_its_unit_is_read_in_kelvin(
    tmp_path: Path, unit: str, stored: np.ndarray
) -> None:
    """The file's own word is the only evidence there is."""
    tifffile.imwrite(
        tmp_path / "a.tif", stored, description=f'{{"unit": "{unit}"}}', metadata=None
    )
    image = load(tmp_path / "a.tif")
    assert image.channels == (TEMPERATURE,)
    np.testing.assert_allclose(image.data[0], KELVIN, atol=1e-3)


def test_a_png_that_states_its_unit_is_read_in_kelvin(tmp_path: Path) -> None:
    """PNG has a text field for it."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", '{"unit": "cK"}')
    Image.fromarray(np.rint(KELVIN * 100).astype(np.uint16)).save(
        tmp_path / "a.png", pnginfo=text
    )
    np.testing.assert_allclose(load(tmp_path / "a.png").data[0], KELVIN, atol=1e-3)


@pytest.mark.parametrize(
    "description",
    ["", "30.5 degC at noon", '{"camera": "x"}', '{"unit": "count"}', "[1]"],
)
def test_numbers_without_a_stated_unit_are_counts(
    tmp_path: Path, description: str
) -> None:
    """30025 may be 300.25 K or plain sensor counts; the file must say."""
    stored = np.rint(KELVIN * 100).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, description=description, metadata=None)
    image = load(tmp_path / "a.tif")
    assert image.channels == (COUNTS,)
    np.testing.assert_array_equal(image.data[0], stored)


@pytest.mark.parametrize(
    ("modality", "stored"),
    [
        ("thermal-k", KELVIN.astype(np.float32)),
        ("thermal-ck", np.rint(KELVIN * 100).astype(np.uint16)),
        ("thermal-mk", np.rint(KELVIN * 1000).astype(np.uint32)),
        ("thermal-c", (KELVIN - 273.15).astype(np.float32)),
    ],
)
def test_the_user_can_state_the_unit(
    tmp_path: Path, modality: str, stored: np.ndarray
) -> None:
    """Most 16-bit cameras write kelvin by a scale that only their manual names."""
    np.save(tmp_path / "a.npy", stored)
    image = load(tmp_path / "a.npy", modality)
    assert image.channels == (TEMPERATURE,)
    np.testing.assert_allclose(image.data[0], KELVIN, atol=1e-3)


def test_a_file_that_states_another_unit_than_the_user_is_refused(
    tmp_path: Path,
) -> None:
    """One of the two is wrong, and only the user can tell which."""
    tifffile.imwrite(
        tmp_path / "a.tif",
        KELVIN.astype(np.float32),
        description='{"unit": "K"}',
        metadata=None,
    )
    with pytest.raises(DataError, match=r"unit .*K, .*unit .*degC"):
        load(tmp_path / "a.tif", "thermal-c")


def test_numbers_of_another_scale_are_refused_with_the_way_to_read_them(
    tmp_path: Path,
) -> None:
    """FLIR's TLinear has 0.04 K a count, which no option says."""
    np.save(tmp_path / "a.npy", np.rint(KELVIN / 0.04).astype(np.uint16))
    with pytest.raises(
        DataError, match=r"150 to 2500 K.*mK.*sensor\.toml with scale = 0\.04"
    ):
        load(tmp_path / "a.npy", "thermal-ck")


@pytest.mark.parametrize("top_k", [340.0, 900.0])
def test_kelvin_are_saved_with_their_unit(tmp_path: Path, top_k: float) -> None:
    """Simulated sets are read back in kelvin, to 0.01 K, also where 16 bits of cK do not reach."""
    values = np.linspace(220, top_k, 20).reshape(1, 4, 5)
    valid = np.ones((1, 4, 5), dtype=bool)
    valid[0, 1, 2] = False
    image = SensorImage.from_planes(values, (TEMPERATURE,), valid=valid)
    Thermal().save(image, {"thermal": tmp_path / "a.tif"})
    back = load(tmp_path / "a.tif")
    assert back.channels == (TEMPERATURE,)
    np.testing.assert_allclose(back.data, image.data, atol=0.0051)
    np.testing.assert_array_equal(back.valid, valid)


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_kelvin_are_not_saved_where_their_unit_would_be_lost(
    tmp_path: Path, name: str
) -> None:
    """They would come back as counts."""
    image = SensorImage.from_planes(KELVIN, (TEMPERATURE,))
    with pytest.raises(ConfigError, match=r"use \.tif"):
        Thermal().save(image, {"thermal": tmp_path / name})
    assert list(tmp_path.iterdir()) == []


def test_min_max_scales_every_image_by_itself(tmp_path: Path) -> None:
    """The benchmark feeds raw arrays whose level differs from file to file; only their shape counts."""
    for name, offset in (("a.npy", 0), ("b.npy", 5000)):
        np.save(tmp_path / name, np.array([[100.0, 200.0], [300.0, 500.0]]) + offset)
    first, second = (
        load(tmp_path / name, "thermal-minmax") for name in ("a.npy", "b.npy")
    )
    np.testing.assert_allclose(first.data, [[[0, 0.25], [0.5, 1]]])
    np.testing.assert_allclose(second.data, first.data)


def test_unit_and_nodata_are_refused_for_the_records_of_a_radiometric_jpeg(
    tmp_path: Path, write_flir_jpeg: Write
) -> None:
    """They hold the kelvin of every pixel, and no number that the user could have seen."""
    write_flir_jpeg(tmp_path / "a.jpg", np.full((4, 6), 17000, dtype=np.uint16))
    file = {"thermal": tmp_path / "a.jpg"}
    with pytest.raises(DataError, match=r"a\.jpg: .*leave --nodata out"):
        Thermal(ThermalOptions(nodata=0)).load(file)
    with pytest.raises(DataError, match="option unit"):
        Thermal(ThermalOptions(unit="C")).load(file)


def test_a_band_that_states_a_scale_is_refused_where_its_unit_matters(
    tmp_path: Path,
) -> None:
    """Hundredths of a degree with a fill value, read as degrees, would be 2000 K."""
    text = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.01</Item></GDALMetadata>'
    tag = [(42112, "s", 0, text, True)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.full((2, 2), 1900, np.int16),
        metadata=None,
        extratags=tag,
    )
    with pytest.raises(DataError, match=r"0.01 plus 0.*'thermal'"):
        load(tmp_path / "a.tif", "thermal-c")
    assert load(tmp_path / "a.tif").channels == (COUNTS,)


def test_degrees_with_a_flame_are_not_kelvin(tmp_path: Path) -> None:
    """A few pixels in range make no temperature of the others."""
    celsius = np.linspace(15, 40, 4096, dtype=np.float32)
    celsius[:64] = np.linspace(150, 400, 64)
    np.save(tmp_path / "a.npy", celsius.reshape(64, 64))
    with pytest.raises(DataError, match="150 to 2500 K"):
        load(tmp_path / "a.npy", "thermal-k")


def group_of(folder: Path) -> GroupGuess:
    (found,) = guess_folder(folder, [Thermal()]).groups
    return found


def best_of(folder: Path) -> Candidate:
    found = group_of(folder).best
    assert found is not None
    return found


def raw() -> np.ndarray:
    counts = np.random.default_rng(0).integers(13000, 16000, (24, 32))
    return counts.astype(np.uint16)


def test_flir_records_state_kelvin(
    tmp_path: Path, write_flir_jpeg: Callable[..., None]
) -> None:
    """The constants of the calibration are in the file."""
    for number in range(2):
        write_flir_jpeg(tmp_path / f"{number}.jpg", raw())
    found = best_of(tmp_path)
    assert found.recognition.certainty == "stated"
    assert [channel.unit for channel in found.channels] == ["K"]
    assert "FLIR" in found.recognition.evidence[0]


def test_ordinary_and_radiometric_jpegs_are_told_apart(
    tmp_path: Path, write_flir_jpeg: Callable[..., None]
) -> None:
    """Some cameras write a picture of each beside the other."""
    write_flir_jpeg(tmp_path / "a.jpg", raw())
    Image.fromarray(np.full((24, 32), 128, np.uint8)).save(tmp_path / "b.jpg")
    groups = guess_folder(tmp_path, [Thermal()]).groups
    units = {group.files.first.path.name: group.best for group in groups}
    assert {
        name: None if best is None else best.channels[0].unit
        for name, best in units.items()
    } == {"a.jpg": "K", "b.jpg": "count"}


def test_a_unit_in_the_description_is_stated(tmp_path: Path) -> None:
    """Our own files, and those of others who say it, need no question."""
    stored = np.full((24, 32), 29500, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, description='{"unit": "cK"}')
    found = best_of(tmp_path)
    assert found.recognition.certainty == "stated"
    assert "cK" in found.unit_evidence
    assert group_of(tmp_path).questions == ()


def test_a_unit_that_only_fits_is_asked_for_and_never_taken(tmp_path: Path) -> None:
    """30,000 counts are 27 °C in centikelvin, or just bright."""
    stored = np.random.default_rng(0).integers(29500, 30500, (24, 32))
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(np.uint16))
    found = group_of(tmp_path)
    assert found.best is not None
    assert [channel.unit for channel in found.best.channels] == ["count"]
    assert any("unit=cK" in text and "°C" in text for text in found.questions)


def test_counts_of_no_usual_temperature_suggest_no_unit(tmp_path: Path) -> None:
    """A question that cannot be right is noise."""
    stored = np.random.default_rng(0).integers(0, 255, (24, 32))
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(np.uint16))
    assert not any("unit=" in text for text in group_of(tmp_path).questions)


def test_the_frames_of_a_sequence_have_temperatures(
    tmp_path: Path, flir_block: Callable[..., bytes]
) -> None:
    """By the constants in the file; asking for a unit of the raw values would be wrong."""
    (tmp_path / "a.seq").write_bytes(flir_block(raw()) + flir_block(raw()))
    found = best_of(tmp_path)
    assert found.recognition.certainty == "stated"
    assert "kelvin" in found.unit_evidence
    assert not any("unit=" in text for text in found.recognition.questions)
