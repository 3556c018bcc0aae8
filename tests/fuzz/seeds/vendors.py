"""Files as vendors deliver them: microscopes, rasters that are no GeoTIFF, Sentinel products, thermal sequences."""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from fuzz.seeds.images import HEIGHT, WIDTH
from fuzz.seeds.sensors import flir_records

# (T, C, Z, Y, X)
_STACK = np.random.default_rng(0).integers(0, 65535, (2, 2, 2, 9, 11)).astype(np.uint16)
_BANDS = np.random.default_rng(0).integers(1, 9000, (3, 20, 22)).astype(np.uint16)
_NAMES = ("DAPI", "GFP")


def make_ome_tiff(folder: Path) -> None:
    """One image, and a stack with times and slices."""
    stated = {
        "Channel": {"Name": list(_NAMES), "EmissionWavelength": [461, 509]},
        "PhysicalSizeX": 0.2,
        "PhysicalSizeY": 0.2,
    }
    for name, planes, axes in (
        ("one", _STACK[0, :, 0], "CYX"),
        ("stack", _STACK, "TCZYX"),
    ):
        tifffile.imwrite(
            folder / f"{name}.tif",
            planes,
            ome=True,
            photometric="minisblack",
            metadata={"axes": axes, **stated},
        )


def make_czi(folder: Path) -> None:
    """A stack by Zeiss's own library."""
    from pylibCZIrw import czi

    with czi.create_czi(str(folder / "a.czi")) as file:
        for t, c, z in np.ndindex(_STACK.shape[:3]):
            file.write(_STACK[t, c, z][..., None], plane={"T": t, "C": c, "Z": z})
        names = dict(enumerate(_NAMES))
        file.write_metadata("a", channel_names=names, scale_x=2e-7, scale_y=2e-7)


def make_lif(folder: Path) -> None:
    """One image of two channels, after the layout that liffile reads."""
    planes = _STACK[0, :, 0]
    size = planes[0].nbytes
    channels = "".join(
        '<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" Max="9" '
        f'Unit="" LUTName="{name}" IsLUTInverted="0" BytesInc="{number * size}" BitInc="0"/>'
        for number, name in enumerate(_NAMES)
    )
    dimensions = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{count}" Origin="0" Length="1e-6" Unit="m" '
        f'BytesInc="{increment}" BitInc="0"/>'
        for number, count, increment in ((1, 11, 2), (2, 9, 22))
    )
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="a" UniqueID="1"><Data/><Memory Size="0" '
        'MemoryBlockID="M0"/><Children><Element Name="one" UniqueID="2"><Data><Image><ImageDescription><Channels>'
        f"{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{2 * size}" MemoryBlockID="M1"/></Element></Children></Element></LMSDataContainerHeader>'
    )
    text = xml.encode("utf-16-le")
    content = struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(xml)) + text
    for name, memory in (("M0", b""), ("M1", planes.tobytes())):
        head = struct.pack("<IIBQBI", 0x70, 18, 0x2A, len(memory), 0x2A, len(name))
        content += head + name.encode("utf-16-le") + memory
    (folder / "a.lif").write_bytes(content)


def make_ome_zarr(folder: Path) -> None:
    """A stack by bioio's own writer, in both versions of the format."""
    from bioio_ome_zarr.writers import Channel, OMEZarrWriter

    for version in (2, 3):
        unit = "micrometer"
        made = OMEZarrWriter(
            folder / f"v{version}.zarr",
            level_shapes=_STACK.shape,
            dtype=_STACK.dtype,
            zarr_format=version,
            channels=[Channel(label=name, color="FFFFFF") for name in _NAMES],
            axes_names=["t", "c", "z", "y", "x"],
            axes_units=["second", None, unit, unit, unit],
            physical_pixel_size=[1, 1, 0.5, 0.2, 0.2],
        )
        made.write_full_volume(_STACK)


def make_jp2(folder: Path) -> None:
    """A lossless JPEG 2000 with a place on the map."""
    _write(folder / "a.jp2", "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")


def make_envi(folder: Path) -> None:
    """An ENVI file, with what cameras add to its header."""
    _write(folder / "a.img", "ENVI")
    with (folder / "a.hdr").open("a") as file:
        file.write("wavelength units = Nanometers\nwavelength = {490, 560, 842}\n")
        file.write("reflectance scale factor = 10000\ndata ignore value = 65535\n")


def make_netcdf(folder: Path) -> None:
    """A variable for each band, as GDAL copies a GeoTIFF."""
    import rasterio.shutil

    _write(folder / "a.tif", "GTiff")
    rasterio.shutil.copy(folder / "a.tif", folder / "a.nc", driver="netCDF")
    (folder / "a.tif").unlink()


def make_zarr(folder: Path) -> None:
    """A store of version 2 with one array, as xarray writes it."""
    array = folder / "a.zarr" / "refl"
    array.mkdir(parents=True)
    (folder / "a.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    head = {
        "zarr_format": 2,
        "shape": _BANDS.shape,
        "chunks": _BANDS.shape,
        "dtype": "<u2",
        "compressor": None,
        "fill_value": None,
        "order": "C",
        "filters": None,
    }
    (array / ".zarray").write_text(json.dumps(head))
    stated = {"_ARRAY_DIMENSIONS": ["wavelength", "y", "x"], "scale_factor": 1e-4}
    (array / ".zattrs").write_text(json.dumps(stated))
    (array / "0.0.0").write_bytes(_BANDS.tobytes())


_METADATA = """<P><PROCESSING_BASELINE>05.09</PROCESSING_BASELINE>
<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
<BOA_ADD_OFFSET band_id="0">-1000</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="1">-1000</BOA_ADD_OFFSET></P>
"""


def make_safe(folder: Path) -> None:
    """A Sentinel-2 product of two bands of different resolutions."""
    product = folder / "S2A_MSIL2A.SAFE"
    images = product / "GRANULE" / "L2A" / "IMG_DATA"
    (product / "MTD_MSIL2A.xml").parent.mkdir(parents=True)
    (product / "MTD_MSIL2A.xml").write_text(_METADATA)
    for name, metres in (("B02", 10), ("B05", 20)):
        (images / f"R{metres}m").mkdir(parents=True)
        step = metres // 10
        _write(
            images / f"R{metres}m" / f"T32_{name}_{metres}m.jp2",
            "JP2OpenJPEG",
            _BANDS[:1, ::step, ::step],
            QUALITY="100",
            REVERSIBLE="YES",
        )


def make_flir_sequence(folder: Path) -> None:
    """Two frames as they are, and two of JPEG-LS."""
    import imagecodecs

    size = (2, HEIGHT, WIDTH)
    raw = np.linspace(9000, 25000, math.prod(size)).reshape(size).astype("<u2")
    (folder / "a.seq").write_bytes(b"".join(flir_records(one.tobytes()) for one in raw))
    (folder / "a.csq").write_bytes(
        b"".join(flir_records(bytes(imagecodecs.jpegls_encode(one))) for one in raw)
    )


def _write(path: Path, driver: str, planes: Any = _BANDS, **how: str) -> None:
    import rasterio

    count, height, width = planes.shape
    with rasterio.open(
        path,
        "w",
        driver=driver,
        width=width,
        height=height,
        count=count,
        dtype="uint16",
        crs="EPSG:32632",
        transform=rasterio.Affine(10, 0, 500000, 0, -10, 5400000),
        **how,
    ) as file:
        file.write(planes)
    notes = path.with_name(f"{path.name}.aux.xml")
    notes.unlink(missing_ok=True)


def copy_folder(seed: Path, target: Path) -> list[Path]:
    """Copy a folder that is one image, and return its files."""
    shutil.copytree(seed, target)
    return sorted(file for file in target.rglob("*") if file.is_file())
