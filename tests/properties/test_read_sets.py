"""Manifests with any ids and names, and COCO segmentations as pycocotools itself draws them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from simmat.data.formats.coco import draw_segmentation, segmentation_problem
from simmat.data.formats.manifest import read_manifest
from simmat.sensors.adapter import Source

_CELL = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
_NAME = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"),
    min_size=1,
    max_size=20,
)
_SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@given(
    ids=st.lists(_CELL, min_size=3, max_size=6, unique=True),
    names=st.lists(_NAME, min_size=6, max_size=6, unique_by=lambda name: name.casefold()),
    notes=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20), min_size=6,
                   max_size=6),
)  # fmt: skip
def test_a_manifest_gives_its_own_cells(
    tmp_path_factory: pytest.TempPathFactory,
    ids: list[str],
    names: list[str],
    notes: list[str],
) -> None:
    """Quotes, commas, line ends and any script in a cell are that cell's text, and files are found by such names."""
    root = tmp_path_factory.mktemp("set")
    rows = []
    for index, (name, identity, note) in enumerate(
        zip(names, ids, notes, strict=False)
    ):
        image, mask = Path(f"{name}.png"), Path(f"{name}_mask.png")
        for path in (image, mask):
            (root / path).write_bytes(b"")
        rows.append(
            [identity, ("train", "val", "test")[index % 3], str(image), str(mask), note]
        )
    with (root / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "split", "image", "mask", "note"], *rows])
    found = read_manifest(root, [Source("gray", (".png",))])
    assert [sample.id for sample in found] == [row[0] for row in rows]
    assert [sample.split for sample in found] == [row[1] for row in rows]
    assert [sample.files["gray"] for sample in found] == [root / row[2] for row in rows]
    assert [sample.mask for sample in found] == [root / row[3] for row in rows]
    assert [sample.extra["note"] for sample in found] == [row[4] for row in rows]


@given(
    mask=_SIZES.flatmap(lambda size: arrays.arrays(np.bool_, size)),
    as_text=st.booleans(),
)
def test_run_lengths_give_the_mask_that_pycocotools_encoded(
    mask: npt.NDArray[np.bool_], as_text: bool
) -> None:
    """The text form is a code of its own, and is checked before C code reads it: a right one must pass."""
    size = mask.shape[0], mask.shape[1]
    counts = (
        coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        if as_text
        else _runs(mask)
    )
    segmentation = {"size": list(size), "counts": counts}
    assert segmentation_problem(segmentation, size) is None
    np.testing.assert_array_equal(draw_segmentation(segmentation, size), mask)


@given(data=st.data(), size=_SIZES)
def test_polygons_are_drawn_as_pycocotools_draws_them(
    data: st.DataObject, size: tuple[int, int]
) -> None:
    """Corners a little out of the image are allowed; several polygons are one object."""
    corner = st.floats(-1, max(size) + 1, width=32)
    polygon = st.lists(corner, min_size=6, max_size=12).filter(
        lambda found: len(found) % 2 == 0
    )
    polygons = data.draw(st.lists(polygon, min_size=1, max_size=3))
    assert segmentation_problem(polygons, size) is None
    expected = np.zeros(size, dtype=np.bool_)
    for one in polygons:
        expected |= coco_mask.decode(coco_mask.frPyObjects([one], *size))[
            :, :, 0
        ].astype(np.bool_)
    np.testing.assert_array_equal(draw_segmentation(polygons, size), expected)


@given(
    counts=st.text(st.characters(min_codepoint=40, max_codepoint=115), max_size=12)
    | st.lists(st.integers(-5, 500), max_size=6),
    size=_SIZES,
)
def test_any_run_lengths_are_refused_or_fill_the_image(
    counts: str | list[int], size: tuple[int, int]
) -> None:
    """pycocotools trusts its input: pixels that no run covers would be whatever was in memory."""
    segmentation = {"size": list(size), "counts": counts}
    if segmentation_problem(segmentation, size) is not None:
        return
    drawn = draw_segmentation(segmentation, size)
    assert drawn.shape == size
    again = {"size": list(size), "counts": _runs(drawn)}
    np.testing.assert_array_equal(draw_segmentation(again, size), drawn)


def _runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs down the columns, the first of zeros."""
    flat = mask.ravel(order="F")
    lengths = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths
