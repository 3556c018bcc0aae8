"""Label images are read as they lie in the file, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from simmat.data.instances import read_mask
from simmat.errors import DataError


@pytest.mark.parametrize(
    ("name", "dtype", "values"),
    [
        ("m.png", np.uint8, [[0, 255]]),
        ("m.PNG", np.uint16, [[0, 65535]]),
        ("m.tif", np.uint16, [[7, 300]]),
        ("m.tiff", np.int32, [[-1, 70000]]),
        ("m.bmp", np.uint8, [[0, 3]]),
    ],
)
def test_integers_of_any_width_keep_their_values(
    tmp_path: Path, name: str, dtype: type[np.generic], values: list[list[int]]
) -> None:
    """An instance id cut to 8 bits merges objects."""
    Image.fromarray(np.asarray(values, dtype=dtype)).save(tmp_path / name)
    assert read_mask(tmp_path / name).tolist() == values


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (np.int8, [[-1, 3]]),
        (np.uint32, [[4_000_000_000, 1]]),
        (np.int64, [[0, 123456]]),
        (np.float32, [[0, 1]]),
    ],
)
def test_signed_and_large_numbers_of_a_tiff_stay_what_they_are(
    tmp_path: Path, dtype: type[np.generic], values: list[list[int]]
) -> None:
    """A label of -1 means `ignore` to many tools; as 255 it would be a region."""
    tifffile.imwrite(tmp_path / "m.tif", np.asarray(values, dtype=dtype))
    assert read_mask(tmp_path / "m.tif").tolist() == values


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_tiff_whose_white_is_zero_is_refused(tmp_path: Path, bits: int) -> None:
    """Its numbers would be turned round, and the background become the object."""
    values = np.asarray([[0, 1], [1, 0]])
    stored = values.astype(bool) if bits == 1 else (values * 255).astype(f"uint{bits}")
    tifffile.imwrite(tmp_path / "m.tif", stored, photometric="miniswhite")
    with pytest.raises(DataError, match="MINISWHITE"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("turn", [2, 3, 4, 6])
def test_a_tiff_that_is_to_be_turned_is_refused(tmp_path: Path, turn: int) -> None:
    """Its image is read as it is stored, so the labels would lie elsewhere."""
    tifffile.imwrite(
        tmp_path / "m.tif",
        np.arange(16, dtype=np.uint8).reshape(4, 4),
        extratags=[(274, "H", 1, turn, True)],
    )
    with pytest.raises(DataError, match=rf"Orientation {turn}"):
        read_mask(tmp_path / "m.tif")


def test_palette_image_gives_its_indices(tmp_path: Path) -> None:
    """In VOC-like masks the colour is for people, the index is the label."""
    picture = Image.fromarray(np.asarray([[0, 2]], dtype=np.uint8), mode="P")
    picture.putpalette([9, 9, 9, 8, 8, 8, 200, 0, 0])
    picture.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 2]]


@pytest.mark.parametrize(
    "values",
    [np.asarray([[True, False]]), np.asarray([[1.0, 0.0]]), np.asarray([[1, 0]])],
)
def test_npy_of_booleans_integers_or_whole_floats_is_read(
    tmp_path: Path, values: np.ndarray
) -> None:
    """Whole numbers are labels whatever their type."""
    np.save(tmp_path / "m.npy", values)
    assert read_mask(tmp_path / "m.npy").tolist() == [[1, 0]]


def test_several_pages_are_refused(tmp_path: Path) -> None:
    """Which page is the mask is not for us to say."""
    page = Image.new("L", (2, 2))
    page.save(tmp_path / "m.tif", save_all=True, append_images=[page])
    with pytest.raises(DataError, match="2 pages"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_masks_are_refused_with_what_to_do(tmp_path: Path, mode: str) -> None:
    """A colour is no label number, and taking one plane would be a guess."""
    Image.new(mode, (2, 2)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="one plane of integers"):
        read_mask(tmp_path / "m.png")


@pytest.mark.parametrize("name", ["m.jpg", "m.png"])
def test_jpeg_is_refused_by_name_and_by_content(tmp_path: Path, name: str) -> None:
    """Compression smears label 2 into 1 and 3 at every border."""
    Image.new("L", (8, 8)).save(tmp_path / name, format="JPEG")
    with pytest.raises(DataError, match="JPEG"):
        read_mask(tmp_path / name)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_fractions_are_refused(tmp_path: Path, value: float) -> None:
    """A probability map is not a label image; the threshold is the user's to choose."""
    np.save(tmp_path / "m.npy", np.asarray([[value, 1]]))
    with pytest.raises(DataError, match="fractions"):
        read_mask(tmp_path / "m.npy")


def test_a_jpeg_within_a_tiff_is_refused(tmp_path: Path) -> None:
    """It smears labels as any JPEG does: 6 objects become 200."""
    Image.fromarray(np.eye(64, dtype=np.uint8)).save(
        tmp_path / "m.tif", compression="jpeg"
    )
    with pytest.raises(DataError, match=r"compressed as JPEG.* mask, without loss"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("value", [np.float64(1e30), np.uint64(2**63 + 5)])
def test_labels_beyond_what_counts_are_refused(
    tmp_path: Path, value: np.generic
) -> None:
    """They would wrap to negative numbers, which the advice then ignores."""
    np.save(tmp_path / "m.npy", np.full((4, 4), value))
    with pytest.raises(DataError, match="whole numbers"):
        read_mask(tmp_path / "m.npy")
