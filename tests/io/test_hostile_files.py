"""What a stranger's file may not do: run a program, open other files, wait for ever, or fill the memory."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from simmat.data.instances import read_mask
from simmat.errors import DataError
from simmat.io.images import read_image
from simmat.io.limits import decoding_errors
from simmat.io.tiff import check_tiff
from simmat.types import Window

Reader = Callable[[Path], object]
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
)


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_a_postscript_program_under_another_name_starts_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Reader, name: str
) -> None:
    """Pillow runs Ghostscript on whatever is PostScript inside."""
    marker, folder = tmp_path / "ran", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {marker}\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(DataError, match=f"{name}: not a file of"):
        read(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packed_labels_are_read_in_either_order_of_bits(
    tmp_path: Path, bits: int, fill_order: int
) -> None:
    """FillOrder 2 has the first pixel in the lowest bits; stretched to 8 bits, label 1 is 85 or 17."""
    labels = [0, 1, 2**bits - 1, 0, 1, 1, 0, 0]
    packed = sum(
        value << (bits * (7 - place)) for place, value in enumerate(labels)
    ).to_bytes(bits, "big")
    if fill_order == 2:
        packed = bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed)
    (tmp_path / "m.tif").write_bytes(
        _tiff([packed], width=8, height=1, bits=bits, extra=[(266, 3, fill_order)])
    )
    assert read_mask(tmp_path / "m.tif").tolist() == [labels]


def test_pages_that_share_pixels_are_counted_one_by_one(tmp_path: Path) -> None:
    """36 KB on disk, 200 pages of one strip: 3 GiB in memory."""
    strip = zlib.compress(bytes(2000 * 2000))
    (tmp_path / "a.tif").write_bytes(
        _tiff([strip] * 200, width=2000, height=2000, compression=8, shared=True)
    )
    assert (tmp_path / "a.tif").stat().st_size < 40_000
    with pytest.raises(
        DataError, match=r"a\.tif: claims 200 x 2000 x 2000 .*--max-image-gib 3"
    ):
        read_image(tmp_path / "a.tif")


def test_a_file_of_too_many_planes_is_refused_before_they_are_described(
    tmp_path: Path,
) -> None:
    """3 KB that state 65,535 samples a pixel took a GeoTIFF reader 200 seconds."""
    content = _tiff(
        [bytes(2976)], width=31, height=24, bits=32, extra=[(277, 3, 65535)]
    )
    (tmp_path / "a.tif").write_bytes(content)
    for read in (read_image, check_tiff):
        with pytest.raises(DataError, match="65535 planes"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("read", [read_image, check_tiff])
@pytest.mark.parametrize(
    ("ending", "content", "said"),
    [
        (".msk", "", "a mask, .*gdalwarp -dstnodata"),
        (
            ".aux.xml",
            "<PAMRasterBand band='1'><Scale>2</Scale></PAMRasterBand>",
            "Scale, .*gdal_translate",
        ),
        (
            ".aux.xml",
            "<PAMRasterBand band='1'><Description>a</Description></PAMRasterBand>",
            "",
        ),
    ],
)
def test_a_file_beside_a_tiff_that_changes_its_values_is_refused(
    tmp_path: Path, read: Reader, ending: str, content: str, said: str
) -> None:
    """Map programs write a mask or a nodata value there; without them missing pixels would be measurements."""
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint16))
    (tmp_path / f"a.tif{ending}").write_text(content)
    with (
        pytest.raises(DataError, match=rf"a\.tif{ending} beside it holds {said}")
        if said
        else nullcontext()
    ):
        read(tmp_path / "a.tif")


def test_a_tile_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    """A tile is decoded as a whole, so its size counts, not the image's."""
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((32, 32), np.uint8),
        tile=(16, 16),
        compression="zlib",
    )
    content = bytearray((tmp_path / "a.tif").read_bytes())
    # TileWidth, SHORT or LONG
    entry = max(content.find(struct.pack("<HHI", 322, kind, 1)) for kind in (3, 4))
    content[entry : entry + 12] = struct.pack("<HHII", 322, 4, 1, 2**31 - 16)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif: claims 1 x 16 x 2147483632"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("window", [None, Window(0, 0, 2, 2)])
def test_pixels_at_offset_0_are_refused_and_left_out_ones_are_nodata(
    tmp_path: Path, window: Window | None
) -> None:
    """The header lies there, which would be read as pixels."""
    (tmp_path / "a.tif").write_bytes(
        _tiff([bytes(16)], width=4, height=4, extra=[(273, 4, 0)])
    )
    with pytest.raises(DataError, match="pixels are missing"):
        read_image(tmp_path / "a.tif", window=window)
    sparse = [(273, 4, 0), (279, 4, 0), (42113, 2, ord("7"))]
    (tmp_path / "b.tif").write_bytes(
        _tiff([bytes(16)], width=4, height=4, extra=sparse)
    )
    assert set(read_image(tmp_path / "b.tif", window=window).planes.ravel()) == {7}


@pytest.mark.parametrize("limit", ["0.0001", "8"])
def test_the_limit_on_decoded_bytes_is_the_user_s_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """A scene may be large on purpose, and a server may have little memory."""
    monkeypatch.setenv("SIMMAT_MAX_IMAGE_GIB", limit)
    Image.new("L", (300, 300)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((300, 300), np.uint8))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((300, 300), np.uint8))
    for name in ("a.png", "a.npy", "a.tif"):
        if limit == "8":
            assert read_image(tmp_path / name).planes.shape == (1, 300, 300)
        else:
            with pytest.raises(
                DataError, match=f"{name}: claims 1 x 300 x 300.*SIMMAT_MAX_IMAGE_GIB"
            ):
                read_image(tmp_path / name)


OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="4" SizeY="4" SizeC="2" SizeZ="1" SizeT="1">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/><Channel ID="Channel:0:1" SamplesPerPixel="1"/>
<TiffData IFD="0" FirstC="0" FirstZ="0" FirstT="0" PlaneCount="1"/>
<TiffData IFD="0" FirstC="1" FirstZ="0" FirstT="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:1</UUID></TiffData>
</Pixels></Image></OME>"""


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("pipe", [False, True])
def test_a_file_that_an_ome_tiff_names_is_not_opened(
    tmp_path: Path, pipe: bool, absolute: bool
) -> None:
    """The names are a stranger's: another user's scan, or a pipe that nobody writes to."""
    other = tmp_path / "other.tif"
    if pipe:
        os.mkfifo(other)
    else:
        tifffile.imwrite(other, np.full((4, 4), 77, np.uint8))
    name = str(other) if absolute else other.name
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        np.full((4, 4), 5, np.uint8),
        description=OME.format(name=name),
    )
    planes = read_image(tmp_path / "a.ome.tif").planes
    assert planes.shape == (1, 4, 4)
    assert (planes == 5).all()


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_refused_before_it_is_opened(
    tmp_path: Path, read: Reader, linked: bool
) -> None:
    """Opening one waits for ever for somebody who writes."""
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "a.png"
    if linked:
        path.symlink_to(tmp_path / "pipe")
    else:
        (tmp_path / "pipe").rename(path)
    with pytest.raises(DataError, match=r"a\.png: .*pipe"):
        read(path)


def _tiff(
    strips: list[bytes],
    *,
    width: int,
    height: int,
    bits: int = 8,
    compression: int = 1,
    shared: bool = False,
    extra: list[tuple[int, int, int]] | None = None,
) -> bytes:
    """Return a little-endian TIFF of a page a strip, after TIFF 6.0; pages share the first strip where `shared`."""
    content = bytearray(b"II*\0" + bytes(4))
    offsets = []
    for strip in strips[:1] if shared else strips:
        offsets.append(len(content))
        content += strip + b"\0" * (len(strip) % 2)
    link = 4  # where the offset of the next page stands
    for page, strip in enumerate(strips):
        tags = {
            256: (3, width),
            257: (3, height),
            258: (3, bits),
            259: (3, compression),
            262: (3, 1),
        }
        tags |= {
            273: (4, offsets[0 if shared else page]),
            277: (3, 1),
            278: (3, height),
            279: (4, len(strip)),
        }
        tags |= {tag: (kind, value) for tag, kind, value in extra or []}
        content[link : link + 4] = struct.pack("<I", len(content))
        content += struct.pack("<H", len(tags))
        for tag, (kind, value) in sorted(tags.items()):
            content += struct.pack("<HHII", tag, kind, 1, value)
        link = len(content)
        content += bytes(4)
    return bytes(content)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("SizeX"), "'SizeX' is missing"),
        (IndexError("tuple index out of range"), "a part of it is missing"),
        (TypeError("'NoneType' object is not iterable"), "a part of it is missing"),
        (AttributeError("no attribute 'x'"), "a part of it is missing"),
        (AssertionError(), "a part of it is missing"),
        (ValueError("bad marker"), "bad marker"),
    ],
)
def test_a_damaged_file_is_not_told_in_words_of_the_code(
    error: Exception, said: str
) -> None:
    """A user cannot act on "tuple index out of range"."""
    with (
        pytest.raises(DataError, match=said) as caught,
        decoding_errors(Path("a.tif"), "tiff"),
    ):
        raise error
    assert "index out of range" not in str(caught.value)
