"""Sentinel-2 products as ESA delivers them: the offset of 2022, bands of three resolutions, folders that lack files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from simmat_plugin_geo.georeference import note_once
from simmat_plugin_multispectral.adapter import Sentinel2

from simmat import SensorImage, Window
from simmat.errors import DataError
from simmat.sensors.adapter import load_sample

SIDE = 60
NAME = "S2B_MSIL2A_20230101T100000_N0509_R022_T32UPU_20230101T120000.SAFE"
FILES = {"B02": 10, "B04": 10, "B05": 20, "B01": 60}
_METADATA = """<?xml version="1.0"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<n1:General_Info><Product_Info><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>
<Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST>
<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>
{offsets}</Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>
"""


def planes() -> dict[str, Any]:
    """Return band -> (H, W) as stored."""
    rng = np.random.default_rng(0)
    made = {}
    for name, metres in FILES.items():
        side = SIDE * 10 // metres
        made[name] = rng.integers(1001, 9000, (side, side)).astype(np.uint16)
    made["B02"][0, 0] = 0
    return made


def write_safe(
    folder: Path, *, baseline: str = "05.09", offset: int | None = -1000
) -> Path:
    """Write a product of surface reflectance by GDAL's own writer of JPEG 2000."""
    path = folder / NAME
    images = path / "GRANULE" / "L2A_T32UPU_A030000_20230101T100000" / "IMG_DATA"
    for name, values in planes().items():
        metres = FILES[name]
        inside = images / f"R{metres}m"
        inside.mkdir(parents=True, exist_ok=True)
        side = len(values)
        with rasterio.open(
            inside / f"T32UPU_20230101T100000_{name}_{metres}m.jp2",
            "w",
            driver="JP2OpenJPEG",
            width=side,
            height=side,
            count=1,
            dtype="uint16",
            crs="EPSG:32632",
            transform=rasterio.Affine(metres, 0, 600000, 0, -metres, 5400000),
            QUALITY="100",
            REVERSIBLE="YES",
        ) as file:
            file.write(values, 1)
    offsets = ""
    if offset is not None:
        rows = [
            f'<BOA_ADD_OFFSET band_id="{band}">{offset}</BOA_ADD_OFFSET>'
            for band in range(13)
        ]
        offsets = (
            f"<BOA_ADD_OFFSET_VALUES_LIST>{''.join(rows)}</BOA_ADD_OFFSET_VALUES_LIST>"
        )
    text = _METADATA.format(baseline=baseline, offsets=offsets)
    (path / "MTD_MSIL2A.xml").write_text(text)
    return path


def read(path: Path, window: Window | None = None, **options: Any) -> SensorImage:
    """Read it as the command line would."""
    sensor = Sentinel2().with_options({"sentinel2": options})
    return load_sample(sensor, {"multispectral": path}, window)


def _expected(values: Mapping[str, Any], offset: int) -> Any:
    """Return (4, H, W) reflectance of coastal, blue, red and rededge1."""
    repeated = []
    for name in ("B01", "B02", "B04", "B05"):
        step = FILES[name] // 10
        repeated.append(values[name].repeat(step, 0).repeat(step, 1))
    return (np.stack(repeated) + float(offset)) * 1e-4


@pytest.mark.parametrize(
    ("baseline", "offset"), [("05.09", -1000), ("02.14", None), ("03.01", 0)]
)
def test_the_offset_of_the_product_is_applied_and_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    baseline: str,
    offset: int | None,
) -> None:
    """From processing baseline 04.00 on, 1000 is added to what is stored."""
    note_once.cache_clear()
    path = write_safe(tmp_path, baseline=baseline, offset=offset)
    image = read(path)
    assert [one.name for one in image.channels] == [
        "coastal",
        "blue",
        "red",
        "rededge1",
    ]
    assert not image.valid[1, 0, 0]
    expected = _expected(planes(), offset or 0)
    np.testing.assert_allclose(
        image.data[image.valid], expected[image.valid], rtol=1e-5
    )
    assert image.valid.sum() == image.valid.size - 1
    said = capsys.readouterr().err
    assert ("(stored -1000) x 0.0001" in said) == bool(offset)
    assert image.georeference is not None
    assert image.georeference.transform == (10, 0, 600000, 0, -10, 5400000)


def test_a_window_is_the_same_part_of_the_whole(tmp_path: Path) -> None:
    """Its edges cut the pixels of coarser bands."""
    path = write_safe(tmp_path)
    window = Window(7, 3, 32, 59)
    assert Sentinel2().window_size({"multispectral": path}) == (SIDE, SIDE)
    whole, part = read(path).cut(window), read(path, window)
    np.testing.assert_array_equal(part.data, whole.data)
    np.testing.assert_array_equal(part.valid, whole.valid)
    assert part.georeference == whole.georeference
    picked = Sentinel2().with_channels(["red"])
    part = load_sample(picked, {"multispectral": path}, window)
    assert part.valid.any(axis=(1, 2)).tolist() == [False, False, True, False]
    np.testing.assert_array_equal(part.data[2], whole.data[2])


def test_another_resolution_leaves_finer_bands_out(tmp_path: Path) -> None:
    """Averaging them would be another measurement."""
    image = read(write_safe(tmp_path), resolution=20)
    assert image.size_hw == (SIDE // 2, SIDE // 2)
    assert [one.name for one in image.channels] == ["coastal", "rededge1"]


@pytest.mark.parametrize("says", [True, False])
def test_an_option_that_contradicts_the_product_is_refused(
    tmp_path: Path, says: bool
) -> None:
    """The card of older data may still hold it."""
    path = write_safe(
        tmp_path, baseline="02.14" if says else "05.09", offset=None if says else -1000
    )
    with pytest.raises(DataError, match="leave the option out"):
        read(path, boa_offset=says)
    assert read(path, boa_offset=not says).valid.any()


def _without_bands(path: Path) -> None:
    shutil.rmtree(path / "GRANULE")


def _without_metadata(path: Path) -> None:
    (path / "MTD_MSIL2A.xml").unlink()


def _with_cut_metadata(path: Path) -> None:
    file = path / "MTD_MSIL2A.xml"
    file.write_text(file.read_text()[:300])


def _with_two_tiles(path: Path) -> None:
    (tile,) = (path / "GRANULE").iterdir()
    shutil.copytree(tile, tile.with_name("L2A_T32UPV"))


def _with_cut_band(path: Path) -> None:
    file = next(path.rglob("*_B02_10m.jp2"))
    file.write_bytes(file.read_bytes()[:200])


def _with_another_grid(path: Path) -> None:
    coarse = next(path.rglob("*_B01_60m.jp2"))
    shutil.copy(next(path.rglob("*_B05_20m.jp2")), coarse)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_bands, "no band of 10 m.*none at all"),
        (_without_metadata, "needs its metadata"),
        (_with_cut_metadata, "damaged or cut short"),
        (_with_two_tiles, "holds 2 tiles"),
        (_with_cut_band, "B02_10m.jp2"),
        (_with_another_grid, "does not fit the grid"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_error(
    tmp_path: Path, damage: Any, message: str
) -> None:
    """A download that was interrupted."""
    path = write_safe(tmp_path)
    damage(path)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_new_baseline_without_an_offset_is_refused(tmp_path: Path) -> None:
    """Reflectance would be 0.1 too large in silence."""
    with pytest.raises(DataError, match=r"baseline 05\.09, but no BOA_ADD_OFFSET"):
        read(write_safe(tmp_path, offset=None))


def test_a_product_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    """Such as its zip."""
    (tmp_path / "a.SAFE").write_bytes(b"PK")
    with pytest.raises(DataError, match="unzip it first"):
        read(tmp_path / "a.SAFE")
