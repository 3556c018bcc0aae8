"""What `write_image` writes, `read_image` reads: the same numbers, for all types and shapes that a format takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from simmat.data.instances import read_mask
from simmat.io.images import read_image, write_image

_DTYPES = (
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "int8",
    "int16",
    "int32",
    "float16",
    "float32",
    "float64",
)
_SIDES = st.integers(1, 12)


def _planes(
    dtypes: tuple[str, ...], counts: st.SearchStrategy[int]
) -> st.SearchStrategy[npt.NDArray[np.generic]]:
    """Arrays (P, H, W) of these types; of more than 64 planes npy takes the axes for another order."""
    return st.tuples(st.sampled_from(dtypes), counts, _SIDES, _SIDES).flatmap(
        lambda drawn: arrays.arrays(np.dtype(drawn[0]), drawn[1:])
    )


def _check(path: Path, planes: npt.NDArray[np.generic]) -> None:
    write_image(path, planes)
    found = read_image(path).planes
    assert found.dtype == planes.dtype
    np.testing.assert_array_equal(found, planes)


@given(planes=_planes(_DTYPES, st.integers(1, 6)))
def test_npy_gives_back_the_numbers(
    tmp_path: Path, planes: npt.NDArray[np.generic]
) -> None:
    """NaN, infinities and -0 included: what they mean is for the sensor to say."""
    _check(tmp_path / "image.npy", planes)


@given(planes=_planes(_DTYPES[1:], st.integers(1, 6)))
def test_tiff_gives_back_the_numbers(
    tmp_path: Path, planes: npt.NDArray[np.generic]
) -> None:
    """Compression and predictor must not change a bit, whatever the type."""
    _check(tmp_path / "image.tif", planes)


@given(
    planes=st.one_of(
        _planes(("uint8",), st.sampled_from((1, 3))), _planes(("uint16",), st.just(1))
    )
)
def test_png_gives_back_the_numbers(
    tmp_path: Path, planes: npt.NDArray[np.generic]
) -> None:
    """16 bits must not be cut to 8, nor planes be mixed."""
    _check(tmp_path / "image.png", planes)


@given(
    description=st.text(
        st.characters(min_codepoint=32, max_codepoint=126), max_size=40
    ).map(str.strip)
)
def test_a_tiff_keeps_its_description(tmp_path: Path, description: str) -> None:
    """Units and bits are stated there; blanks at its ends mean nothing."""
    write_image(
        tmp_path / "image.tif",
        np.zeros((1, 2, 3), dtype=np.uint16),
        description=description,
    )
    assert read_image(tmp_path / "image.tif").description == description


@given(
    mask=arrays.arrays(np.uint16, st.tuples(_SIDES, _SIDES)),
    ending=st.sampled_from((".png", ".tif", ".npy")),
)
def test_a_mask_keeps_its_labels(
    tmp_path: Path, mask: npt.NDArray[np.uint16], ending: str
) -> None:
    """A label that changes is another object."""
    path = tmp_path / f"mask{ending}"
    write_image(path, mask[None])
    np.testing.assert_array_equal(read_mask(path), mask)
