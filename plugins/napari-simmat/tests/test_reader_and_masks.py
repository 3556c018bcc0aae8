"""What is read and written, which needs no napari."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari_simmat import opengl, reader
from napari_simmat.masks import (
    FRAMES,
    FoundMask,
    add_objects,
    frame_names,
    mask_path,
    note_found,
    write_mask,
)

from simmat.data.dataset import open_dataset
from simmat.data.instances import read_mask
from simmat.data.predicted import read_predicted
from simmat.errors import ConfigError, DataError
from simmat.plugins.loader import load_plugins
from simmat.sensors.adapter import Source, with_data_card
from simmat.types import Window


@pytest.fixture(autouse=True)
def _no_sensor() -> Iterator[None]:
    yield
    reader.choose_sensor(None)


def test_channels_are_layers_with_their_units_all_bits_and_missing_values(
    tmp_path: Path,
) -> None:
    """An 8-bit picture of a sensor is what other tools segment."""
    planes = np.array([[[1, 40000], [3, 4]], [[5, 6], [65535, 8]]], np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", planes, photometric="minisblack", planarconfig="separate"
    )
    reader.choose_sensor(load_plugins().modality("raster", {"nodata": 3}))
    layers = reader.read(str(tmp_path / "a.tif"))
    assert [attributes["name"] for _, attributes, _ in layers] == [
        "a band0 [count]",
        "a band1 [count]",
    ]
    np.testing.assert_array_equal(layers[0][0], [[1, 40000], [np.nan, 4]])
    np.testing.assert_array_equal(layers[1][0], planes[1])


def test_colours_of_a_camera_are_one_layer(tmp_path: Path) -> None:
    """Three grey layers are no photograph."""
    planes = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb")
    reader.choose_sensor(load_plugins().modality("rgb"))
    ((data, attributes, kind),) = reader.read(str(tmp_path / "a.tif"))
    assert (kind, attributes["rgb"]) == ("image", True)
    np.testing.assert_array_equal(data, planes)


def test_frames_are_read_when_they_are_shown(tmp_path: Path) -> None:
    """A video is larger than memory."""
    pytest.importorskip("dask.array")
    frames = np.arange(5 * 12, dtype=np.uint16).reshape(5, 3, 4)
    np.save(tmp_path / "a.npy", frames[:, None])
    reader.choose_sensor(load_plugins().modality("gray"))
    ((data, _, _),) = reader.read(str(tmp_path / "a.npy"))
    assert not isinstance(data, np.ndarray)
    np.testing.assert_array_equal(np.asarray(data[3]), frames[3])


def test_files_of_several_sources_are_one_image(tmp_path: Path) -> None:
    """`rgb+gray` has a file of each; the message for a single one says so."""
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 4, 3), np.uint8), photometric="rgb"
    )
    tifffile.imwrite(tmp_path / "b.tif", np.ones((4, 4), np.uint16))
    reader.choose_sensor(load_plugins().modality("rgb+gray"))
    layers = reader.read([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])
    assert [attributes["name"] for _, attributes, _ in layers] == [
        "a",
        "a gray [count]",
    ]
    with pytest.raises(DataError, match="rgb, gray"):
        reader.read(str(tmp_path / "a.tif"))


def test_files_of_cameras_that_are_not_aligned_are_layers_of_one_size(
    tmp_path: Path,
) -> None:
    """A bundle knows where the images of its rig lie on each other; a click marks one object in all layers."""
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 6, 3), np.uint8), photometric="rgb"
    )
    tifffile.imwrite(tmp_path / "b.tif", np.arange(6, dtype=np.uint16).reshape(2, 3))
    files = [str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    sensor = load_plugins().modality("rgb+gray")
    reader.choose_sensor(sensor)
    with pytest.raises(DataError, match="simmat align"):
        reader.read(files)
    shift = [[1, 0, -1], [0, 1, -2], [0, 0, 1]]
    alignment = {"gray": {"reference": "rgb", "matrix": shift}}
    reader.choose_sensor(with_data_card(sensor, {"alignment": alignment}))
    _, (gray, _, _) = reader.read(files)
    expected = np.full((4, 6), np.nan)
    expected[2:, 1:4] = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(gray, expected)


def test_a_damaged_file_is_refused_by_the_sensor(tmp_path: Path) -> None:
    """What it says of the file must not be lost in a second try to read frames of it."""
    (tmp_path / "a.png").write_bytes(b"no picture")
    reader.choose_sensor(load_plugins().modality("gray"))
    with pytest.raises(DataError, match=r"a\.png"):
        reader.read(str(tmp_path / "a.png"))
    assert reader.get_reader("a.docx") is None


def test_a_mask_has_the_labels_and_classes_of_the_layer(tmp_path: Path) -> None:
    """Training reads `masks/` with regions = "panoptic" as class * 1000 + number."""
    labels = np.array([[0, 1], [2, 700]], np.int32)
    write_mask(str(tmp_path / "a.png"), labels, {})
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), labels)
    features = {"index": [1, 2, 700, 9], "class": [4, 5, 4, None]}
    write_mask(str(tmp_path / "b.png"), labels, {"features": features})
    np.testing.assert_array_equal(
        read_mask(tmp_path / "b.png"), [[0, 4001], [5001, 4002]]
    )


def test_a_mask_of_frames_has_a_mask_for_each(tmp_path: Path) -> None:
    """A sequence of a data set is read as frames, its masks too."""
    labels = np.arange(24, dtype=np.int32).reshape(3, 2, 4)
    write_mask(str(tmp_path / "a.tif"), labels, {})
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif" / "0002"), labels[2])
    assert mask_path("DIR/frames/train/a.npy", [], frames=True) == str(
        Path("DIR/masks/train/a.tif")
    )
    with pytest.raises(ConfigError, match=r"\.tif"):
        write_mask(str(tmp_path / "a.png"), labels, {})


@pytest.mark.parametrize(
    ("image", "frames", "mask"),
    [
        ("frames/a.nii.gz", True, "masks/a.tif"),
        ("images/x/b_nir.png", False, "masks/x/b.png"),
        ("images/nir/b.png", False, "masks/b.png"),
        ("images/train/nir/x/b.png", False, "masks/train/x/b.png"),
        ("images/there.png", False, "masks/there.npy"),
        ("frames/2026.11.30", True, "masks/2026.11.30.tif"),
    ],
)
def test_the_mask_that_is_offered_belongs_to_the_image(
    tmp_path: Path, image: str, frames: bool, mask: str
) -> None:
    """A data set with a mask of another name, or with two masks of one image, is refused."""
    for name in ("frames/2026.11.30", "masks/there.npy"):
        (tmp_path / name).mkdir(parents=True)
    sources = [Source("nir", ("_nir.png", ".png"))]
    assert mask_path(str(tmp_path / image), sources, frames=frames) == str(
        tmp_path / mask
    )


def test_the_manifest_names_what_exists() -> None:
    """napari finds the plugin by it alone."""
    root = Path(reader.__file__).parent
    group = tomllib.loads(
        (root.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]["entry-points"]
    assert group["napari.manifest"] == {
        "napari-simmat": f"napari_simmat:{next(root.glob('*.yaml')).name}"
    }
    text = (root / "napari.yaml").read_text(encoding="utf-8")
    sensors = (
        load_plugins().modality(name) for name in load_plugins().names("modality")
    )
    endings = {
        ending
        for sensor in sensors
        for source in sensor.sources
        for ending in source.extensions
    }
    assert [ending for ending in endings if f'"*{ending}"' not in text] == []


@pytest.mark.parametrize("library", ["libLLVM.so.19.1", "libnvidia-glcore.so.570"])
def test_triton_is_hidden_where_mesa_has_loaded_llvm(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second LLVM in a process ends napari, and what was not saved is lost."""
    (tmp_path / "maps").write_text(
        f"7f00-7f01 r-xp 00000000 08:01 42 /usr/lib/{library}\n"
    )
    monkeypatch.setattr(opengl, "MAPS", tmp_path / "maps")
    monkeypatch.setattr(
        sys,
        "modules",
        {name: one for name, one in sys.modules.items() if name != "triton"},
    )
    opengl.hide_triton()
    assert ("triton" in sys.modules) == ("LLVM" in library)


class Layer:
    """The parts of napari's labels layer that are used."""

    def __init__(self, *frames: int) -> None:
        self.data = np.zeros((*frames, 8, 8), np.int32)
        self.features: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.preserve_labels = False

    def data_setitem(self, where: Any, values: Any) -> None:
        self.data[where] = values

    def save(self, path: Path) -> None:
        attributes = {"features": self.features, "metadata": self.metadata}
        write_mask(str(path), self.data, attributes)


def test_what_a_model_found_without_a_click_is_listed_in_the_data_set(
    tmp_path: Path,
) -> None:
    """Until each such object is changed or removed: a score on them would say nothing."""
    layer, path = Layer(), tmp_path / "masks/day/a.png"
    path.parent.mkdir(parents=True)
    layer.data[6:, 6:] = 1
    mask = np.ones((2, 2), np.bool_)
    windows = [Window(0, 0, 2, 2), Window(3, 3, 5, 5)]
    found = [FoundMask(window, mask, 0.9, None) for window in windows]
    added = add_objects(layer, None, found, free_only=True)
    assert added == [2, 3]
    layer.save(path)
    assert read_predicted(tmp_path) == set()  # as of clicks
    note_found(layer, None, added)
    layer.save(path)
    assert read_predicted(tmp_path) == {"day/a"}
    layer.data[0, 0] = 0
    layer.save(path)
    assert read_predicted(tmp_path) == {"day/a"}
    layer.data[layer.data == 3] = 0
    layer.save(path)
    assert read_predicted(tmp_path) == set()
    assert not (tmp_path / "predicted.csv").exists()
    note_found(layer, None, [2])
    layer.save(tmp_path / "elsewhere.png")
    assert read_predicted(tmp_path) == set()


@pytest.mark.parametrize("sequence", ["a.tif", "train/a"])
def test_frames_that_a_model_labelled_are_listed_in_the_data_set(
    tmp_path: Path, sequence: str
) -> None:
    """By the ids that the data set gives them, of a file and of a folder; frames of clicks alone are not."""
    frames = np.random.default_rng(0).integers(0, 9, (4, 8, 8)).astype(np.uint8)
    image = tmp_path / "frames" / sequence
    path = (tmp_path / "masks" / sequence).with_suffix(".tif")
    path.parent.mkdir(parents=True)
    if image.suffix:
        image.parent.mkdir(parents=True)
        tifffile.imwrite(image, frames, photometric="minisblack")
    else:
        image.mkdir(parents=True)
        for number, plane in enumerate(frames, 3):
            tifffile.imwrite(image / f"f{number}.tif", plane)
    name = sequence.removesuffix(".tif")
    gray = load_plugins().modality("gray")
    names = frame_names(str(image), gray.sources, 4)
    layer = Layer(4)
    layer.metadata[FRAMES] = names
    layer.data[0, 6:, 6:] = 1
    found = [FoundMask(Window(0, 0, 2, 2), np.ones((2, 2), np.bool_), 0.9, None)]
    for frame in (1, 2):
        note_found(layer, frame, add_objects(layer, frame, found, free_only=True))
    layer.save(path)
    assert read_predicted(tmp_path) == {f"{name}/{names[1]}", f"{name}/{names[2]}"}
    (tmp_path / "card.toml").write_text('format = 1\nregions = "instances"\n')
    dataset = open_dataset(tmp_path, gray)
    assert [one.predicted for one in dataset.samples] == [False, True, True, False]
    layer.data[1, 0, 0] = 0
    layer.save(path)
    assert read_predicted(tmp_path) == {f"{name}/{names[2]}"}


def test_frames_without_names_are_not_listed(tmp_path: Path) -> None:
    """Those of an array, or of another file than the data set has."""
    sources = load_plugins().modality("gray").sources
    assert frame_names("an array", sources, 4) == []
    planes = np.zeros((4, 8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack")
    assert frame_names(str(tmp_path / "a.tif"), sources, 3) == []
