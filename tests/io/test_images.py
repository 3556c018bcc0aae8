"""Reading planes: the file's own numbers, or a refusal that says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from simmat.errors import DataError
from simmat.io.images import read_image, require_unscaled

RNG = np.random.default_rng(0)
GREY16 = RNG.integers(0, 65536, (5, 7)).astype(np.uint16)
RGB8 = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_sixteen_bit_grey_png_keeps_all_its_bits(tmp_path: Path) -> None:
    """Thermal and depth cameras write 16 bits; cut to 8 they are another image."""
    Image.fromarray(GREY16).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.planes.dtype == np.uint16
    np.testing.assert_array_equal(image.planes[0], GREY16)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits_gives_the_stored_numbers(tmp_path: Path, bits: int) -> None:
    """Pillow spreads 2 and 4 bits over 0..255, which would turn label 3 into 51 or 255."""
    values = np.arange(2**bits, dtype=np.uint8)[None].repeat(2, axis=0)
    (tmp_path / "a.png").write_bytes(_png(values, bits))
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png").planes[0].astype(np.uint8), values
    )


def test_sixteen_bit_colour_png_is_refused(tmp_path: Path) -> None:
    """Pillow cuts it to 8 bits without a word."""
    values = np.zeros((2, 6), dtype=np.uint8)  # two rows of one pixel of 3 x 16 bits
    (tmp_path / "a.png").write_bytes(_png(values, 16, colour=2, width=1))
    with pytest.raises(DataError, match=r"16 bits.*TIFF"):
        read_image(tmp_path / "a.png")


def test_a_palette_is_refused_as_an_image(tmp_path: Path) -> None:
    """A palette's numbers are names of colours; only a label mask may mean them."""
    picture = Image.fromarray(
        np.array([[0, 1], [2, 1]], dtype=np.uint8), mode=None
    ).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    with pytest.raises(DataError, match="palette"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_planes_of_a_tiff_are_known_by_its_tags(tmp_path: Path, planar: str) -> None:
    """Three rows and three planes look alike by size; the PlanarConfiguration tag knows."""
    values = RNG.integers(-5, 900, (3, 3, 3)).astype(np.int16)  # (P, H, W)
    stored = values if planar == "separate" else np.moveaxis(values, 0, 2)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planar
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").planes, values)


def test_pages_of_a_tiff_are_planes_where_they_agree(tmp_path: Path) -> None:
    """Many scientific cameras write one page a band; pages of several sizes are several images."""
    pages = RNG.random((4, 5, 6)).astype(np.float32)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").planes, pages)
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(pages[0], metadata=None)
        writer.write(pages[0, :3], metadata=None)
    with pytest.raises(DataError, match="2 pages differ"):
        read_image(tmp_path / "b.tif")


def test_a_scale_that_the_file_states_is_returned(tmp_path: Path) -> None:
    """GDAL keeps it as XML in a tag; whoever needs values, not numbers, can refuse the file."""
    text = (
        '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.01</Item>'
        '<Item name="OFFSET" sample="0" role="offset">-20</Item></GDALMetadata>'
    )
    tag = [(42112, "s", 0, text, True)]
    tifffile.imwrite(
        tmp_path / "a.tif", np.ones((2, 2), np.int16), metadata=None, extratags=tag
    )
    image = read_image(tmp_path / "a.tif")
    assert image.scales == ((0.01, -20.0),)
    with pytest.raises(DataError, match=r"0.01 plus -20.*'sar-db'"):
        require_unscaled(image, "sar-db")
    for harmless in (
        "<GDALMetadata><Item name='AREA'>x</Item></GDALMetadata>",
        "no xml",
    ):
        tag = [(42112, "s", 0, harmless, True)]
        tifffile.imwrite(
            tmp_path / "b.tif", np.ones((2, 2), np.int16), metadata=None, extratags=tag
        )
        require_unscaled(read_image(tmp_path / "b.tif"), "sar-db")


def test_a_scale_is_that_of_the_plane_it_is_stated_for(tmp_path: Path) -> None:
    """One band may be in kelvin and the next in flags, in one page or in a page each."""
    item = '<GDALMetadata><Item name="SCALE" {} role="scale">0.01</Item></GDALMetadata>'
    planes, plain = np.ones((2, 4, 5), np.int16), (1.0, 0.0)

    def tag(where: str) -> list[tuple[int, str, int, str, bool]]:
        return [(42112, "s", 0, item.format(where), True)]

    for where, scales in (
        ('sample="1"', (plain, (0.01, 0.0))),
        ("", ((0.01, 0.0),) * 2),
        ('sample="7"', (plain,) * 2),
    ):
        tifffile.imwrite(
            tmp_path / "a.tif",
            planes,
            photometric="minisblack",
            planarconfig="separate",
            extratags=tag(where),
        )
        assert read_image(tmp_path / "a.tif").scales == scales
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(planes[0], metadata=None)
        writer.write(planes[1], metadata=None, extratags=tag('sample="0"'))
    assert read_image(tmp_path / "b.tif").scales == (plain, (0.01, 0.0))


@pytest.mark.parametrize(
    ("mode", "alpha"), [("L", False), ("LA", True), ("RGB", False), ("RGBA", True)]
)
def test_alpha_of_a_png_is_returned(tmp_path: Path, mode: str, alpha: bool) -> None:
    """It is a plane of the file and no measurement; a sensor of two bands must know."""
    Image.fromarray(RGB8).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (len(image.planes), image.alpha) == (len(mode), alpha)


@pytest.mark.parametrize(
    ("extra", "alpha"),
    [((0,), False), ((1,), True), ((2,), True), ((0, 2), True), ((0, 0), False)],
)
def test_alpha_of_a_tiff_is_known_by_its_tag(
    tmp_path: Path, extra: tuple[int, ...], alpha: bool
) -> None:
    """ExtraSamples: unspecified, associated or unassociated alpha."""
    planes = np.zeros((4, 5, 1 + len(extra)), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        planes,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=extra,
        metadata=None,
    )
    assert read_image(tmp_path / "a.tif").alpha is alpha


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.npy", "deflate.tif"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6, 0.97])
def test_a_file_cut_short_is_an_error_that_names_it(
    tmp_path: Path, name: str, keep: float
) -> None:
    """Half a picture read as a whole one would be trained on, with zeros where the rest was."""
    values = RNG.integers(0, 256, (64, 80)).astype(np.uint8)
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, values)
    elif name.endswith(".tif"):
        tifffile.imwrite(
            path,
            values,
            metadata=None,
            compression="zlib" if name.startswith("d") else None,
        )
    else:
        Image.fromarray(values).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError, match=name):
        read_image(path)


def test_an_array_in_height_width_planes_order_is_refused(tmp_path: Path) -> None:
    """Read by the rule (planes, height, width) it would be 100 planes of 80 x 3 pixels."""
    np.save(tmp_path / "a.npy", np.zeros((100, 80, 3), dtype=np.float32))
    with pytest.raises(DataError, match=r"array\.transpose\(2, 0, 1\)"):
        read_image(tmp_path / "a.npy")


def test_an_array_that_needs_pickle_is_refused(tmp_path: Path) -> None:
    """A pickle runs code when it is read."""
    np.save(tmp_path / "a.npy", np.array([[1, "x"]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("dtype", ["int64", "uint64", "complex64", "U3"])
def test_numbers_that_float32_cannot_hold_are_refused(
    tmp_path: Path, dtype: str
) -> None:
    """Time stamps and ids in 64 bits would lose digits without a word."""
    np.save(tmp_path / "a.npy", np.zeros((4, 4), dtype=dtype))
    with pytest.raises(DataError, match="store them as float32"):
        read_image(tmp_path / "a.npy")


def test_a_wrong_ending_is_refused_with_the_right_one(tmp_path: Path) -> None:
    """Data sets hold JPEGs named .png; the lossy format should not pass unseen."""
    Image.fromarray(RGB8).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"JPEG.*a\.jpg"):
        read_image(tmp_path / "a.png")


def test_exif_orientation_does_not_turn_the_pixels(tmp_path: Path) -> None:
    """Masks are drawn on the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    Image.fromarray(RGB8).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").planes.shape == (3, 5, 7)


def _png(
    rows: np.ndarray,
    bits: int,
    *,
    colour: int = 0,
    width: int | None = None,
    height: int | None = None,
) -> bytes:
    """Build a PNG of raw rows by hand, in depths that Pillow does not write."""
    import struct
    import zlib

    packed = rows if bits in (8, 16) else np.packbits(_bits_of(rows, bits), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    size = (width or rows.shape[1], height or rows.shape[0])

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body))
            + name
            + body
            + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(raw)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _bits_of(rows: np.ndarray, bits: int) -> np.ndarray:
    return np.unpackbits(rows[..., None], axis=2)[..., -bits:].reshape(len(rows), -1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello world", "not a file of PNG"),
        (b"PK\x03\x04abc", "convert it"),
    ],
)
def test_files_that_are_not_images_are_distinguished(
    tmp_path: Path, content: bytes, words: str
) -> None:
    """An empty download, a text file and an archive need different cures."""
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_image(tmp_path / "a.png")
