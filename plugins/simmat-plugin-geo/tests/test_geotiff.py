"""Instance ids and class maps as GeoTIFF: map programs put them in their place."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
from found_results import PLACE, classes_result, found_box, objects_result, write_result

from simmat.errors import OutputError
from simmat.geo import read_georeference
from simmat.inference import formats as formats_module


def test_a_geotiff_has_coordinate_system_transform_and_nodata(tmp_path: Path) -> None:
    """A map program puts it in its place and does not draw what was not measured."""
    classes = np.zeros((40, 50), np.int64)
    classes[3:9, 4:30], classes[:, 40:] = 2, 255
    assert write_result(
        classes_result(classes, place=PLACE, nodata=255), ["geotiff"], tmp_path
    ) == ["a_classes.tif"]
    assert read_georeference(tmp_path / "a_classes.tif") == PLACE
    with rasterio.open(tmp_path / "a_classes.tif") as file:
        assert (file.nodata, file.dtypes) == (255, ("uint8",))
        assert file.tags(1)["class_2"] == "forest"
        np.testing.assert_array_equal(file.read(1), classes)


def test_a_geotiff_is_cloud_optimized(tmp_path: Path) -> None:
    """A map program, or a browser over a network, shows a scene without reading all of it."""
    classes = np.zeros((1100, 700), np.uint8)
    classes[200:900, 100:600] = 2
    write_result(classes_result(classes, place=PLACE), ["geotiff"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a_classes.tif"]
    with rasterio.open(tmp_path / "a_classes.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2, 4]
        assert file.block_shapes == [(512, 512)]
        assert set(np.unique(file.read(1, out_shape=(550, 350))).tolist()) == {0, 2}


def test_a_geotiff_of_objects_and_its_large_label_image_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the same pixels and the same name; the one with a place on the earth stays."""
    monkeypatch.setattr(formats_module, "MAX_PNG_SIDE", 10)
    result = objects_result((20, 30), found_box(1, 2, 3, 4), place=PLACE)
    assert write_result(result, ["labels", "geotiff"], tmp_path) == ["a_objects.tif"]
    assert read_georeference(tmp_path / "a_objects.tif") == PLACE


@pytest.mark.parametrize("missing", [1, 300, 9000])
def test_a_full_disk_leaves_no_geotiff_that_is_cut_short(
    tmp_path: Path, missing: int
) -> None:
    """GDAL does not report what it could not write when it closed the file."""
    classes = np.random.default_rng(0).integers(0, 3, (600, 600))
    result = classes_result(classes, place=PLACE)
    write_result(result, ["geotiff"], tmp_path)
    size = (tmp_path / "a_classes.tif").stat().st_size
    limits, handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, limits[1]))
        with pytest.raises(OutputError, match="disk"):
            write_result(result, ["geotiff"], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_map_on_disk_is_written_without_reading_it_whole(tmp_path: Path) -> None:
    """A class map of a satellite scene is larger than the memory."""
    import tracemalloc

    classes = np.memmap(tmp_path / "map", np.uint8, "w+", shape=(9000, 9000))
    classes[8000:8100, 100:8900] = 7
    out = tmp_path / "out"
    out.mkdir()
    tracemalloc.start()
    assert write_result(
        classes_result(classes, place=PLACE), ["labels", "geotiff"], out
    ) == ["a_classes.tif"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < classes.size / 2
    assert (out / "a_classes.tif").stat().st_size < classes.size / 50
