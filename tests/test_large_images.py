"""Images that are too large for one look: windows give what the whole gives, in memory, from files and after a stop."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import registry

import simmat
from simmat.cli import run as run_command
from simmat.drawing.display import display_rgb
from simmat.inference.window_store import WindowStore
from simmat.io.images import write_image
from simmat.model import Parts
from simmat.predictor import Predictor, ZeroShotPredictor
from simmat.predictor.objects import EverythingSettings
from simmat.predictor.results import picture_of
from simmat.predictor.tiles import SegmentOptions, WindowResult
from simmat.types import Prompt, SensorImage, Window

EVERY = EverythingSettings(peak=0.0, min_score=0.0, objectness=0.0)


@pytest.fixture
def model(dense_bundle: Path) -> Predictor:
    """The bundle's predictor."""
    return simmat.load(dense_bundle, device="cpu", registry=registry())


def _scene(path: Path, size_hw: tuple[int, int] = (150, 180)) -> Path:
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 50, (1, *size_hw)).astype(np.uint8)
    for y, x in rng.integers(5, 130, (12, 2)):
        planes[0, y : y + 12, x : x + 12] += 120
    write_image(path, planes)
    return path


def test_a_model_that_is_still_trained_cuts_images_as_its_bundle_will(model: Predictor) -> None:
    """Else validation chooses by windows of another resolution than those of the result."""
    training_model = Predictor(model.model, model.pipeline, image_side=model.image_side)
    assert training_model.tile_size((1000, 1000)) == model.tile_size((1000, 1000))
    assert Predictor(model.model, model.pipeline).tile_size((1000, 1000)) == model.pipeline.size


def test_an_image_that_fits_is_one_window(model: Predictor, tmp_path: Path) -> None:
    """Then the result is that of the whole image."""
    file = _scene(tmp_path / "small.tif", (40, 60))
    image = model.open_image(file)
    assert image.windows == [(0, 0, 40, 60)]
    model.set_image(file)
    assert [one.instance.window for one in image.segment_everything(EVERY)] == [
        one.instance.window for one in model.segment_everything(EVERY)
    ]
    assert (image.segment_semantic().labels == model.segment_semantic().labels).all()


def test_windows_are_encoded_once_for_objects_and_classes(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation asks for both, and encoding is most of its time."""
    image = model.open_image(_scene(tmp_path / "large.tif", (100, 120)))
    encoded, real = [], model.encode
    monkeypatch.setattr(model, "encode", lambda *given: encoded.append(1) or real(*given))
    found = [image.segment_everything(EVERY), image.segment_semantic().labels]
    assert len(encoded) == len(image.windows) > 1
    fresh = model.open_image(tmp_path / "large.tif")
    assert (fresh.segment_semantic().labels == found[1]).all()


def test_a_large_image_is_cut_at_the_resolution_of_training(model: Predictor, tmp_path: Path) -> None:
    """Windows see what the network was trained on."""
    image = model.open_image(_scene(tmp_path / "large.tif"))
    assert model.bundle is not None
    assert image.tile == model.bundle.spec.image_side == 56
    assert len(image.windows) > 4
    assert not model.shrink_warning(image)
    assert "64" in model.shrink_warning(model.open_image(tmp_path / "large.tif", tile=128))


def test_an_image_as_large_as_those_of_training_is_not_cut(model: Predictor, tmp_path: Path) -> None:
    """Its parts would be magnified as no training image was, and objects cut in two: most were missed."""
    trained = Predictor(model.model, model.pipeline, image_side=90)
    image = trained.open_image(_scene(tmp_path / "image.tif", (75, 90)))
    assert (image.windows, trained.shrink_warning(image)) == ([(0, 0, 75, 90)], "")
    assert trained.open_image(_scene(tmp_path / "larger.tif", (75, 100))).tile == 90


def test_windows_from_a_file_and_from_memory_agree(model: Predictor, tmp_path: Path) -> None:
    """How an image is read does not change what is found in it."""
    file = _scene(tmp_path / "large.tif")
    image = model.open_image(file)
    loaded = model.set_image(file)
    assert type(image.reader).__name__ == "FileImage"
    assert loaded.size_hw == image.reader.size_hw == (150, 180)
    found, again = image.segment_everything(EVERY), model.segment_everything(EVERY)
    assert [(one.instance.window, one.score) for one in found] == [(one.instance.window, one.score) for one in again]
    assert (image.segment_semantic().labels == model.segment_semantic().labels).all()


def test_a_picture_holds_only_the_planes_and_pixels_that_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overlay of a scene with hundreds of bands took gigabytes."""
    monkeypatch.setattr("simmat.predictor.results._PICTURE_PX", 100)
    monkeypatch.setattr("simmat.predictor.results._PART_PX", 32)
    known, planes = registry(), np.random.default_rng(0).random((40, 301, 250), np.float32)
    np.save(tmp_path / "scene.npy", planes)
    parts = Parts(known.foundation("tiny"), known.transfer_layer("zeroshot"), known.tuner("frozen"), None)
    untuned = ZeroShotPredictor(parts, known.modality("raster"), 32, torch.device("cpu"))
    image = untuned.open_image(tmp_path / "scene.npy")
    tracemalloc.start()
    shown = picture_of(image.reader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    small = SensorImage.from_planes(planes[:, ::4, ::4], image.reader.read(Window(0, 0, 1, 1)).channels, origin="")
    assert (shown == display_rgb(small)).all()
    assert peak < planes.nbytes / 8


def test_what_is_in_view_is_found_without_the_rest_and_can_be_stopped(model: Predictor, tmp_path: Path) -> None:
    """In the annotator nobody waits for a scene of which one corner is looked at."""
    image, box, done = model.open_image(_scene(tmp_path / "large.tif")), Window(0, 0, 40, 40), list[int]()
    seen = image.segment_everything(EVERY, box=box, progress=done.append)
    assert done == list(range(1, len(image.windows_in(box)) + 1))
    assert len(done) < len(image.windows)
    assert seen
    assert all(one.instance.window[0] < 40 and one.instance.window[1] < 40 for one in seen)

    class StoppedError(Exception):
        pass

    def stop(count: int) -> None:
        raise StoppedError(count)

    with pytest.raises(StoppedError, match="1"):
        image.segment_everything(EVERY, progress=stop)


def test_a_click_works_in_a_window_around_it(model: Predictor, tmp_path: Path) -> None:
    """The mask has the size of the image, and pixels where the click is near."""
    model.set_image(_scene(tmp_path / "large.tif"))
    found = model.predict([(150, 120)])
    assert found.mask.shape == (150, 180)
    local = model.open_image(tmp_path / "large.tif").predict(Prompt.points([(150, 120)]))
    assert (local.mask == found.mask[local.window.slices]).all()
    assert found.mask.sum() == local.mask.sum()
    assert local.window.y0 <= 120 < local.window.y1
    assert local.window.x0 <= 150 < local.window.x1


def test_an_answer_survives_its_file(model: Predictor, tmp_path: Path) -> None:
    """A run that was stopped goes on from files."""
    image = model.open_image(_scene(tmp_path / "large.tif"))
    wanted = SegmentOptions(EVERY, classes=True)
    answer = model.segment_window(image, image.windows[1], wanted)
    store = WindowStore(tmp_path / "store", "key")
    assert not store.has(1)
    store.write(1, answer)
    assert store.has(1)
    again = WindowStore(tmp_path / "store", "key").read(1)
    assert again is not None
    assert [one.instance.window for one in again.objects] == [one.instance.window for one in answer.objects]
    assert all((a.instance.crop == b.instance.crop).all() for a, b in zip(again.objects, answer.objects, strict=True))
    assert answer.probabilities is not None
    np.testing.assert_allclose(again.probabilities, answer.probabilities, atol=1 / 500)
    assert not WindowStore(tmp_path / "store", "another").has(1)
    (store.folder / "000001.npz").write_bytes(b"PK\x03\x04 half")  # as after a power cut
    assert store.read(1) is None


@pytest.mark.plugins("geo")
def test_a_stopped_raster_continues_with_the_next_window(
    dense_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of windows must not be lost."""
    file, out = _scene(tmp_path / "large.tif"), tmp_path / "out"
    call = ["predict", str(dense_bundle), str(file), "--semantic", "--everything", "--format", "labels,coco"]
    whole = tmp_path / "whole"
    assert run_command([*call, "--out", str(whole), "--device", "cpu"]) == 0

    asked: list[int] = []
    stops = [3]
    write = WindowStore.write

    def stop(self: WindowStore, index: int, answer: WindowResult) -> WindowResult:
        if index in stops:
            stops.remove(index)
            raise KeyboardInterrupt
        asked.append(index)
        return write(self, index, answer)

    monkeypatch.setattr(WindowStore, "write", stop)
    assert run_command([*call, "--out", str(out), "--device", "cpu"]) == 130
    assert sorted(path.name for path in out.iterdir()) == [".large.windows"]
    assert run_command([*call, "--out", str(out), "--device", "cpu"]) == 0
    assert asked[:4] == [0, 1, 2, 3]
    assert len(asked) == len(set(asked))
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    assert "large_objects.png" in names
    for name in names:
        if name.endswith(".png"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.plugins("geo")
def test_windows_without_a_measurement_are_skipped_and_counted(
    dense_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scenes have wide borders of nodata, which hold nothing to find."""
    planes = np.random.default_rng(0).random((1, 150, 180)).astype(np.float32) * 100
    planes[:, :, :100] = np.nan
    write_image(tmp_path / "border.tif", planes)
    out = tmp_path / "out"
    call = [
        "predict",
        str(dense_bundle),
        str(tmp_path / "border.tif"),
        "--semantic",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert run_command(call) == 0
    record = json.loads((out / "border.json").read_text())
    assert 0 < record["windows"]["without_measurement"] < record["windows"]["count"]
    assert "without a measurement" in capsys.readouterr().out
    labels = np.asarray(Image.open(out / "border_classes.png"))
    assert (labels[:, :100] == 255).all()
    assert (labels[:, 101:] != 255).all()


def _placed_scene(path: Path) -> Path:
    rasterio = pytest.importorskip("rasterio")
    rng = np.random.default_rng(1)
    planes = rng.integers(0, 200, (1, 150, 180)).astype(np.uint8)
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_500_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=180, height=150, count=1, dtype="uint8", crs="EPSG:32632", transform=place
    ) as file:
        file.write(planes)
    return path


def _degrees(east_m: float, north_m: float) -> tuple[float, float]:
    """Longitude and latitude of a place in the coordinates of `_placed_scene`."""
    warp = pytest.importorskip("rasterio.warp")
    (longitude,), (latitude,) = warp.transform("EPSG:32632", "EPSG:4326", [east_m], [north_m])
    return longitude, latitude


@pytest.mark.plugins("geo")
def test_prompts_in_map_coordinates_mark_pixels_of_a_raster(dense_bundle: Path, tmp_path: Path) -> None:
    """People of a GIS know places, not pixels."""
    pytest.importorskip("simmat_plugin_geo")
    file, (longitude, latitude) = _placed_scene(tmp_path / "scene.tif"), _degrees(500_905, 5_499_295)
    call = ["predict", str(dense_bundle), str(file), "--device", "cpu", "--crs", "EPSG:4326"]
    assert run_command([*call, "--point", f"{longitude},{latitude}", "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out/scene.json").read_text())
    (prompt,) = record["prompts"]
    assert prompt["point_coords_xy"][0] == pytest.approx([90, 70], abs=0.01)
    assert sorted(record["written"]) == ["scene.json", "scene_objects.tif", "scene_overlay.png"]


def test_a_click_on_an_image_in_windows_gives_the_files_of_a_small_image(
    dense_bundle: Path, model: Predictor, tmp_path: Path
) -> None:
    """Who clicks on a photograph expects its mask and a picture, whatever the size of the network's input."""
    file, out = _scene(tmp_path / "photo.tif"), tmp_path / "out"
    call = ["predict", str(dense_bundle), str(file), "--device", "cpu", "--point", "90,70", "--out", str(out)]
    assert run_command(call) == 0
    assert {path.name for path in out.iterdir()} == {"photo.json", "photo_mask.png", "photo_overlay.png"}
    mask = np.asarray(Image.open(out / "photo_mask.png")) > 0
    found = model.open_image(file).predict(Prompt(np.asarray([[90, 70]], np.float32), np.asarray([1])))
    assert mask.shape == (150, 180)
    assert mask.sum() == found.mask.sum()
    assert (mask[found.window.slices] == found.mask).all()


@pytest.mark.plugins("geo")
def test_a_folder_is_continued_and_a_bad_file_stops_no_other(
    dense_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """5,000 images take hours, and one of them is damaged."""
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for name in "ac":
        _scene(folder / f"{name}.tif", (40, 60))
    (folder / "b.tif").write_bytes(b"II*\0 half")
    call = ["predict", str(dense_bundle), str(folder), "--everything", "--out", str(out), "--device", "cpu"]
    assert run_command(call) == 2
    shown = capsys.readouterr()
    assert "b.tif" in shown.err
    assert "1 of 3" in shown.err
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 2
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("?_*")}
    _scene(folder / "b.tif", (40, 60))
    assert run_command(call) == 0
    assert "2 of 3" in capsys.readouterr().err
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 3
    assert all((out / name).stat().st_mtime_ns == time for name, time in times.items())


@pytest.mark.plugins("geo")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--everything", "--point", "3,4"], "--point"),
        (["--semantic", "--format", "coco"], "coco"),
        (["--everything", "--format", "jpeg"], "jpeg"),
        (["--everything", "--classes", "cat"], "--classes"),
        (["--point", "3,4", "--min-area", "4"], "--min-area"),
        (["--everything", "--tile", "32", "--overlap", "32"], "--overlap"),
        (["--everything", "--format", "geotiff"], "georeference"),
        (["--everything", "--executor", "udp://somewhere"], "tcp://HOST:PORT"),
    ],
)
def test_contradicting_options_are_refused_before_any_work(
    dense_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    named: str,
) -> None:
    """An hour later is too late to learn of it."""
    file = _scene(tmp_path / "scene.tif", (40, 60))
    assert run_command(["predict", str(dense_bundle), str(file), *options, "--out", str(tmp_path / "out")]) == 2
    assert named in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))
