"""What `simmat predict` finds in images that are cut into windows, after a stop, and where some images fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from large_scene import large_scene
from PIL import Image
from runs import registry

import simmat
from simmat.cli import run
from simmat.cli.predict import joint_error
from simmat.errors import DataError, OutputError
from simmat.inference import ImageOutcome, Progress
from simmat.inference import run as run_module
from simmat.inference.images import ImageTask
from simmat.inference.window_store import WindowStore
from simmat.io.images import write_image
from simmat.model_spec import DenseSpec
from simmat.predictor import Predictor
from simmat.predictor.tiles import WindowResult
from simmat.types import Prompt


@pytest.fixture
def model(dense_bundle: Path) -> Predictor:
    """The bundle's predictor."""
    return simmat.load(dense_bundle, device="cpu", registry=registry())


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


def test_a_click_on_an_image_in_windows_gives_the_files_of_a_small_image(
    dense_bundle: Path, model: Predictor, tmp_path: Path
) -> None:
    """Who clicks on a photograph expects its mask and a picture, whatever the size of the network's input."""
    file, out = large_scene(tmp_path / "photo.tif"), tmp_path / "out"
    call = [
        "predict",
        str(dense_bundle),
        str(file),
        "--device",
        "cpu",
        "--point",
        "90,70",
        "--out",
        str(out),
    ]
    assert run(call) == 0
    assert {path.name for path in out.iterdir()} == {
        "photo.json",
        "photo_mask.png",
        "photo_overlay.png",
    }
    mask = np.asarray(Image.open(out / "photo_mask.png")) > 0
    found = model.open_image(file).predict(
        Prompt(np.asarray([[90, 70]], np.float32), np.asarray([1]))
    )
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


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both heads, as it is before training; its input has 32 pixels a side."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return tiny_bundle(
        tmp_path_factory.mktemp("prompts") / "bundle", dense=dense, image_size=32
    )


def _predict(bundle: Path, image: Path, out: Path, *options: str) -> int:
    return run(
        [
            "predict",
            str(bundle),
            str(image),
            *options,
            "--out",
            str(out),
            "--device",
            "cpu",
        ]
    )


@pytest.mark.plugins
def test_large_images_with_prompts_are_skipped_when_done(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their objects are written together, under the name of the image."""
    for name in "ab":
        large_scene(tmp_path / f"{name}.tif")
    rows = "".join(
        f'{file}.tif,o{n},"{20 + n},30"\n' for file in "ab" for n in range(2)
    )
    (tmp_path / "prompts.csv").write_text("file,object,point\n" + rows)
    call = [
        "predict",
        str(small_bundle),
        "--prompts",
        str(tmp_path / "prompts.csv"),
        "--tile",
        "64",
        "--device",
        "cpu",
    ]
    call += ["--format", "labels"]
    assert run([*call, "--out", str(tmp_path / "out")]) == 0
    assert [
        one["object"]
        for one in json.loads((tmp_path / "out/a.json").read_text())["prompts"]
    ] == ["a_o0", "a_o1"]
    assert run([*call, "--out", str(tmp_path / "out")]) == 0
    assert "2 of 2 images were done" in capsys.readouterr().err


@pytest.mark.plugins
def test_an_image_without_a_measurement_leaves_nothing_behind(
    small_bundle: Path, tmp_path: Path
) -> None:
    """Its windows would be kept for a second call that fails alike."""
    image = tmp_path / "a.tif"
    write_image(image, np.full((1, 150, 180), np.nan, np.float32))
    assert _predict(small_bundle, image, tmp_path / "out", "--semantic") == 2
    assert not list((tmp_path / "out").glob("*")) + list((tmp_path / "out").glob(".*"))


class Said(Progress):
    """Keeps what a call tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)

    def image(self, outcome: ImageOutcome) -> None:
        """Keep its name."""
        self.done.append(outcome.name)


@pytest.fixture
def predict_abc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[ImageOutcome]]:
    """Return what predicts the images a, b and c, and does with each of them what a test says."""
    bundle = tiny_bundle(tmp_path / "bundle")
    for name in "abc":
        Image.fromarray(np.full((40, 56), 60, np.uint8)).save(tmp_path / f"{name}.png")

    def call(said: Said, **actions: Callable[[], object]) -> list[ImageOutcome]:
        def segment(
            predictor: object,
            request: object,
            writer: object,
            task: ImageTask,
            *_: object,
        ) -> ImageOutcome:
            actions.get(task.name, bool)()
            return ImageOutcome(task.name)

        monkeypatch.setattr(run_module, "segment_image", segment)
        files = [tmp_path / f"{name}.png" for name in "abc"]
        return simmat.predict(
            bundle,
            files,
            out=tmp_path / "out",
            progress=said,
            points=[(3, 4)],
            device="cpu",
        )

    return call


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.plugins
def test_what_fails_is_reported_in_order(
    predict_abc: Callable[..., list[ImageOutcome]],
) -> None:
    """A user goes through the list of files from the top."""
    bad, damaged = DataError("a.tif: bad"), DataError("b.tif: damaged")
    outcomes = predict_abc(Said(), a=partial(_raise, bad), b=partial(_raise, damaged))
    assert [one.error for one in outcomes] == [bad, damaged, None]
    text = str(joint_error(outcomes, Path("out")))
    assert text.index("2 of 3") < text.index("a.tif") < text.index("b.tif")


@pytest.mark.plugins
def test_a_call_that_is_stopped_says_what_is_done(
    predict_abc: Callable[..., list[ImageOutcome]],
) -> None:
    """A later call skips it."""
    said = Said()
    with pytest.raises(KeyboardInterrupt):
        predict_abc(said, b=partial(_raise, KeyboardInterrupt()))
    assert said.done == ["a"]
    assert "1 of 3 images are done" in said.notes[-1]


@pytest.mark.plugins
def test_a_full_disk_stops_the_call(
    predict_abc: Callable[..., list[ImageOutcome]],
) -> None:
    """The images after it could not be written either."""
    said = Said()
    with pytest.raises(OutputError, match="disk full"):
        predict_abc(said, a=partial(_raise, OutputError("disk full")))
    assert said.done == []
