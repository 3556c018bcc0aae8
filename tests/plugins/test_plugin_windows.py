"""Parts of the files of the sensor plugins: values that only a whole image can tell are not asked for in a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from simmat_plugin_depth.depth import Depth, MinMaxDepth
from simmat_plugin_nir.red_nir import Nir, RedNir, RedNirOptions
from simmat_plugin_sar.adapter import Sar, SarOptions
from simmat_plugin_thermal.adapter import MinMaxThermal, Thermal, ThermalOptions

from simmat import ModalityAdapter, Window
from simmat.errors import DataError
from simmat.io.images import write_image
from simmat.sensors.adapter import load_sample

WINDOW, EMPTY = Window(3, 5, 20, 31), Window(21, 0, 33, 20)
COUNTS = np.random.default_rng(0).integers(3000, 20000, (2, 33, 47)).astype(np.uint16)
COUNTS[:, 20:, :30] = 0
FLOATS = COUNTS.astype(np.float32) / 1000
CENTIKELVIN = (COUNTS > 0) * (20000 + COUNTS // 2).astype(np.uint16)
CASES: dict[str, tuple[ModalityAdapter, dict[str, Any]]] = {
    "thermal": (Thermal(), {"thermal": COUNTS[:1]}),
    "thermal in cK": (Thermal(ThermalOptions(unit="cK")), {"thermal": CENTIKELVIN[:1]}),
    "depth": (Depth(), {"depth": FLOATS[:1]}),
    "nir": (Nir(), {"nir": COUNTS[:1]}),
    "red-nir": (RedNir(), {"red-nir": COUNTS}),
    "red-nir and zeros": (
        RedNir(),
        {"red-nir": np.concatenate([COUNTS, COUNTS[:1] * 0])},
    ),
    "red-nir files": (
        RedNir(RedNirOptions(separate_files=True)),
        {"red": COUNTS[:1], "nir": COUNTS[1:]},
    ),
    "sar": (Sar(), {"sar": COUNTS[:1]}),
    "sar in db": (
        Sar(SarOptions(scale="db")),
        {"sar": np.where(FLOATS > 0, -FLOATS, 9999)[:1].astype(np.float32)},
    ),
    "sar dual": (
        Sar(SarOptions(scale="power", polarizations="dual", separate_files=True)),
        {"co": FLOATS[:1], "cross": FLOATS[1:]},
    ),
}


def _write(folder: Path, planes: dict[str, Any]) -> dict[str, Path]:
    files = {name: folder / f"{name}.tif" for name in planes}
    for name, path in files.items():
        write_image(path, planes[name])
    return files


@pytest.mark.parametrize("name", CASES)
def test_a_window_of_a_sample_is_the_same_part_of_the_whole(
    tmp_path: Path, name: str
) -> None:
    """One window of data, one of nothing but fill values."""
    sensor, planes = CASES[name]
    files = _write(tmp_path, planes)
    assert sensor.window_size(files) == (33, 47)
    whole = load_sample(sensor, files)
    for window in (WINDOW, EMPTY):
        part, expected = load_sample(sensor, files, window=window), whole.cut(window)
        np.testing.assert_array_equal(part.data, expected.data)
        np.testing.assert_array_equal(part.valid, expected.valid)
        assert part.channels == expected.channels


@pytest.mark.parametrize(
    ("sensor", "name"),
    [
        (Thermal(ThermalOptions(unit="cK")), "thermal"),
        (Depth(), "depth"),
        (Sar(), "sar"),
    ],
)
def test_a_part_that_would_be_refused_as_an_image_is_read(
    tmp_path: Path, sensor: ModalityAdapter, name: str
) -> None:
    """A corner of a scene may hold only numbers that are no measurement."""
    fill = {"thermal": np.uint16(9), "depth": np.float32(-5), "sar": np.float32(-5)}[
        name
    ]
    files = _write(tmp_path, {name: np.full((1, 33, 47), fill)})
    with pytest.raises(DataError):
        sensor.load(files)
    assert not load_sample(sensor, files, window=WINDOW).valid.any()


@pytest.mark.parametrize(
    ("sensor", "name"),
    [
        (MinMaxThermal(), "thermal"),
        (MinMaxDepth(), "depth"),
        (Sar(SarOptions(filter="lee")), "sar"),
    ],
)
def test_what_depends_on_the_whole_image_has_no_windows(
    tmp_path: Path, sensor: ModalityAdapter, name: str
) -> None:
    """The coldest pixel and the number of looks are those of the image; a window would have its own."""
    files = _write(tmp_path, {name: FLOATS[:1] + 1})
    assert sensor.window_size(files) is None
    part = load_sample(sensor, files, window=WINDOW)
    np.testing.assert_array_equal(part.data, sensor.load(files).cut(WINDOW).data)


def test_the_georeference_of_a_window_is_that_of_its_first_pixel(
    tmp_path: Path,
) -> None:
    """A mask written with that of the whole scene would lie elsewhere."""
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 5400000.0, 0.0), True),
        (
            34735,
            "H",
            16,
            (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632),
            True,
        ),
    ]
    tifffile.imwrite(tmp_path / "a.tif", FLOATS[0], extratags=tags, metadata=None)
    found = load_sample(Sar(), {"sar": tmp_path / "a.tif"}, window=WINDOW).georeference
    assert found is not None
    assert found.transform == (10.0, 0.0, 500050.0, 0.0, -10.0, 5399970.0)
