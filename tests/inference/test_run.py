"""What `simmat predict` finds in images that are cut into windows, after a stop, and where some images fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from large_scene import EVERY, large_scene
from PIL import Image
from runs import registry

import simmat
from simmat.cli import run
from simmat.inference.window_store import WindowStore
from simmat.io.images import write_image
from simmat.predictor import Predictor
from simmat.predictor.tiles import WindowResult


@pytest.mark.plugins("geo")
def test_a_stopped_raster_continues_with_the_next_window(
    dense_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of windows must not be lost."""
    file, out = large_scene(tmp_path / "large.tif"), tmp_path / "out"
    call = [
        "predict",
        str(dense_bundle),
        str(file),
        "--semantic",
        "--everything",
        "--format",
        "labels,coco",
    ]
    whole = tmp_path / "whole"
    assert run([*call, "--out", str(whole), "--device", "cpu"]) == 0

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
    assert run([*call, "--out", str(out), "--device", "cpu"]) == 130
    assert sorted(path.name for path in out.iterdir()) == [".large.windows"]
    assert run([*call, "--out", str(out), "--device", "cpu"]) == 0
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
    assert run(call) == 0
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
        path,
        "w",
        driver="GTiff",
        width=180,
        height=150,
        count=1,
        dtype="uint8",
        crs="EPSG:32632",
        transform=place,
    ) as file:
        file.write(planes)
    return path


def _degrees(east_m: float, north_m: float) -> tuple[float, float]:
    """Longitude and latitude of a place in the coordinates of `_placed_scene`."""
    warp = pytest.importorskip("rasterio.warp")
    (longitude,), (latitude,) = warp.transform(
        "EPSG:32632", "EPSG:4326", [east_m], [north_m]
    )
    return longitude, latitude


@pytest.mark.plugins("geo")
def test_prompts_in_map_coordinates_mark_pixels_of_a_raster(
    dense_bundle: Path, tmp_path: Path
) -> None:
    """People of a GIS know places, not pixels."""
    pytest.importorskip("simmat_plugin_geo")
    file, (longitude, latitude) = (
        _placed_scene(tmp_path / "scene.tif"),
        _degrees(500_905, 5_499_295),
    )
    call = [
        "predict",
        str(dense_bundle),
        str(file),
        "--device",
        "cpu",
        "--crs",
        "EPSG:4326",
    ]
    assert (
        run(
            [
                *call,
                "--point",
                f"{longitude},{latitude}",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    record = json.loads((tmp_path / "out/scene.json").read_text())
    (prompt,) = record["prompts"]
    assert prompt["point_coords_xy"][0] == pytest.approx([90, 70], abs=0.01)
    assert sorted(record["written"]) == [
        "scene.json",
        "scene_objects.tif",
        "scene_overlay.png",
    ]


@pytest.mark.plugins("geo")
def test_a_folder_is_continued_and_a_bad_file_stops_no_other(
    dense_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """5,000 images take hours, and one of them is damaged."""
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for name in "ac":
        large_scene(folder / f"{name}.tif", (40, 60))
    (folder / "b.tif").write_bytes(b"II*\0 half")
    call = [
        "predict",
        str(dense_bundle),
        str(folder),
        "--everything",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert run(call) == 2
    shown = capsys.readouterr()
    assert "b.tif" in shown.err
    assert "1 of 3" in shown.err
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 2
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("?_*")}
    large_scene(folder / "b.tif", (40, 60))
    assert run(call) == 0
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
    file = large_scene(tmp_path / "scene.tif", (40, 60))
    assert (
        run(
            [
                "predict",
                str(dense_bundle),
                str(file),
                *options,
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert named in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.plugins
def test_an_image_without_a_measurement_leaves_nothing_behind(
    dense_bundle: Path, tmp_path: Path
) -> None:
    """Its windows would be kept for a second call that fails alike."""
    image = tmp_path / "a.tif"
    write_image(image, np.full((1, 150, 180), np.nan, np.float32))
    call = ["predict", str(dense_bundle), str(image), "--semantic"]
    assert run([*call, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert not list((tmp_path / "out").glob("*")) + list((tmp_path / "out").glob(".*"))


@pytest.fixture
def model(dense_bundle: Path) -> Predictor:
    """The bundle's predictor."""
    return simmat.load(dense_bundle, device="cpu", registry=registry())


def test_an_answer_survives_its_file(model: Predictor, tmp_path: Path) -> None:
    """A run that was stopped goes on from files."""
    image = model.open_image(large_scene(tmp_path / "large.tif"))
    answer = image.segment_window(image.windows[1], EVERY, semantic=True)
    store = WindowStore(tmp_path, "photo", "key")
    assert not store.has(1)
    store.write(1, answer)
    assert store.has(1)
    again = WindowStore(tmp_path, "photo", "key").read(1)
    assert again is not None
    assert [one.instance.window for one in again.objects] == [
        one.instance.window for one in answer.objects
    ]
    assert all(
        (a.instance.crop == b.instance.crop).all()
        for a, b in zip(again.objects, answer.objects, strict=True)
    )
    assert answer.probabilities is not None
    np.testing.assert_allclose(again.probabilities, answer.probabilities, atol=1 / 500)
    assert not WindowStore(tmp_path, "photo", "another").has(1)
    # as after a power cut
    (store.folder / "000001.npz").write_bytes(b"PK\x03\x04 half")
    assert store.read(1) is None
