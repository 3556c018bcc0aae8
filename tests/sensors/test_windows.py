"""Parts of samples: sensors read the window itself where they can, and the same values as of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simmat import Channel, ModalityAdapter, SensorImage, Source
from simmat.errors import DataError
from simmat.io.images import read_image, write_image
from simmat.sensors.adapter import PathsBySource, load_sample
from simmat.sensors.builtin import Gray, Raster, Rgb
from simmat.sensors.composed_modality import ComposedModality
from simmat.sensors.sensor_toml import TomlModality, parse_sensor_definition
from simmat.types import Window

WINDOW = Window(3, 5, 20, 31)
NUMBERS = np.random.default_rng(0).integers(1, 250, (4, 33, 47)).astype(np.uint8)


class Plain(ModalityAdapter):
    """A sensor as before there were windows."""

    name, description = "plain", "counts"
    sources = (Source("plain", (".tif",)),)
    channels = (Channel("plain", "counts", "count"),)

    def load(self, files: PathsBySource) -> SensorImage:
        return SensorImage.from_planes(
            read_image(files["plain"], self.nodata("plain")).planes, self.channels
        )


class Halved(Gray):
    """A sensor that changes the values of one that reads windows."""

    def load(self, files: PathsBySource) -> SensorImage:
        image = super().load(files)
        return SensorImage.from_planes(image.data / 2, image.channels)


def _declared() -> TomlModality:
    rule = {
        "name": "echo",
        "quantity": "echo_strength",
        "unit": "count",
        "nodata": int(NUMBERS[0, 10, 10]),
        "plane": 0,
    }
    values = {
        "format": 1,
        "name": "sonar",
        "source": [{"files": ["*.tif"]}],
        "channel": [rule],
    }
    return TomlModality(parse_sensor_definition(values, "sensor.toml"))


SENSORS = {
    "gray": (Gray(), {"gray": 1}),
    "rgb": (Rgb(), {"rgb": 3}),
    "raster": (Raster(), {"raster": 4}),
    "composed": (ComposedModality([Raster(), Gray()]), {"raster": 2, "gray": 1}),
    "selected": (ComposedModality([Raster()], [2, 0]), {"raster": 4}),
    "declared": (_declared(), {"sonar": 2}),
    "plain": (Plain(), {"plain": 1}),
    "plain composed": (ComposedModality([Plain(), Gray()]), {"plain": 1, "gray": 1}),
    "halved": (Halved(), {"gray": 1}),
}


def _write(
    folder: Path, planes: dict[str, int], ending: str = ".tif"
) -> dict[str, Path]:
    files = {name: folder / f"{name}{ending}" for name in planes}
    for name, count in planes.items():
        if name == "rgb":
            import tifffile

            tifffile.imwrite(
                files[name],
                np.moveaxis(NUMBERS[:3], 0, 2),
                photometric="rgb",
                tile=(16, 16),
            )
        else:
            write_image(files[name], NUMBERS[:count])
    return files


@pytest.mark.parametrize("name", SENSORS)
def test_a_window_of_a_sample_is_the_same_part_of_the_whole(
    tmp_path: Path, name: str
) -> None:
    """Whoever cuts an image into windows sees what it sees in a small one, whether the sensor knows windows or not."""
    sensor, planes = SENSORS[name]
    files = _write(tmp_path, planes)
    whole = load_sample(sensor, files).cut(WINDOW)
    part = load_sample(sensor, files, window=WINDOW)
    np.testing.assert_array_equal(part.data, whole.data)
    np.testing.assert_array_equal(part.valid, whole.valid)
    assert part.channels == whole.channels
    reads = not any(word in name for word in ("plain", "halved"))
    assert sensor.window_size(files) == ((33, 47) if reads else None)


def test_sources_of_different_sizes_have_no_common_window(tmp_path: Path) -> None:
    """The second file would be read at another place of the scene."""
    files = _write(tmp_path, {"raster": 2, "gray": 1})
    write_image(files["gray"], NUMBERS[:1, :, :-1])
    with pytest.raises(DataError, match=r"raster\.tif is 47x33, .*gray\.tif is 46x33"):
        SENSORS["composed"][0].window_size(files)
