"""Labels of found objects and class maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from found_results import classes_result, found_box, objects_result, write_result

from simmat.data.instances import read_mask
from simmat.inference import formats as formats_module


def test_the_object_of_higher_score_is_in_front_and_has_the_lower_number(
    tmp_path: Path,
) -> None:
    """A label image cannot hold both of two objects that overlap."""
    result = objects_result(
        (20, 30), found_box(0, 0, 10, 10, 1, 0.4), found_box(5, 5, 15, 25, 2, 0.9)
    )
    assert write_result(result, ["labels"], tmp_path) == ["a_objects.png"]
    labels = read_mask(tmp_path / "a_objects.png")
    assert labels.shape == (20, 30)
    assert (labels[5:15, 5:25] == 1).all()
    assert labels[0, 0] == 2
    assert (labels == 2).sum() == 100 - 25


def test_a_class_map_is_written_as_its_values_in_the_smallest_type(
    tmp_path: Path,
) -> None:
    """Many tools read 8-bit label images only."""
    for highest, bits in ((255, 8), (256, 16)):
        classes = np.arange(600, dtype=np.int64).reshape(20, 30) % (highest + 1)
        write_result(classes_result(classes), ["labels"], tmp_path)
        # of the header's bit depth
        assert (tmp_path / "a_classes.png").read_bytes()[24] == bits
        np.testing.assert_array_equal(read_mask(tmp_path / "a_classes.png"), classes)


def test_what_a_png_cannot_hold_becomes_a_tiled_tiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of rows are put together at the right places, the incomplete last tiles too."""
    import tifffile

    monkeypatch.setattr(formats_module, "MAX_PNG_SIDE", 600)
    classes = np.arange(700 * 1100, dtype=np.int32).reshape(700, 1100) % 251
    assert write_result(classes_result(classes), ["labels"], tmp_path) == [
        "a_classes.tif"
    ]
    np.testing.assert_array_equal(read_mask(tmp_path / "a_classes.tif"), classes)
    with tifffile.TiffFile(tmp_path / "a_classes.tif") as tiff:
        assert tiff.pages[0].aspage().is_tiled


def test_more_objects_than_16_bits_count_are_written(tmp_path: Path) -> None:
    """An instance id is never cut to 16 bits."""
    count = 65_537
    size = 257
    objects = [
        found_box(i // size, i % size, i // size + 1, i % size + 1, score=1 - i / count)
        for i in range(count)
    ]
    assert write_result(
        objects_result((size, size), *objects), ["labels"], tmp_path
    ) == ["a_objects.tif"]
    assert read_mask(tmp_path / "a_objects.tif").flat[count - 1] == count
