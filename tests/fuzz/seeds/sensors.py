"""Files that only a sensor's plugin reads: EXR, radiometric JPEG, GeoTIFF, images behind polarizers."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from fuzz.seeds.images import FLOATS, GRAY8, GRAY16, HEIGHT, POSITIVE, RGB, WIDTH

ANGLES = (0, 45, 90, 135)
_BITS = '{"bits": 12}'
_COMPRESSIONS = ("ZIP", "NO", "PIZ", "B44", "PXR24", "RLE", "DWAA")


def make_exr(folder: Path) -> None:
    """One plane of float depth in every compression, and one of half floats."""
    import OpenEXR

    def write(name: str, compression: Any, planes: dict[str, Any]) -> None:
        header = {"compression": compression, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, planes).write(str(folder / f"{name}.exr"))

    for name in _COMPRESSIONS:
        write(name.lower(), getattr(OpenEXR, f"{name}_COMPRESSION"), {"Z": POSITIVE})
    write("half", OpenEXR.ZIP_COMPRESSION, {"Y": POSITIVE.astype(np.float16)})


def make_flir(folder: Path) -> None:
    """Radiometric JPEGs of FLIR (raw numbers as they are and as a PNG) and DJI, a plain one, a TIFF with its unit."""
    picture = io.BytesIO()
    Image.fromarray(GRAY8).save(picture, "JPEG")
    plain, raw = picture.getvalue(), (GRAY16 // 4 + 9000).astype("<u2")
    packed = io.BytesIO()
    Image.fromarray(raw.byteswap()).save(packed, "PNG")  # FLIR swaps the bytes
    for name, pixels in (("flir", raw.tobytes()), ("flir_png", packed.getvalue())):
        segment = _segment(0xE1, b"FLIR\0\x01\0\0" + flir_records(pixels))
        (folder / f"{name}.jpg").write_bytes(plain[:2] + segment + plain[2:])
    (folder / "dji.jpg").write_bytes(
        plain[:2] + _segment(0xE3, raw.tobytes()) + plain[2:]
    )
    (folder / "plain.jpg").write_bytes(plain)
    unit = '{"quantity": "brightness_temperature", "unit": "cK"}'
    tifffile.imwrite(folder / "described.tif", GRAY16, metadata=None, description=unit)


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def flir_records(raw: bytes) -> bytes:
    """Return a FLIR file of raw counts and camera settings, after ExifTool's Image::ExifTool::FLIR."""
    pixels = struct.pack("<HHH", 2, WIDTH, HEIGHT).ljust(32, b"\0") + raw
    camera = bytearray(1000)
    # emissivity, distance, temperatures
    struct.pack_into("<6f", camera, 32, 0.95, 1.0, 293.15, 293.15, 293.15, 1.0)
    struct.pack_into("<f", camera, 60, 0.5)  # humidity
    struct.pack_into("<3f", camera, 88, 14_000.0, 1400.0, 1.0)  # Planck R1, B, F
    struct.pack_into("<5f", camera, 112, 0.006, 0.012, -0.002, -0.006, 1.9)  # air
    struct.pack_into("<if", camera, 776, -3000, 0.015)  # Planck O, R2
    start, count = 64, 2
    first = start + 32 * count
    entries = ((1, first, len(pixels)), (32, first + len(pixels), len(camera)))
    directory = b"".join(
        struct.pack(">HHIIII12x", kind, 2, 100, 1, at, size)
        for kind, at, size in entries
    )
    header = (
        b"FFF\0" + b"test".ljust(16, b"\0") + struct.pack(">III", 100, start, count)
    ).ljust(start, b"\0")
    return header + directory + pixels + bytes(camera)


def make_geotiffs(folder: Path) -> None:
    """GeoTIFFs of 16-bit bands with names and scales, of tiled floats, of RGB with alpha, and of one band."""
    import rasterio
    from rasterio.transform import from_origin

    place = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10)}

    def write(
        name: str, bands: Any, descriptions: tuple[str, ...] = (), **options: Any
    ) -> None:
        profile = {
            "driver": "GTiff",
            "height": HEIGHT,
            "width": WIDTH,
            "count": len(bands),
            "dtype": bands.dtype.name,
        }
        with rasterio.open(
            folder / f"{name}.tif", "w", **profile, **place, **options
        ) as file:
            file.write(bands)
            for number, description in enumerate(descriptions, start=1):
                file.set_band_description(number, description)
            if descriptions:
                file.update_tags(1, WAVELENGTH_UM="0.49")
                file.scales = [1e-4] * len(bands)

    write(
        "bands",
        np.stack([GRAY16] * 4) // 8,
        ("B2", "B3", "B4", "B8"),
        nodata=0,
        compress="deflate",
    )
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    write("float", np.stack([POSITIVE] * 2), nodata=float("nan"), **tiles)
    alpha = np.dstack([RGB, np.full_like(GRAY8, 255)])
    write(
        "rgba",
        np.ascontiguousarray(np.moveaxis(alpha, 2, 0)),
        photometric="rgb",
        alpha="yes",
    )
    write("one", POSITIVE[None])


def make_polarization(folder: Path) -> None:
    """Four images behind polarizers."""
    for angle in ANGLES:
        tifffile.imwrite(
            folder / f"{angle}.tif", GRAY16 // 16, metadata=None, description=_BITS
        )


def make_mosaic(folder: Path) -> None:
    """Images of a sensor with a polarizer over each pixel."""
    even = GRAY16[:, : WIDTH - WIDTH % 2]
    tifffile.imwrite(
        folder / "mosaic.tif", even // 16, metadata=None, description=_BITS
    )
    Image.fromarray(even).save(folder / "mosaic.png")
    np.save(folder / "mosaic.npy", np.abs(FLOATS[:, : even.shape[1]]))
