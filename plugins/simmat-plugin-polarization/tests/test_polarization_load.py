"""Intensity, angle and degree of polarization: the physics of the four polarizers, and what cannot be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from simmat_plugin_polarization.angles import FourAngles
from simmat_plugin_polarization.channels import PolarizationOptions
from simmat_plugin_polarization.computed import Computed
from simmat_plugin_polarization.mosaic import PolarizerMosaic, demosaiced, sampled

from simmat.errors import DataError
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.builtin import Rgb
from simmat.sensors.composed_modality import ComposedModality
from simmat.types import SensorImage

ADAPTERS: dict[str, ModalityAdapter] = {
    "polarization": FourAngles(),
    "polarization-mosaic": PolarizerMosaic(PolarizationOptions(files="mosaic")),
    "polarization-aolp-dolp": Computed(PolarizationOptions(files="aolp-dolp")),
    "polarization-aolp-dolp-deg": Computed(
        PolarizationOptions(files="aolp-dolp", angle_unit="deg")
    ),
}
SIZE_HW = (6, 8)
RNG = np.random.default_rng(0)
S0 = RNG.uniform(500, 3000, SIZE_HW)
AOLP = RNG.uniform(0, np.pi, SIZE_HW)
DOLP = RNG.uniform(0.05, 0.9, SIZE_HW)


def malus(
    angle_deg: float,
    s0: np.ndarray = S0,
    aolp: np.ndarray = AOLP,
    dolp: np.ndarray = DOLP,
) -> np.ndarray:
    """Return the intensity behind a polarizer, by Malus' law."""
    return s0 / 2 * (1 + dolp * np.cos(2 * (np.deg2rad(angle_deg) - aolp)))


def write_angles(folder: Path, images: dict[str, np.ndarray]) -> dict[str, Path]:
    """Write one npy a polarizer."""
    folder.mkdir(exist_ok=True)
    for name, values in images.items():
        np.save(folder / f"{name}.npy", values)
    return {name: folder / f"{name}.npy" for name in images}


def four(dtype: type = np.float64, **light: np.ndarray) -> dict[str, np.ndarray]:
    """Return the four images of a polarization camera."""
    return {
        f"i{angle}": malus(angle, **light).astype(dtype) for angle in (0, 45, 90, 135)
    }


def load(modality: str, files: dict[str, Path]) -> SensorImage:
    """Read one sample."""
    return ADAPTERS[modality].load(files)


def assert_same_light(one: SensorImage, other: SensorImage, atol: float = 2e-6) -> None:
    """Compare angles around the half circle, all else as numbers."""
    names = [channel.name for channel in one.channels]
    assert names == [channel.name for channel in other.channels]
    np.testing.assert_array_equal(one.valid, other.valid)
    for name, a, b in zip(names, one.data, other.data, strict=True):
        apart = a - b
        if name == "aolp":
            apart = (apart + np.pi / 2) % np.pi - np.pi / 2
        np.testing.assert_allclose(apart, 0, atol=atol * max(1, float(np.abs(b).max())))


def test_four_images_give_back_the_light_they_were_made_of(tmp_path: Path) -> None:
    """Angles over the whole half circle: an arctangent of S2/S1 would know only half of them."""
    image = load("polarization", write_angles(tmp_path, four()))
    assert [(c.name, c.unit) for c in image.channels] == [
        ("s0", "count"),
        ("aolp", "rad"),
        ("dolp", "1"),
    ]
    np.testing.assert_allclose(image.data[0], S0, rtol=1e-6)
    np.testing.assert_allclose(image.data[1], AOLP, atol=1e-5)
    np.testing.assert_allclose(image.data[2], DOLP, atol=1e-6)
    assert image.valid.all()


def test_the_network_gets_the_angle_without_its_jump(tmp_path: Path) -> None:
    """0 and 180 degrees are the same line; sin 2θ and cos 2θ, weighted by the degree, are S2/S0 and S1/S0."""
    adapter = ADAPTERS["polarization"]
    image = adapter.transform(load("polarization", write_angles(tmp_path, four())))
    assert [c.name for c in image.channels] == [
        "s0",
        "dolp",
        "dolp_cos_2aolp",
        "dolp_sin_2aolp",
    ]
    s1, s2 = malus(0) - malus(90), malus(45) - malus(135)
    np.testing.assert_allclose(image.data[2], s1 / S0, atol=1e-6)
    np.testing.assert_allclose(image.data[3], s2 / S0, atol=1e-6)
    low, high = (
        adapter.transform(
            load(
                "polarization",
                write_angles(tmp_path, four(aolp=np.full(SIZE_HW, angle))),
            )
        )
        for angle in (1e-7, np.pi - 1e-7)
    )
    np.testing.assert_allclose(low.data, high.data, atol=1e-3)


def test_flips_and_turns_hold_within_a_composition(tmp_path: Path) -> None:
    """`rgb+polarization` must not lose the physics of its part."""
    Image.fromarray(np.zeros((*SIZE_HW, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    joined = ComposedModality([Rgb(), ADAPTERS["polarization"]])
    files = {"rgb": tmp_path / "a.png", **write_angles(tmp_path, four())}
    flipped = joined.flip(joined.load(files), "horizontal")
    np.testing.assert_allclose(flipped.data[4], np.pi - AOLP[:, ::-1], atol=1e-5)
    assert joined.transform(flipped).channels[-1].name == "dolp_sin_2aolp"


def test_saturated_and_dark_pixels_have_no_polarization(tmp_path: Path) -> None:
    """A clipped highlight or two counts of noise would look strongly polarized; how bright they are is known."""
    images = four(np.uint8, s0=np.full(SIZE_HW, 200.0))
    images["i45"][0, 0] = 255
    for values in images.values():
        values[1, 1] = 2
    image = load("polarization", write_angles(tmp_path, images))
    lost = np.zeros(SIZE_HW, dtype=bool)
    lost[0, 0] = lost[1, 1] = True
    np.testing.assert_array_equal(
        image.valid, np.stack([~np.zeros_like(lost), ~lost, ~lost])
    )
    assert not ADAPTERS["polarization"].transform(image).valid[1:, lost].any()


def test_more_than_all_light_polarized_is_not_trusted(tmp_path: Path) -> None:
    """The four then do not belong together: something moved between them."""
    values = {"i0": 4000.0, "i45": 4000.0, "i90": 0.0, "i135": 0.0}
    image = load(
        "polarization",
        write_angles(tmp_path, {n: np.full(SIZE_HW, v) for n, v in values.items()}),
    )
    assert image.valid[0].all()
    assert not image.valid[1:].any()


def test_twelve_bits_shifted_up_are_full_at_their_largest(tmp_path: Path) -> None:
    """4095 becomes 65520, never 65535."""
    images = {name: np.full(SIZE_HW, 60000, dtype=np.uint16) for name in four()}
    images["i90"][2, 3] = 65520
    assert np.argwhere(
        ~load("polarization", write_angles(tmp_path, images)).valid[1]
    ).tolist() == [[2, 3]]


@pytest.mark.parametrize("hole", [-9999.0, np.nan])
def test_a_hole_in_a_mosaic_is_missing_in_every_channel_as_far_as_it_is_interpolated(
    tmp_path: Path, hole: float
) -> None:
    """A fill value would make the intensity of its eight neighbours negative."""
    raw = np.full(SIZE_HW, 500, dtype=np.float32)
    raw[2, 3] = hole
    tifffile.imwrite(
        tmp_path / "a.tif", raw, extratags=[(42113, "s", 0, "-9999", True)]
    )
    reached = np.zeros(SIZE_HW, dtype=bool)
    reached[1:4, 2:5] = True
    image = load("polarization-mosaic", {"mosaic": tmp_path / "a.tif"})
    np.testing.assert_array_equal(image.valid, np.stack([~reached] * 3))
    np.testing.assert_allclose(image.data[0, ~reached], 1000)


def test_a_stated_bit_depth_decides_saturation(tmp_path: Path) -> None:
    """4095 is full in a 12-bit camera whose file has 16."""
    values = np.full(SIZE_HW, 1000, dtype=np.uint16)
    for name in ("i0", "i45", "i90", "i135"):
        tifffile.imwrite(
            tmp_path / f"{name}.tif", values, description='{"bits": 12}', metadata=None
        )
    values[2, 3] = 4095
    tifffile.imwrite(
        tmp_path / "i0.tif", values, description='{"bits": 12}', metadata=None
    )
    files = {name: tmp_path / f"{name}.tif" for name in ("i0", "i45", "i90", "i135")}
    assert np.argwhere(~load("polarization", files).valid[1]).tolist() == [[2, 3]]
    tifffile.imwrite(
        tmp_path / "i0.tif", values, description='{"bits": 17}', metadata=None
    )
    with pytest.raises(DataError, match=r"17 bits.*1 to 16"):
        load("polarization", files)


def test_files_of_one_camera_that_state_different_bits_are_refused(
    tmp_path: Path,
) -> None:
    """One of them is wrong, and only the user can tell which."""
    files = {name: tmp_path / f"{name}.tif" for name in ("i0", "i45", "i90", "i135")}
    for name, path in files.items():
        said = {"i45": '{"bits": 12}', "i135": '{"bits": 10}'}.get(name, "")
        tifffile.imwrite(
            path, np.full(SIZE_HW, 1000, np.uint16), description=said, metadata=None
        )
    with pytest.raises(DataError, match=r"i135\.tif: .*10 bits.*i45\.tif 12"):
        load("polarization", files)


def test_colour_images_are_averaged_over_their_planes(tmp_path: Path) -> None:
    """Light of all colours adds up in the Stokes parameters."""
    weights = np.array([0.5, 1.0, 1.5])[:, None, None]
    coloured = {name: values * weights for name, values in four().items()}
    one, three = (
        load("polarization", write_angles(tmp_path / name, images))
        for name, images in (("a", four()), ("b", coloured))
    )
    assert_same_light(one, three)


@pytest.mark.parametrize(
    "modality", ["polarization", "polarization-mosaic", "polarization-aolp-dolp"]
)
def test_numbers_that_are_not_the_values_are_refused(
    tmp_path: Path, modality: str
) -> None:
    """An offset does not cancel in a degree of polarization."""
    text = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.0001</Item></GDALMetadata>'
    tag = [(42112, "s", 0, text, True)]
    files = {
        source.name: tmp_path / f"{source.name}.tif"
        for source in ADAPTERS[modality].sources
    }
    for path in files.values():
        tifffile.imwrite(
            path, np.full((4, 4), 0.5, np.float32), metadata=None, extratags=tag
        )
    with pytest.raises(DataError, match=r"0.0001 plus 0.*'polarization'"):
        load(modality, files)


def test_images_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    """Two of them may be of another camera or another crop."""
    images = four(np.uint16)
    images["i90"] = images["i90"][:, :6]
    with pytest.raises(
        DataError, match=r"i90\.npy: 6x6, 1 of uint16, but .*i0\.npy is 8x6"
    ):
        load("polarization", write_angles(tmp_path, images))
    with pytest.raises(DataError, match=r"i90\.npy: 8x6, 1 of float64, but"):
        load(
            "polarization",
            write_angles(tmp_path, {**four(np.uint16), "i90": malus(90)}),
        )


def test_a_mosaic_of_even_light_gives_it_back_everywhere(tmp_path: Path) -> None:
    """The pattern is 90 45 / 135 0; with another one every angle would be wrong."""
    even = {
        "s0": np.full(SIZE_HW, 2000.0),
        "aolp": np.full(SIZE_HW, 0.4),
        "dolp": np.full(SIZE_HW, 0.6),
    }
    raw = np.empty(SIZE_HW)
    for (row, column), angle in {
        (0, 0): 90,
        (0, 1): 45,
        (1, 0): 135,
        (1, 1): 0,
    }.items():
        raw[row::2, column::2] = malus(angle, **even)[row::2, column::2]
    np.save(tmp_path / "a.npy", raw)
    image = load("polarization-mosaic", {"mosaic": tmp_path / "a.npy"})
    np.testing.assert_allclose(image.data, np.stack(list(even.values())), rtol=1e-5)


def test_demosaicing_is_exact_on_a_ramp_and_keeps_what_was_measured() -> None:
    """Bilinear interpolation is, away from the border; a measured value is never changed."""
    rows, columns = np.indices((8, 10))
    ramp = np.stack([100.0 + 3 * rows + 5 * columns + 10 * place for place in range(4)])
    found = demosaiced(sampled(ramp))
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], ramp[:, 1:-1, 1:-1])
    noise = RNG.normal(size=(4, 8, 10))
    np.testing.assert_allclose(sampled(demosaiced(sampled(noise))), sampled(noise))


def test_a_saturated_pixel_of_a_mosaic_spoils_what_it_takes_part_in(
    tmp_path: Path,
) -> None:
    """Its neighbours' values of that angle are interpolated from it."""
    raw = np.full((8, 8), 100, dtype=np.uint8)
    raw[4, 4] = 255
    Image.fromarray(raw).save(tmp_path / "a.png")
    lost = ~load("polarization-mosaic", {"mosaic": tmp_path / "a.png"}).valid[1]
    expected = np.zeros((8, 8), dtype=bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(lost, expected)


def test_a_cut_mosaic_is_refused(tmp_path: Path) -> None:
    """An odd size cannot be whole cells of two by two."""
    Image.fromarray(np.full((7, 8), 100, dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="at least 4, got 8x7"):
        load("polarization-mosaic", {"mosaic": tmp_path / "a.png"})


def computed(folder: Path, aolp: np.ndarray, dolp: np.ndarray) -> dict[str, Path]:
    """Write angle and degree."""
    np.save(folder / "aolp.npy", aolp)
    np.save(folder / "dolp.npy", dolp)
    return {"aolp": folder / "aolp.npy", "dolp": folder / "dolp.npy"}


@pytest.mark.parametrize(
    ("modality", "aolp", "dolp", "atol"),
    [
        ("polarization-aolp-dolp", AOLP, DOLP, 1e-5),
        ("polarization-aolp-dolp", AOLP - np.pi / 2, DOLP, 1e-5),
        ("polarization-aolp-dolp-deg", np.rad2deg(AOLP), DOLP, 1e-5),
        (
            "polarization-aolp-dolp",
            np.rint(AOLP / np.pi * 255).astype(np.uint8),
            np.rint(DOLP * 255).astype(np.uint8),
            0.01,
        ),
        (
            "polarization-aolp-dolp-deg",
            np.rint(AOLP / np.pi * 65535).astype(np.uint16),
            np.rint(DOLP * 65535).astype(np.uint16),
            1e-4,
        ),
    ],
    ids=["radians", "signed", "degrees", "8 bits", "16 bits"],
)
def test_computed_angle_and_degree_are_read(
    tmp_path: Path, modality: str, aolp: np.ndarray, dolp: np.ndarray, atol: float
) -> None:
    """Floats in the unit the modality says, integers scaled to their full range."""
    image = load(modality, computed(tmp_path, aolp, dolp))
    expected = AOLP if aolp.min() >= 0 else np.mod(aolp, np.pi)
    np.testing.assert_allclose(image.data[0], expected, atol=atol)
    np.testing.assert_allclose(image.data[1], DOLP, atol=atol)


def test_computed_integers_are_scaled_to_the_bits_that_the_file_states(
    tmp_path: Path,
) -> None:
    """Of 12 bits in 16, a degree of 1 would be one of 0.06."""
    files = {name: tmp_path / f"{name}.tif" for name in ("aolp", "dolp")}
    for name, part in (("aolp", AOLP / np.pi), ("dolp", DOLP)):
        counts = np.rint(part * 4095).astype(np.uint16)
        tifffile.imwrite(files[name], counts, description='{"bits": 12}', metadata=None)
    image = load("polarization-aolp-dolp", files)
    np.testing.assert_allclose(image.data, [AOLP, DOLP], atol=1e-3)


@pytest.mark.parametrize(
    ("aolp", "dolp", "said"),
    [(np.rad2deg(AOLP), DOLP, "angle_unit=rad or deg"), (AOLP, 100 * DOLP, "0 to 1")],
    ids=["degrees as radians", "per cent"],
)
def test_computed_values_in_another_unit_are_refused(
    tmp_path: Path, aolp: np.ndarray, dolp: np.ndarray, said: str
) -> None:
    """Degrees taken for radians wind around many times, and look like noise."""
    with pytest.raises(DataError, match=said):
        load("polarization-aolp-dolp", computed(tmp_path, aolp, dolp))


def test_computed_colour_planes_are_joined_as_light(tmp_path: Path) -> None:
    """The mean of 1 and 179 degrees is 0, not 90; and polarizations across each other cancel."""
    shape = np.ones((3, *SIZE_HW))
    angles, degrees = np.array([1.0, 179.0, 0.0])[:, None, None] * shape, 0.5 * shape
    image = load("polarization-aolp-dolp-deg", computed(tmp_path, angles, degrees))
    apart = (image.data[0] + np.pi / 2) % np.pi - np.pi / 2
    np.testing.assert_allclose(apart, 0, atol=1e-5)
    np.testing.assert_allclose(image.data[1], 0.5, atol=1e-3)
    angles = np.array([0.0, 60.0, 120.0])[:, None, None] * shape
    crossed = load("polarization-aolp-dolp-deg", computed(tmp_path, angles, degrees))
    np.testing.assert_allclose(crossed.data[1], 0, atol=1e-6)
