"""Radar: what its numbers are is said, never guessed; the network gets decibel; speckle is what statistics say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from simmat_plugin_guess.guess import guess_folder
from simmat_plugin_sar.adapter import Sar, SarOptions
from simmat_plugin_sar.radar import sigma_nought
from simmat_plugin_sar.speckle import estimate_looks, lee
from simmat_plugin_scenes import Scene
from simmat_plugin_scenes.camera import Noise
from simmat_plugin_scenes.generate import outdoors
from simmat_plugin_scenes.render import render
from simmat_plugin_scenes.world import CLASSES
from simmat_testing.checks import run_check
from simmat_testing.find_parts import MODALITY_CHECKS
from simmat_testing.modality_case import ModalityCase

from simmat.errors import DataError
from simmat.sensors.builtin import MODALITIES
from simmat.types import SensorImage

ADAPTERS = {
    "sar": Sar(),
    "sar-dual": Sar(SarOptions(polarizations="dual")),
    "sar-files": Sar(SarOptions(polarizations="dual", separate_files=True)),
    "sar-picture": Sar(SarOptions(gray_picture=True)),
    "sar-lee": Sar(SarOptions(filter="lee")),
    "sar-power": Sar(SarOptions(scale="power")),
    "sar-power-dual": Sar(SarOptions(scale="power", polarizations="dual")),
    "sar-power-lee": Sar(SarOptions(scale="power", filter="lee")),
    "sar-db": Sar(SarOptions(scale="db")),
    "sar-db-dual": Sar(SarOptions(scale="db", polarizations="dual")),
    "sar-db-lee": Sar(SarOptions(scale="db", filter="lee")),
}
COUNTS = np.array([[0, 10, 100], [1, 20, 255]], dtype=np.uint8)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A place with a car under the sky."""
    worlds = (outdoors(np.random.default_rng(seed)) for seed in range(200))
    world = next(
        w for w in worlds if any(thing.class_name == "vehicle" for thing in w.things)
    )
    return render(world, (48, 64), Noise(np.random.default_rng(0)))


def load(path: Path, modality: str = "sar") -> SensorImage:
    sensor = ADAPTERS[modality]
    return sensor.load({sensor.sources[0].name: path})


def seen(path: Path, modality: str = "sar") -> SensorImage:
    return ADAPTERS[modality].transform(load(path, modality))


def write(path: Path, planes: np.ndarray) -> Path:
    tifffile.imwrite(path, planes, photometric="minisblack", metadata=None)
    return path


@pytest.mark.parametrize("modality", ["sar", "sar-power"])
def test_whole_numbers_have_a_quantity_that_is_counted(
    tmp_path: Path, modality: str
) -> None:
    """Power in counts would claim a calibration that the file has not."""
    case = ModalityCase(
        ADAPTERS[modality],
        tmp_path / "case",
        [{"sar": write(tmp_path / "a.tif", COUNTS)}],
    )
    check = MODALITY_CHECKS["unit-fits-quantity"]
    assert run_check(check, case).status == "ok"
    assert load(tmp_path / "a.tif", modality).channels[0].unit == "count"


def test_zero_counts_are_dark_not_missing(tmp_path: Path) -> None:
    """Calm water rounds to zero; as a hole it would look like average ground."""
    image = seen(write(tmp_path / "a.tif", COUNTS))
    assert image.valid.all()
    assert image.data[0, 0, 0] == pytest.approx(20 * np.log10(0.5), abs=1e-5)


@pytest.mark.parametrize("modality", ["sar", "sar-power", "sar-power-lee"])
def test_negative_whole_numbers_are_missing(tmp_path: Path, modality: str) -> None:
    """A fill value of -9999 is no dark return."""
    counts = np.full((16, 16), 100, dtype=np.int16)
    counts[:4] = -9999
    counts[8] = 0
    image = seen(write(tmp_path / "a.tif", counts), modality)
    assert not image.valid[0, :4].any()
    assert image.valid[0, 4:].all()


@pytest.mark.parametrize("modality", ["sar", "sar-power"])
def test_a_float_of_zero_has_no_logarithm(tmp_path: Path, modality: str) -> None:
    """Calibrated products fill their border with it, and subtracted noise leaves negative numbers."""
    values = np.array([[0.0, 0.1, 1.0, 0.01, -0.1, np.nan]], dtype=np.float32)
    image = seen(write(tmp_path / "a.tif", values), modality)
    assert image.valid[0, 0].tolist() == [False, True, True, True, False, False]
    factor = 20 if modality == "sar" else 10
    np.testing.assert_allclose(
        image.data[0, 0, 1:4], factor * np.log10([0.1, 1, 0.01]), atol=1e-5
    )


def test_decibel_stays_and_fill_values_are_missing(tmp_path: Path) -> None:
    """A second logarithm would have no meaning, and -9999 is no backscatter."""
    values = np.array([[-12.5, 3.0, -9999.0]], dtype=np.float32)
    image = seen(write(tmp_path / "a.tif", values), "sar-db")
    assert image.valid[0, 0].tolist() == [True, True, False]
    np.testing.assert_array_equal(image.data[0, 0, :2], [-12.5, 3])


@pytest.mark.parametrize("modality", ["sar", "sar-power"])
def test_decibel_read_as_something_else_is_refused(
    tmp_path: Path, modality: str
) -> None:
    """Its few positive numbers would be taken for a scene, and all others for holes."""
    decibel = np.random.default_rng(0).normal(-12, 6, (64, 64)).astype(np.float32)
    assert 0 < (decibel > 0).mean() < 0.1
    with pytest.raises(DataError, match="--modality-option scale=db"):
        load(write(tmp_path / "a.tif", decibel), modality)


@pytest.mark.parametrize("modality", ["sar", "sar-power"])
def test_a_wide_border_of_negative_fill_values_is_not_taken_for_decibel(
    tmp_path: Path, modality: str
) -> None:
    """A rotated scene leaves most of its frame empty, and the file says so."""
    values = np.full((8, 8), -9999, dtype=np.float32)
    values[:2] = 3
    tifffile.imwrite(
        tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-9999", True)]
    )
    assert load(tmp_path / "a.tif", modality).valid.mean() == 0.25


@pytest.mark.parametrize("modality", ["sar", "sar-lee"])
def test_a_border_of_zeros_is_missing_where_the_user_says_so(
    tmp_path: Path, modality: str
) -> None:
    """Filtered afterwards, the border would hold what the filter smeared into it, and darken the first real columns."""
    rng = np.random.default_rng(0)
    whole = (
        np.rint(500 * np.sqrt(rng.gamma(4, 1 / 4, (32, 96)))).clip(1).astype(np.uint16)
    )
    whole[:, :32] = 0
    file = write(tmp_path / "a.tif", whole)
    image = ADAPTERS[modality].with_options({"sar": {"nodata": 0}}).load({"sar": file})
    np.testing.assert_array_equal(image.valid[0], whole > 0)
    first = float((image.data[0, :, 32].astype(np.float64) ** 2).mean())
    assert first == pytest.approx(500**2, rel=0.25)


def test_three_equal_planes_are_read_where_the_user_says_so(tmp_path: Path) -> None:
    """Many sets hold grey as RGB; `sar` names the option for it, which refuses all but equal planes."""
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([COUNTS] * 3)).save(path)
    with pytest.raises(DataError, match="--modality-option gray_picture=true"):
        load(path)
    np.testing.assert_array_equal(load(path, "sar-picture").data[0], COUNTS)
    Image.fromarray(np.dstack([COUNTS, COUNTS, COUNTS + 1])).save(path)
    with pytest.raises(DataError, match="three equal planes"):
        load(path, "sar-picture")


def test_two_polarizations_come_in_one_file_or_in_two(tmp_path: Path) -> None:
    """Stacks hold VV and VH in one TIFF; agencies ship a file each."""
    both = np.stack([COUNTS, COUNTS // 2])
    image = load(write(tmp_path / "a.tif", both), "sar-dual")
    assert [channel.name for channel in image.channels] == ["co", "cross"]
    files = {
        "co": write(tmp_path / "vv.tif", both[0]),
        "cross": write(tmp_path / "vh.tif", both[1]),
    }
    pair = ADAPTERS["sar-files"].load(files)
    np.testing.assert_array_equal(pair.data, both)
    assert pair.channels == image.channels
    with pytest.raises(DataError, match=r"got 1 planes; .* separate_files=true"):
        load(files["co"], "sar-dual")
    with pytest.raises(DataError, match=r"(?s)vh.tif.*one scene"):
        ADAPTERS["sar-files"].load(
            {**files, "cross": write(tmp_path / "vh.tif", both[1][:, :2])}
        )


@pytest.mark.parametrize("looks", [1.0, 4.0, 12.0])
def test_looks_are_found_in_the_image(looks: float) -> None:
    """Files seldom say them, and the filter needs them."""
    power = np.random.default_rng(0).gamma(looks, 1 / looks, (96, 96))
    power[:, 48:] *= 20
    assert estimate_looks(power, np.ones(power.shape, dtype=bool)) == pytest.approx(
        looks, rel=0.35
    )


def test_lee_smooths_the_field_and_keeps_the_point() -> None:
    """A ship is one bright point; speckle is not."""
    power = np.random.default_rng(0).gamma(4, 1 / 4, (40, 40))
    power[20, 20] = 100.0
    smooth = lee(power, np.ones(power.shape, dtype=bool), 4.0)
    assert smooth[:10].std() < 0.4 * power[:10].std()
    assert smooth[:10].mean() == pytest.approx(power[:10].mean(), rel=0.03)
    assert smooth[20, 20] > 75


def test_lee_takes_nothing_from_what_is_missing() -> None:
    """A border of fill values would darken what lies beside it."""
    power = np.ones((20, 20))
    power[:, :8] = 1e6
    valid = np.ones((20, 20), dtype=bool)
    valid[:, :8] = False
    np.testing.assert_allclose(lee(power, valid, 4.0)[:, 8:], 1.0)
    np.testing.assert_array_equal(lee(power, valid, 4.0)[:, :8], 1e6)


def test_cars_shine_and_the_sky_is_black(scene: Scene) -> None:
    """Metal sends back, empty air does not."""
    level = 10 * np.log10(sigma_nought(scene, cross=False) + 1e-3)
    ground = (scene.instance == 0) & np.isfinite(scene.surface.depth_m)
    assert (
        level[scene.class_id == CLASSES.index("vehicle")].mean()
        > level[ground].mean() + 5
    )
    assert (
        sigma_nought(scene, cross=False)[~np.isfinite(scene.surface.depth_m)] == 0
    ).all()


@pytest.mark.parametrize(
    ("modality", "factors"),
    [("sar-power-dual", True), ("sar-lee", True), ("sar-db", False)],
)
def test_augmentation_keeps_the_sea(modality: str, factors: bool) -> None:
    """Power and amplitude are changed by factors: a fifth of the spread of a few bright ships is more than the sea."""
    channels = ADAPTERS[modality].channels
    assert ADAPTERS[modality].is_log_scale(channels) == (factors,) * len(channels)


def test_decibel_times_a_hundred_is_refused(tmp_path: Path) -> None:
    """A file that states a scale is not in decibel, though some of its numbers could be."""
    text = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.01</Item></GDALMetadata>'
    tag = [(42112, "s", 0, text, True)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.arange(-1600, 0, 100, np.int16).reshape(4, 4),
        metadata=None,
        extratags=tag,
    )
    with pytest.raises(DataError, match=r"0.01 plus 0.*'sar'"):
        load(tmp_path / "a.tif", "sar-db")


@pytest.mark.parametrize("modality", ["sar-db", "sar-db-dual", "sar-db-lee"])
def test_decibel_times_a_hundred_that_the_file_does_not_state_is_refused(
    tmp_path: Path, modality: str
) -> None:
    """2 pixels of 100 lie within -100 to 100, and the network would be trained on those."""
    count = 2 if modality == "sar-db-dual" else 1
    values = (
        np.random.default_rng(0).normal(-1200, 600, (count, 64, 64)).astype(np.int16)
    )
    assert 0 < (np.abs(values) <= 100).mean() < 0.1
    with pytest.raises(DataError, match=r"-100 to 100 dB.*hundredths"):
        load(write(tmp_path / "a.tif", values), modality)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unsigned_numbers_are_not_decibel(tmp_path: Path, dtype: type) -> None:
    """Chips of 8-bit amplitude have a third of their pixels below 100, and those would pass for strong returns."""
    chip = np.random.default_rng(0).rayleigh(110, (64, 64)).clip(0, 255).astype(dtype)
    assert 0.2 < (chip <= 100).mean() < 0.5
    with pytest.raises(DataError, match="scale=amplitude"):
        load(write(tmp_path / "a.tif", chip), "sar-db")
    tag = [(42113, "s", 0, "0", True)]
    tifffile.imwrite(
        tmp_path / "b.tif", np.zeros((4, 4), dtype), metadata=None, extratags=tag
    )
    assert not load(tmp_path / "b.tif", "sar-db").valid.any()


def test_a_wide_border_of_fill_is_not_taken_for_another_unit(tmp_path: Path) -> None:
    """A fill value is one number, however often it stands there; a whole plane of it leaves the other one."""
    values = np.random.default_rng(0).normal(-12, 6, (2, 16, 16)).astype(np.float32)
    values[0, 2:] = -9999
    values[1] = -32768
    valid = load(write(tmp_path / "a.tif", values), "sar-db-dual").valid
    assert valid[0, :2].all()
    assert not valid[0, 2:].any()
    assert not valid[1].any()


def test_alpha_is_not_polarization(tmp_path: Path) -> None:
    """Two planes of a PNG are grey and how opaque it is; cross-polarised it would be 255 everywhere."""
    Image.fromarray(np.dstack([COUNTS, np.full_like(COUNTS, 255)])).save(
        tmp_path / "a.png"
    )
    with pytest.raises(DataError, match=r"'sar' .*2 planes .*alpha"):
        load(tmp_path / "a.png", "sar-dual")
    with pytest.raises(DataError, match="--modality raster with --channels 0"):
        load(tmp_path / "a.png", "sar")


def test_a_long_bright_target_changes_nothing_beyond_its_windows() -> None:
    """The power of 16-bit amplitude spans 1e19 squared; running sums would lose the sea behind a quay."""
    sea = np.random.default_rng(0).gamma(4, 25, (64, 64))
    quay = sea.copy()
    quay[:, 20:24] = 65535.0**2
    valid = np.ones_like(sea, dtype=bool)
    np.testing.assert_allclose(
        lee(quay, valid, 4.0)[:, 40:], lee(sea, valid, 4.0)[:, 40:], rtol=1e-9
    )


def test_a_plane_that_is_stored_three_times_needs_its_option(tmp_path: Path) -> None:
    """Many radar sets are published as colour JPEGs."""
    folder = tmp_path / "sar-ships"
    folder.mkdir()
    plane = np.random.default_rng(0).integers(0, 256, (24, 32)).astype(np.uint8)
    Image.fromarray(np.stack([plane] * 3, axis=2)).save(folder / "a.png")
    (group,) = guess_folder(folder, [*MODALITIES, Sar()]).groups
    assert group.best is not None
    assert group.best.modality == "sar"
    assert group.best.recognition.options == {"gray_picture": True}
    assert any("amplitude" in text for text in group.questions)
