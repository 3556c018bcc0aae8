"""Bands of a GeoTIFF: their names, wavelengths, scale and gaps as the file says, and their place on the earth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from simmat_plugin_geo.geotiff import BandTags, write_geotiff
from simmat_plugin_guess.guess import GroupGuess, guess_folder
from simmat_plugin_multispectral.adapter import (
    Landsat8,
    Multispectral,
    MultispectralOptions,
    Sentinel2,
    Sentinel2Options,
)

from simmat.errors import DataError
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.builtin import MODALITIES
from simmat.sensors.channel_selection import pick_channels
from simmat.types import Channel, Georeference, SensorImage

ADAPTERS: dict[str, ModalityAdapter] = {
    "multispectral": Multispectral(),
    "multispectral-10000": Multispectral(MultispectralOptions(scale=1e-4)),
    "sentinel2": Sentinel2(),
    "sentinel2-offset": Sentinel2(Sentinel2Options(boa_offset=True)),
    "landsat8": Landsat8(),
}
PLACE = Georeference("EPSG:32632", (10.0, 0.0, 500000.0, 0.0, -10.0, 4500000.0))
DN = np.array(
    [[[1000, 2000], [3000, 0]], [[4000, 5000], [6000, 7000]]], dtype=np.uint16
)


def write(path: Path, planes: np.ndarray = DN, **said: Any) -> Path:
    write_geotiff(path, planes, **said)
    return path


def load(path: Path, modality: str = "multispectral") -> SensorImage:
    return ADAPTERS[modality].load({"multispectral": path})


def test_bands_without_a_word_are_counts_by_number(tmp_path: Path) -> None:
    """Nothing is guessed: 4000 may be a reflectance of 0.4 or a count."""
    image = load(write(tmp_path / "a.tif"))
    assert image.channels == (
        Channel("band0", "counts", "count"),
        Channel("band1", "counts", "count"),
    )
    np.testing.assert_array_equal(image.data, DN)
    assert image.valid.all()
    assert image.georeference is None


def test_the_file_names_and_scales_its_bands(tmp_path: Path) -> None:
    """Scale, offset and unit are tags of GeoTIFF; who writes them need say nothing else."""
    bands = [
        BandTags("Red 665 nm", "reflectance", 1e-4, -0.1),
        BandTags(
            "Surface Temperature", "K", 0.01, 100.0, {"CENTRAL_WAVELENGTH_UM": "10.9"}
        ),
    ]
    image = load(write(tmp_path / "a.tif", bands=bands))
    assert image.channels == (
        Channel("red-665-nm", "reflectance", "1", wavelength_um=0.665),
        Channel("surface-temperature", "measured", "K", wavelength_um=10.9),
    )
    np.testing.assert_allclose(image.data[0], DN[0] * 1e-4 - 0.1, rtol=1e-6)
    np.testing.assert_allclose(image.data[1], DN[1] * 0.01 + 100, rtol=1e-6)


@pytest.mark.parametrize(
    "tags",
    [
        {"wavelength": "842.0", "wavelength_units": "Nanometers"},
        {"wavelength": "0.842", "wavelength_units": "Micrometers"},
        {"WAVELENGTH_NM": "842"},
        {"CENTRAL_WAVELENGTH_UM": "0.842"},
    ],
)
def test_a_band_can_be_picked_by_the_wavelength_of_its_metadata(
    tmp_path: Path, tags: dict[str, str]
) -> None:
    """ENVI and GDAL write it in different words."""
    image = load(
        write(tmp_path / "a.tif", bands=[BandTags("a"), BandTags("b", tags=tags)])
    )
    assert pick_channels(image.channels, ["840nm"]) == [1]


def test_two_bands_of_one_name_are_refused(tmp_path: Path) -> None:
    """--channels could not tell them apart."""
    with pytest.raises(DataError, match=r"\['red'\]"):
        load(write(tmp_path / "a.tif", bands=[BandTags("red"), BandTags("Red")]))


def test_an_alpha_band_marks_gaps_and_is_not_a_channel(tmp_path: Path) -> None:
    """Mosaics mark their border so; as a channel it would give the border away."""
    roles = [
        rasterio.enums.ColorInterp[name] for name in ("red", "green", "blue", "alpha")
    ]
    place = {"crs": PLACE.crs, "transform": rasterio.Affine(*PLACE.transform)}
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        dtype="uint8",
        count=4,
        height=2,
        width=2,
        **place,
    ) as file:
        file.colorinterp = roles
        file.write(np.full((3, 2, 2), 9, dtype=np.uint8), [1, 2, 3])
        file.write(np.array([[255, 255], [255, 0]], dtype=np.uint8), 4)
    image = load(tmp_path / "a.tif")
    assert len(image.channels) == 3
    assert image.valid[0].tolist() == [[True, True], [True, False]]


def rgba(path: Path, fourth: np.ndarray, description: str = "", **tags: str) -> Path:
    """Write four bands of 8 bits as rasterio does unless told otherwise: the fourth becomes alpha."""
    planes = (
        np.random.default_rng(1).integers(0, 256, (4, *fourth.shape)).astype(np.uint8)
    )
    planes[3] = fourth
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=4,
        height=fourth.shape[0],
        width=fourth.shape[1],
    ) as file:
        file.write(planes)
        file.set_band_description(4, description)
        file.update_tags(4, **tags)
        assert file.colorinterp[3] is rasterio.enums.ColorInterp.alpha
    return path


NIR = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
FULL = np.full_like(NIR, 255)
CURE = r"rio edit-info --colorinterp red,green,blue,undefined FILE.*photometric='minisblack'"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("fourth", "description", "tags", "why"),
    [
        (FULL, "nir", {}, "described as 'nir'"),
        (FULL, "nir_masked", {}, "described as 'nir_masked'"),
        (
            FULL,
            "",
            {"CENTRAL_WAVELENGTH_UM": "0.842"},
            "metadata central_wavelength_um 0.842",
        ),
        (NIR, "", {}, "other than 0 and full scale at 9[0-9]% of the pixels"),
        (NIR, "Band 4", {}, "other than 0 and full scale"),
    ],
    ids=["described", "masked", "wavelength", "numbers", "counted"],
)
def test_a_measured_band_is_not_taken_for_alpha(
    tmp_path: Path, fourth: np.ndarray, description: str, tags: dict[str, str], why: str
) -> None:
    """The near-infrared of 8-bit RGB+NIR would be no channel, and its dark pixels holes in the others."""
    path = rgba(tmp_path / "a.tif", fourth, description, **tags)
    with pytest.raises(DataError, match=rf"a\.tif: band 4 is alpha .*{why}.*{CURE}"):
        load(path)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (*file.colorinterp[:3], rasterio.enums.ColorInterp.undefined)
    image = load(path)
    np.testing.assert_array_equal(image.data[3], fourth)
    assert image.valid.all()


@pytest.mark.parametrize(
    "tags",
    [
        BandTags("ndvi", scale=0.1),
        BandTags("emissivity", "1"),
        BandTags("t", "K", 0.01),
        BandTags("red", "reflectance"),
    ],
    ids=lambda tags: tags.description,
)
def test_what_was_saved_is_the_same_quantity_when_read(
    tmp_path: Path, tags: BandTags
) -> None:
    """An index is no reflectance, and a bundle trained on one must know it again."""
    image = load(
        write(tmp_path / "a.tif", bands=[tags, BandTags("b", tags.unit, tags.scale)])
    )
    ADAPTERS["multispectral"].save(image, {"multispectral": tmp_path / "b.tif"})
    assert load(tmp_path / "b.tif").channels == image.channels
    assert (image.channels[0].quantity == "reflectance") == (tags.unit == "reflectance")


def test_the_user_can_state_that_files_hold_reflectance_times_10000(
    tmp_path: Path,
) -> None:
    """Most satellite tiles do, and few say so."""
    image = load(write(tmp_path / "a.tif"), "multispectral-10000")
    assert {(channel.quantity, channel.unit) for channel in image.channels} == {
        ("reflectance", "1")
    }
    np.testing.assert_allclose(image.data, DN / 1e4, rtol=1e-6)


@pytest.mark.parametrize("outlier", [-9999.0, 3.5])
@pytest.mark.parametrize("share", [0.0, 0.0003, 0.4], ids=["none", "few", "many"])
def test_an_outlier_does_not_make_reflectance_a_multiple_of_it(
    tmp_path: Path, outlier: float, share: float
) -> None:
    """A fill value that the file does not state, or a glint, is in nearly every tile."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 0.6, (3, 64, 64)).astype(np.float32)
    values[:, rng.random((64, 64)) < share] = outlier
    values[:, 0, 0] = outlier
    with pytest.raises(DataError, match=r"-2 to 2, got .*reflectance"):
        load(write(tmp_path / "a.tif", values), "multispectral-10000")


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_dark_scene_is_not_reflectance_already(tmp_path: Path, dtype: type) -> None:
    """Of water at 2.2 um little comes back, beyond the bands that see it."""
    rng = np.random.default_rng(0)
    values = np.stack(
        [rng.normal(mean, spread, (64, 64)) for mean, spread in ((40, 10), (0, 0.9))]
    )
    image = load(
        write(tmp_path / "a.tif", np.rint(values).astype(dtype)), "multispectral-10000"
    )
    assert image.data[0].mean() == pytest.approx(0.004, rel=0.05)
    deep = np.where(rng.random((1, 8, 8)) < 0.3, 2, 1).astype(np.int16)
    assert load(write(tmp_path / "b.tif", deep), "multispectral-10000").valid.all()


def test_a_file_that_states_another_scale_than_the_user_is_refused(
    tmp_path: Path,
) -> None:
    """One of the two is wrong, and only the user can tell which."""
    path = write(
        tmp_path / "a.tif", bands=[BandTags("a", scale=2e-5), BandTags("b", scale=2e-5)]
    )
    with pytest.raises(
        DataError,
        match=r"states scale 2e-05 and offset 0, but modality 'multispectral' .* means 0.0001",
    ):
        load(path, "multispectral-10000")


@pytest.mark.parametrize(
    ("modality", "names", "expected"),
    [
        ("sentinel2", ("B04", "B8A"), DN / 1e4),
        ("sentinel2-offset", ("b4", "B8a"), DN / 1e4 - 0.1),
        ("landsat8", ("SR_B4", "SR_B6"), DN * 2.75e-5 - 0.2),
    ],
)
def test_a_satellite_knows_its_bands_scale_and_gaps(
    tmp_path: Path, modality: str, names: tuple[str, str], expected: np.ndarray
) -> None:
    """`--channels red` must mean the same band whatever the satellite calls it."""
    image = load(
        write(tmp_path / "a.tif", bands=[BandTags(name) for name in names]), modality
    )
    assert image.channels[0].name == "red"
    assert image.channels[1].name == ("swir1" if modality == "landsat8" else "nir08")
    np.testing.assert_array_equal(image.valid, DN != 0)
    np.testing.assert_allclose(image.data[image.valid], expected[DN != 0], rtol=1e-5)


def test_bands_without_descriptions_are_named_where_only_one_order_is_in_use(
    tmp_path: Path,
) -> None:
    """B8A of Sentinel-2 stands after B8, or last; a subset of unknown order is not guessed."""
    image = load(
        write(tmp_path / "a.tif", np.full((7, 2, 2), 9000, np.uint16)), "landsat8"
    )
    assert [channel.name for channel in image.channels][4:] == ["nir", "swir1", "swir2"]
    with pytest.raises(DataError, match=r"4 bands .*7"):
        load(write(tmp_path / "b.tif", np.full((4, 2, 2), 9000, np.uint16)), "landsat8")
    for count in (12, 13):
        with pytest.raises(DataError, match=r"Sentinel-2 .*order"):
            load(
                write(tmp_path / "c.tif", np.full((count, 2, 2), 900, np.uint16)),
                "sentinel2",
            )


@pytest.mark.parametrize(
    ("description", "um"),
    [
        ("Band 4 Red (0.636-0.673 um)", 0.6545),
        ("red edge 705 to 745 nm", 0.725),
        ("lwir 8.0 – 14.0 µm", 11.0),
        ("Band 636-673 nm", 0.6545),
        ("pan 450 - 900 nm", 0.675),
        ("B4 - 665 nm", 0.665),
        ("B11 - 1610 nm", 1.610),
        ("Band 4 - 665 nm", 0.665),
        ("4 - 665 nm", 0.665),
        ("Band 10 – 10.9 um", 10.9),
        ("Band 300 - 665 nm", 0.665),
        ("SR_B10-10.9 um", 10.9),
        ("line 842", None),
    ],
)
def test_a_description_states_a_wavelength_with_its_unit(
    tmp_path: Path, description: str, um: float | None
) -> None:
    """A range counts by its middle; the number of a band, or one without a unit, is no wavelength."""
    bands = [BandTags(description), BandTags("b", tags={"wavelength": "842"})]
    image = load(write(tmp_path / "a.tif", bands=bands))
    assert image.channels[0].wavelength_um == pytest.approx(um)
    assert image.channels[1].wavelength_um is None


def test_names_as_gdals_own_driver_writes_them_are_taken(tmp_path: Path) -> None:
    """And one band under two names is named as what it is."""
    said = [
        BandTags("B4, central wavelength 665 nm"),
        BandTags("B8A, central wavelength 865 nm"),
    ]
    image = load(write(tmp_path / "a.tif", bands=said), "sentinel2")
    assert [channel.name for channel in image.channels] == ["red", "nir08"]
    with pytest.raises(DataError, match="Sentinel-2 has b1, b2"):
        load(
            write(tmp_path / "b.tif", bands=[BandTags("B4"), BandTags("red")]),
            "sentinel2",
        )


@pytest.mark.parametrize("form", ["Band {}", "band_{}", "{}", "Band 0{}"])
def test_descriptions_that_merely_count_say_nothing(tmp_path: Path, form: str) -> None:
    """GIS programs number the bands of any stack; of B2, B3, B4 and B8 the first is no B1."""
    said = [BandTags(form.format(number)) for number in range(1, 8)]
    with pytest.raises(DataError, match=r"4 bands .*Sentinel-2"):
        load(
            write(
                tmp_path / "a.tif", np.full((4, 2, 2), 900, np.uint16), bands=said[:4]
            ),
            "sentinel2",
        )
    image = load(
        write(tmp_path / "b.tif", np.full((7, 2, 2), 9000, np.uint16), bands=said),
        "landsat8",
    )
    assert [channel.name for channel in image.channels][3:5] == ["red", "nir"]
    image = load(
        write(tmp_path / "c.tif", bands=[BandTags("Band 4"), BandTags("Band 8")]),
        "sentinel2",
    )
    assert [channel.name for channel in image.channels] == ["red", "nir"]


@pytest.mark.parametrize("form", ["B{}", "B0{}", "SR_B{}"])
def test_names_of_the_satellite_are_names_even_where_they_count(
    tmp_path: Path, form: str
) -> None:
    """A file may hold the first bands only."""
    said = [BandTags(form.format(number)) for number in (1, 2)]
    image = load(write(tmp_path / "a.tif", bands=said), "sentinel2")
    assert [channel.name for channel in image.channels] == ["coastal", "blue"]


@pytest.mark.parametrize("other", ["SCL", "", "B04"])
def test_a_band_the_satellite_does_not_have_is_refused(
    tmp_path: Path, other: str
) -> None:
    """A quality flag is no reflectance, and one band twice is a mistake."""
    with pytest.raises(DataError, match="Sentinel-2 has b1, b2"):
        load(
            write(tmp_path / "a.tif", bands=[BandTags("B4"), BandTags(other)]),
            "sentinel2",
        )


def test_nodata_and_alpha_both_count(tmp_path: Path) -> None:
    """GDAL's own mask is made of one of them alone."""
    planes = np.full((4, 2, 2), 500, np.uint16)
    planes[0, 0, 0] = 0
    planes[3] = [[255, 255], [255, 0]]
    profile = {
        "driver": "GTiff",
        "height": 2,
        "width": 2,
        "count": 4,
        "dtype": "uint16",
        "nodata": 0,
    }
    with rasterio.open(
        tmp_path / "a.tif", "w", photometric="rgb", alpha="yes", **profile
    ) as file:
        file.write(planes)
    image = load(tmp_path / "a.tif")
    assert image.valid.tolist() == [[[False, True], [True, False]]] + 2 * [
        [[True, True], [True, False]]
    ]


def test_a_mask_beside_an_image_is_refused(tmp_path: Path) -> None:
    """It is no part of the fingerprint, and GDAL would open a VRT, and by it any file or address."""
    path = write(tmp_path / "a.tif")
    Path(f"{path}.msk").write_text("<VRTDataset/>")
    with pytest.raises(DataError, match=r"a\.tif\.msk beside it holds a mask"):
        load(path)


def test_other_files_beside_an_image_are_not_opened(tmp_path: Path) -> None:
    """Viewers leave statistics there; a pipe of such a name would wait for ever."""
    path = write(tmp_path / "a.tif")
    notes = "<PAMRasterBand band='1'><Description>outside</Description></PAMRasterBand>"
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{notes}</PAMDataset>")
    assert load(path).channels[0].name == "band0"


def test_an_overview_in_another_file_is_refused(tmp_path: Path) -> None:
    """GDAL opens whatever file or address is named, as soon as a smaller copy of the image is asked for."""
    item = '<Item name="OVERVIEW_FILE" domain="OVERVIEWS">/vsicurl/http://localhost/o.vrt</Item>'
    metadata = f"<GDALMetadata>{item}</GDALMetadata>"
    tifffile.imwrite(
        tmp_path / "a.tif", DN[0], extratags=[(42112, "s", 0, metadata, True)]
    )
    with pytest.raises(DataError, match=r"a\.tif: names another file, '/vsicurl"):
        load(tmp_path / "a.tif")


def group_of(folder: Path, bands: Sequence[BandTags]) -> GroupGuess:
    shape = (len(bands), 24, 32)
    planes = np.random.default_rng(0).integers(100, 4000, shape).astype(np.uint16)
    write_geotiff(folder / "a.tif", planes, bands=list(bands))
    sensors = [*MODALITIES, Multispectral(), Sentinel2(), Landsat8()]
    (found,) = guess_folder(folder, sensors).groups
    assert found.best is not None
    return found


def test_described_bands_are_evidence_and_their_scale_is_asked_for(
    tmp_path: Path,
) -> None:
    """Names say which band it is, not what its numbers are."""
    found = group_of(tmp_path, [BandTags("red 665 nm"), BandTags("nir 842 nm")])
    assert found.best is not None
    assert found.best.modality == "multispectral"
    evidence = " ".join(found.best.recognition.evidence)
    assert "red 665 nm" in evidence
    assert "0.842" in evidence
    assert [one.unit for one in found.best.channels] == ["count", "count"]
    assert any("scale=" in text for text in found.questions)


def test_units_of_bands_are_stated(tmp_path: Path) -> None:
    """A file that says it is reflectance needs no question."""
    bands = [BandTags(name, "reflectance", 1e-4) for name in ("red", "nir")]
    found = group_of(tmp_path, bands)
    assert found.best is not None
    assert found.best.recognition.certainty == "stated"
    assert "reflectance" in found.best.unit_evidence


def test_the_bands_of_sentinel_2_are_recognized(tmp_path: Path) -> None:
    """Its offset depends on the date of processing, which the file does not say."""
    found = group_of(tmp_path, [BandTags(name) for name in ("B2", "B8A", "B11", "B12")])
    assert found.best is not None
    assert found.best.modality == "sentinel2"
    assert any("boa_offset" in text for text in found.questions)


def test_band_names_that_other_satellites_share_are_no_evidence(
    tmp_path: Path,
) -> None:
    """B2 to B4 of Landsat have another scale."""
    found = group_of(tmp_path, [BandTags(name) for name in ("B2", "B3", "B4")])
    assert found.best is not None
    assert found.best.modality == "multispectral"
    assert {one.unit for one in found.best.channels} == {"count"}


def test_a_stack_without_descriptions_gets_a_draft(tmp_path: Path) -> None:
    """Nothing in it says what the bands are."""
    found = group_of(tmp_path, [BandTags()] * 4)
    assert found.best is not None
    assert found.best.recognition.certainty == "possible"
    assert found.draft.count("[[channel]]") == 4


@pytest.mark.parametrize("name", ["a.jp2", "a.SAFE", "a.zarr"])
def test_files_that_guess_cannot_look_at_name_the_sensor_that_reads_them(
    tmp_path: Path, name: str
) -> None:
    """A folder full of images must not be called empty."""
    if name == "a.jp2":
        (tmp_path / name).write_bytes(b"")
    else:
        (tmp_path / name).mkdir()
    sensors = [*MODALITIES, Multispectral(), Sentinel2()]
    modality = "sentinel2" if name == "a.SAFE" else "multispectral"
    with pytest.raises(DataError, match=rf"{name}.*--modality {modality}"):
        guess_folder(tmp_path, sensors)
