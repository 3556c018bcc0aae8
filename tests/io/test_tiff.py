"""Parts of image files: what is read of a window is what the whole image holds there, whatever the file's layout."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from simmat.errors import DataError
from simmat.io.frames import open_stack
from simmat.io.images import image_size, read_image, window_size, write_image
from simmat.types import Window

HEIGHT, WIDTH = 70, 101
WINDOWS = [
    Window(0, 0, 1, 1),
    Window(0, 0, HEIGHT, WIDTH),
    Window(15, 31, 49, 66),
    Window(16, 32, 48, 64),
    Window(69, 100, 70, 101),
    Window(40, 0, 70, 101),
]
NUMBERS = np.random.default_rng(0).integers(0, 4000, (3, HEIGHT, WIDTH))
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip, mapped": {},
    "strips, mapped": {"rowsperstrip": 8},
    "strips": {"rowsperstrip": 8, "compression": "zlib"},
    "strips, predictor": {"rowsperstrip": 5, "compression": "zlib", "predictor": True},
    "lzw": {"rowsperstrip": 5, "compression": "lzw"},
    "zstd tiles": {"tile": (16, 32), "compression": "zstd", "predictor": True},
    "tiles": {"tile": (32, 16)},
    "bigtiff": {"tile": (16, 16), "compression": "zlib", "bigtiff": True},
    "big-endian": {"tile": (16, 16), "compression": "zlib", "byteorder": ">"},
    "big-endian, mapped": {"byteorder": ">"},
}


def _assert_windows_are_cuts(path: Path, nodata: float | None = None) -> None:
    whole = read_image(path, nodata)
    assert image_size(path) == whole.planes.shape[1:]
    for window in WINDOWS:
        part = read_image(path, nodata, window)
        np.testing.assert_array_equal(
            part.planes, whole.planes[:, *window.slices], str(window)
        )
        assert part.planes.dtype == whole.planes.dtype
        for name in ("format", "colour", "description", "nodata", "scales", "alpha"):
            assert getattr(part, name) == getattr(whole, name), name
        np.testing.assert_array_equal(part.valid, whole.valid[:, *window.slices])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("planes", ["one", "separate", "contig", "pages"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_window_of_a_tiff_is_the_same_part_of_the_whole(
    tmp_path: Path, layout: str, planes: str, dtype: type[np.generic]
) -> None:
    """A tile put into another place would be a wrong picture that nobody notices."""
    values = NUMBERS.astype(dtype)
    how = {"photometric": "minisblack", "metadata": None, **LAYOUTS[layout]}
    path = tmp_path / "a.tif"
    if planes == "one":
        tifffile.imwrite(path, values[0], **how)
    elif planes == "separate":
        tifffile.imwrite(path, values, planarconfig="separate", **how)
    elif planes == "contig":
        tifffile.imwrite(path, np.moveaxis(values, 0, 2), planarconfig="contig", **how)
    else:
        with tifffile.TiffWriter(
            path,
            bigtiff=how.pop("bigtiff", False),
            byteorder=how.pop("byteorder", None),
        ) as file:
            for plane in values:
                file.write(plane, contiguous=False, **how)
    _assert_windows_are_cuts(path)


@pytest.mark.parametrize("kind", ["bits", "jpeg", "rgb with overview"])
def test_a_window_of_special_tiffs_is_the_same_part_of_the_whole(
    tmp_path: Path, kind: str
) -> None:
    """Bits are unpacked, tiles of JPEG share their tables, and an overview is no plane."""
    path = tmp_path / "a.tif"
    rgb = np.moveaxis(NUMBERS, 0, 2).astype(np.uint8)
    if kind == "bits":
        tifffile.imwrite(
            path, NUMBERS[0] > 2000, photometric="minisblack", rowsperstrip=8
        )
    elif kind == "jpeg":
        Image.fromarray(rgb[..., 0]).save(path, compression="jpeg", tiffinfo={278: 16})
    else:
        with tifffile.TiffWriter(path) as file:
            file.write(
                rgb, tile=(16, 16), compression="zlib", subifds=0, photometric="rgb"
            )
            file.write(
                rgb[::2, ::2],
                tile=(16, 16),
                compression="zlib",
                subfiletype=1,
                photometric="rgb",
            )
    _assert_windows_are_cuts(path)


def test_a_tiff_of_reduced_copies_alone_has_no_frames(tmp_path: Path) -> None:
    """The message says what is wrong with its pages."""
    pages = NUMBERS.astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pages, subfiletype=1, metadata=None)
    with pytest.raises(DataError, match="all its pages are marked as reduced copies"):
        open_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.npy", "b.npy"])
def test_a_window_of_other_files_is_the_same_part_of_the_whole(
    tmp_path: Path, name: str
) -> None:
    """A PNG is decoded as a whole; the answer is the same."""
    values = NUMBERS.astype(np.uint16)
    write_image(tmp_path / name, values if name == "b.npy" else values[:1])
    _assert_windows_are_cuts(tmp_path / name)
    assert window_size(tmp_path / name) == (
        None if name == "a.png" else (HEIGHT, WIDTH)
    )


def test_nodata_of_the_file_and_of_the_user_is_found_in_windows(tmp_path: Path) -> None:
    """The tag, the number the user states, and a tile that GDAL left out are all no measurement."""
    path = tmp_path / "a.tif"
    values = NUMBERS[0].astype(np.int16)
    values[:32, :32] = -9
    tags = [(42113, "s", 0, "-9", True)]
    tifffile.imwrite(path, values, tile=(16, 16), compression="zlib", extratags=tags)
    _assert_windows_are_cuts(path, float(values[40, 40]))
    assert not read_image(path, None, Window(0, 0, 32, 32)).valid.any()  # type: ignore[union-attr]


def test_a_file_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    """What is remembered of a file must not outlive its content."""
    path = tmp_path / "a.tif"
    for value in (3, 5):
        write_image(path, np.full((1, 40, 40), value, np.uint8))
        assert (read_image(path, None, Window(5, 5, 9, 9)).planes == value).all()


@pytest.mark.parametrize(
    "window", [(0, 0, 71, 5), (0, -1, 5, 5), (5, 5, 5, 9), (60, 90, 70, 102)]
)
@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.png"])
def test_a_window_beyond_the_image_is_refused(
    tmp_path: Path, name: str, window: tuple[int, int, int, int]
) -> None:
    """Cut short in silence, a mask would lie in another place."""
    write_image(tmp_path / name, NUMBERS[:1].astype(np.uint16))
    with pytest.raises(DataError, match=rf"{name}: is {WIDTH}x{HEIGHT}"):
        read_image(tmp_path / name, None, Window(*window))


@pytest.mark.parametrize("tile", [256, None])
def test_a_window_of_a_huge_image_takes_little_memory(
    tmp_path: Path, tile: int | None
) -> None:
    """20,000 x 20,000 pixels in 7 bands are 10 GiB as floats; refused as a whole, read in windows."""
    size, bands = 20_000, 7
    path = tmp_path / "a.tif"
    _write_sparse(path, size, bands, tile=tile)
    with pytest.raises(DataError, match="claims 7 x 20000 x 20000"):
        read_image(path)
    assert window_size(path) == (size, size)
    tracemalloc.start()
    try:
        part = read_image(path, None, Window(9000, 12000, 9512, 12512))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert part.planes.shape == (bands, 512, 512)
    assert (part.planes == -1).all()


def _write_sparse(path: Path, size: int, bands: int, *, tile: int | None) -> None:
    """Write a TIFF without a single tile or strip, as GDAL does with SPARSE_OK; -1 is nodata."""
    side = tile or 1
    count = bands * -(-size // side) * (-(-size // side) if tile else 1)
    entries: list[tuple[int, int, int, int | bytes]] = [
        *(
            (256, 4, 1, size),
            (257, 4, 1, size),
            (258, 3, bands, struct.pack(f"<{bands}H", *[16] * bands)),
        ),
        *((259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, bands), (284, 3, 1, 2)),
        *(((322, 4, 1, side), (323, 4, 1, side)) if tile else ((278, 4, 1, side),)),
        (324 if tile else 273, 4, count, bytes(4 * count)),
        (325 if tile else 279, 4, count, bytes(4 * count)),
        (339, 3, bands, struct.pack(f"<{bands}H", *[2] * bands)),
        (42113, 2, 3, int.from_bytes(b"-1\0", "little")),
    ]
    entries.sort()
    place = 8 + 2 + 12 * len(entries) + 4
    table, tail = struct.pack("<H", len(entries)), b""
    for code, kind, number, value in entries:
        if isinstance(value, bytes):
            table += struct.pack("<HHII", code, kind, number, place + len(tail))
            tail += value
        else:
            table += struct.pack("<HHII", code, kind, number, value)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + table + bytes(4) + tail)
