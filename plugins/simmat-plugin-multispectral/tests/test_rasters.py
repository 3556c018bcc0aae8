"""JP2, ENVI, NetCDF and Zarr: names, wavelengths and scales are those of their metadata; bad files are one error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from scipy.io import netcdf_file
from simmat_plugin_geo.geotiff import BandTags, write_geotiff
from simmat_plugin_multispectral.adapter import Multispectral

from simmat import SensorImage, Window
from simmat.errors import DataError
from simmat.sensors.adapter import load_sample

NUMBERS = np.random.default_rng(0).integers(1, 9000, (3, 40, 50)).astype(np.uint16)
REFLECTANCE = (NUMBERS * 1e-4).astype(np.float32)
TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 5400000)
PLACE = {"crs": "EPSG:32632", "transform": TRANSFORM}
PROFILE = {"width": 50, "height": 40, "count": 3, "dtype": "uint16", **PLACE}
WINDOW = Window(5, 7, 21, 33)
HEADER = """wavelength units = Nanometers
wavelength = {490, 560, 842}
reflectance scale factor = 10000
data ignore value = 65535
"""


def write_envi(folder: Path, lines: str = HEADER) -> Path:
    """Write an ENVI file by GDAL's own writer, and the lines that cameras add to its header."""
    with rasterio.open(folder / "a.img", "w", driver="ENVI", **PROFILE) as file:
        file.write(NUMBERS)
        file.descriptions = ("blue", "green", "nir")
    header = folder / "a.hdr"
    header.write_text(header.read_text() + lines)
    return header


def write_jp2(folder: Path) -> Path:
    """Write a lossless JPEG 2000."""
    how = {"QUALITY": "100", "REVERSIBLE": "YES"}
    path = folder / "a.jp2"
    with rasterio.open(path, "w", driver="JP2OpenJPEG", **how, **PROFILE) as file:
        file.write(NUMBERS)
    return path


def write_netcdf(folder: Path) -> Path:
    """Write one variable for each band, as GDAL copies a GeoTIFF."""
    tiff = folder / "of_netcdf.tif"
    with rasterio.open(tiff, "w", driver="GTiff", **PROFILE) as file:
        file.write(NUMBERS)
        file.scales = (1e-4,) * 3
        file.nodata = 0
        for index, nm in enumerate((490, 560, 842), 1):
            file.update_tags(
                index,
                wavelength=nm,
                wavelength_units="nm",
                standard_name="surface_bidirectional_reflectance",
            )
    rasterio.shutil.copy(tiff, folder / "a.nc", driver="netCDF")
    return folder / "a.nc"


def write_zarr(
    folder: Path, planes: Any = NUMBERS, name: str = "refl", number: str = ""
) -> Path:
    """Write a store of version 2 with coordinates, as xarray does, without a library: chunks are raw."""
    path = folder / "a.zarr"
    path.mkdir(exist_ok=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    arrays = {
        name: (
            planes,
            ["wavelength" + number, "y" + number, "x" + number],
            {"scale_factor": 1e-4, "units": "reflectance"},
        ),
        "wavelength": (
            np.array([490.0, 560.0, 842.0]),
            ["wavelength"],
            {"units": "nm"},
        ),
        "y": (5399995 - 10.0 * np.arange(planes.shape[1]), ["y"], {}),
        "x": (500005 + 10.0 * np.arange(planes.shape[2]), ["x"], {}),
    }
    for key, (values, dimensions, attributes) in arrays.items():
        array = path / key
        array.mkdir()
        head = {
            "zarr_format": 2,
            "shape": values.shape,
            "chunks": values.shape,
            "dtype": values.dtype.str,
            "compressor": None,
            "fill_value": None,
            "order": "C",
            "filters": None,
        }
        (array / ".zarray").write_text(json.dumps(head))
        stated = {"_ARRAY_DIMENSIONS": dimensions, **attributes}
        (array / ".zattrs").write_text(json.dumps(stated))
        chunk = ".".join("0" * values.ndim)
        (array / chunk).write_bytes(values.tobytes())
    return path


WRITERS = {
    "envi": write_envi,
    "jp2": write_jp2,
    "netcdf": write_netcdf,
    "zarr": write_zarr,
}
SCALED = ("envi", "netcdf", "zarr")


def read(path: Path, window: Window | None = None, **options: Any) -> SensorImage:
    """Read it as the command line would."""
    sensor = Multispectral().with_options({"multispectral": options})
    return load_sample(sensor, {"multispectral": path}, window)


@pytest.mark.parametrize("kind", SCALED)
def test_wavelengths_and_scales_are_those_of_the_file(
    tmp_path: Path, kind: str
) -> None:
    """Each format states them in a place of its own."""
    image = read(WRITERS[kind](tmp_path))
    assert [one.wavelength_um for one in image.channels] == [0.49, 0.56, 0.842]
    assert {(one.quantity, one.unit) for one in image.channels} == {
        ("reflectance", "1")
    }
    np.testing.assert_allclose(image.data, REFLECTANCE, rtol=1e-6)


def test_the_names_of_the_bands_are_those_of_the_file(tmp_path: Path) -> None:
    """GDAL appends the wavelength to the names of ENVI."""
    names = {
        "envi": ["blue", "green", "nir"],
        "netcdf": ["band1", "band2", "band3"],
        "zarr": ["refl-490", "refl-560", "refl-842"],
        "jp2": ["band0", "band1", "band2"],
    }
    for kind, expected in names.items():
        image = read(WRITERS[kind](tmp_path))
        assert [one.name for one in image.channels] == expected


@pytest.mark.parametrize("kind", ["envi", "jp2", "netcdf"])
def test_the_georeference_is_kept(tmp_path: Path, kind: str) -> None:
    """Also that of a window."""
    path = WRITERS[kind](tmp_path)
    whole = read(path).georeference
    assert whole is not None
    assert (whole.crs, whole.transform) == ("EPSG:32632", tuple(TRANSFORM)[:6])
    assert read(path, WINDOW).georeference == whole.shifted(WINDOW.y0, WINDOW.x0)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_window_is_the_same_part_of_the_whole(tmp_path: Path, kind: str) -> None:
    """Large images are read in parts, of which only the picked bands are valid."""
    path = WRITERS[kind](tmp_path)
    assert Multispectral().window_size({"multispectral": path}) == (40, 50)
    whole = read(path).cut(WINDOW)
    part = read(path, WINDOW)
    np.testing.assert_array_equal(part.data, whole.data)
    np.testing.assert_array_equal(part.valid, whole.valid)
    picked = Multispectral().with_channels([2])
    part = load_sample(picked, {"multispectral": path}, WINDOW)
    assert part.valid.any(axis=(1, 2)).tolist() == [False, False, True]
    np.testing.assert_array_equal(part.data[2], whole.data[2])


def test_numbers_of_16_bits_stay_as_they_are(tmp_path: Path) -> None:
    """A JPEG 2000 without a scale is counts."""
    image = read(write_jp2(tmp_path))
    assert image.channels[0].unit == "count"
    np.testing.assert_array_equal(image.data, NUMBERS)


def test_a_missing_value_of_a_header_is_invalid(tmp_path: Path) -> None:
    """ENVI's data ignore value."""
    lines = HEADER.replace("65535", str(NUMBERS[0, 3, 4]))
    image = read(write_envi(tmp_path, lines))
    np.testing.assert_array_equal(image.valid, NUMBERS != NUMBERS[0, 3, 4])


def test_two_scales_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """Which one is right is not known."""
    gains = "data gain values = {0.001, 0.001, 0.001}\n"
    with pytest.raises(DataError, match=r"gain of 0\.001.*scale factor 10000"):
        read(write_envi(tmp_path, HEADER + gains))


def test_variables_of_several_grids_are_chosen_by_the_option(tmp_path: Path) -> None:
    """A product may hold bands of two resolutions."""
    path = write_zarr(tmp_path)
    (tmp_path / "other").mkdir()
    coarse = write_zarr(tmp_path / "other", NUMBERS[:, ::2, ::2], "coarse", "2")
    shutil.copytree(coarse / "coarse", path / "coarse")
    with pytest.raises(DataError, match=r"several grids: .*variables="):
        read(path)
    assert read(path, variables="coarse").size_hw == (20, 25)
    with pytest.raises(DataError, match=r"no variable 'coarst'.*coarse"):
        read(path, variables="coarst")


def test_a_file_without_variables_refuses_the_option(tmp_path: Path) -> None:
    """It would have no effect."""
    with pytest.raises(DataError, match="has no variables"):
        read(write_jp2(tmp_path), variables="a")


def test_a_zarr_of_version_3_is_refused(tmp_path: Path) -> None:
    """GDAL 3.10 knows an early draft of it."""
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(DataError, match="zarr_format=2"):
        read(tmp_path / "a.zarr")


def test_an_envi_header_needs_its_data(tmp_path: Path) -> None:
    """One file of its name, as large as the header says, and none beside it that would change its values."""
    header = write_envi(tmp_path)
    content = (tmp_path / "a.img").read_bytes()
    (tmp_path / "a.img").write_bytes(content[:-1])
    with pytest.raises(DataError, match="cut short"):
        read(header)
    (tmp_path / "a.img").write_bytes(content)
    (tmp_path / "a.dat").write_bytes(content)
    with pytest.raises(DataError, match=r"found a\.img, a\.dat"):
        read(header)
    (tmp_path / "a.dat").unlink()
    (tmp_path / "a.img.msk").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.img\.msk beside it"):
        read(header)
    (tmp_path / "a.img.msk").unlink()
    (tmp_path / "a.img").unlink()
    with pytest.raises(DataError, match="found none"):
        read(header)
    header.write_text("BYTEORDER I")
    with pytest.raises(DataError, match="not an ENVI header"):
        read(header)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.98])
def test_a_classic_netcdf_cut_short_is_refused(tmp_path: Path, part: float) -> None:
    """Its library reads zeros behind the end."""
    path = tmp_path / "a.nc"
    with netcdf_file(path, "w") as file:
        file.createDimension("y", 40)
        file.createDimension("x", 50)
        for name, plane in zip(("red", "nir"), NUMBERS, strict=False):
            file.createVariable(name, "i2", ("y", "x"))[:] = plane.astype(np.int16)
    assert [one.name for one in read(path).channels] == ["red", "nir"]
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DataError, match="cut short"):
        read(path)


def test_a_scale_that_gives_no_values_is_refused(tmp_path: Path) -> None:
    """Zeros of a damaged header would look like a dark scene."""
    with pytest.raises(DataError, match="scale factor 0"):
        read(write_envi(tmp_path, HEADER.replace("factor = 10000", "factor = 0")))
    path = tmp_path / "a.tif"
    for scale in (0.0, float("nan")):
        tags = [BandTags("red", "", scale)]
        write_geotiff(path, NUMBERS[:1].astype(np.int16), bands=tags)
        with pytest.raises(DataError, match="give no values"):
            read(path)


def test_the_only_variable_of_a_zarr_is_named_by_itself(tmp_path: Path) -> None:
    """Not by the path of its store, which differs from image to image."""
    path = write_zarr(tmp_path)
    for name in ("wavelength", "y", "x"):
        shutil.rmtree(path / name)
    assert [one.name for one in read(path).channels] == ["refl-0", "refl-1", "refl-2"]
    assert read(path, variables="refl").data.shape == read(path).data.shape
