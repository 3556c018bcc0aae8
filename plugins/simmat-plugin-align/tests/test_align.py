"""`simmat align` finds where a second camera looks, and training and prediction use it."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from simmat_plugin_align.align import Aligned, kept_matrices, moved_px, write_matrices
from simmat_plugin_align.features import Picture
from simmat_plugin_align.pairs import open_rig, write_alignments
from simmat_plugin_align.registration import turned_a_quarter

from simmat.cli import run as run_command
from simmat.cli.options import load_registry
from simmat.data.card import load_card
from simmat.data.dataset import open_dataset
from simmat.errors import ConfigError, DataError
from simmat.io.images import read_image, write_image
from simmat.sensors.sensor_toml import read_sensor
from simmat.sensors.warp import Alignment, Warp
from simmat.types import Channel, SensorImage, Window

TRUE = np.array([[0.52, -0.02, 3.0], [0.015, 0.51, -2.0], [0.0, 0.0, 1.0]])
"""From pixels of the colour picture to those of the thermal image, of half the resolution."""


class Result(NamedTuple):
    """What a command returned and printed."""

    exit_code: int
    stdout: str
    output: str


def run(*arguments: object) -> Result:
    """Call the command line."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command([str(one) for one in arguments])
    return Result(code, out.getvalue(), out.getvalue() + err.getvalue())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulate scenes, and write the thermal images as another camera sees them."""
    root = tmp_path_factory.mktemp("rig") / "data"
    made = run(
        *("data", "simulate", "--modality", "rgb+thermal", "--out", root),
        *("--count", 5, "--size", 256, 192),
    )
    assert made.exit_code == 0, made.output
    for file in (root / "images/thermal").iterdir():
        planes = read_image(file).planes.astype(np.float32)
        image = SensorImage.from_planes(planes, (Channel("t", "counts", "count"),))
        warp = Warp(np.linalg.inv(TRUE), image.size_hw)
        seen = warp(image, Window(0, 0, 96, 128), Window(0, 0, *image.size_hw), [True])
        middle = float(seen.data[seen.valid].mean())
        values = np.where(seen.valid, seen.data, middle).round().astype(np.uint16)
        write_image(file, values, description=read_image(file).description)
    return root


@pytest.fixture
def data(rig: Path, tmp_path: Path) -> Path:
    """Return a copy of the rig's folder, to write to."""
    return Path(shutil.copytree(rig, tmp_path / "data"))


def corner_error_px(matrix: object) -> float:
    """Return the mean distance of the corners, in thermal pixels."""
    corners = np.array([[0, 0, 1], [255, 0, 1], [0, 191, 1], [255, 191, 1]]).T
    found, true = np.asarray(matrix) @ corners, TRUE @ corners
    return float(np.hypot(*(found[:2] / found[2] - true[:2] / true[2])).mean())


def write_noise(file: Path) -> None:
    """Replace a thermal image by noise."""
    rng = np.random.default_rng([*file.stem.encode()])
    noise = rng.integers(28000, 31000, (1, 96, 128)).astype(np.uint16)
    write_image(file, noise, description=read_image(file).description)


def test_a_rig_is_aligned_and_then_trained_and_predicted(data: Path) -> None:
    """Sizes that differ are refused before, and are no error after."""
    run_folder = data.parent / "run"
    training = (
        *("train", "--modality", "rgb+thermal", "--data", data, "--out", run_folder),
        *("--foundation", "tiny", "--steps", 1, "--image-size", 64),
        *("--batch-size", 2, "--device", "cpu", "--no-pictures"),
    )
    before = run(*training)
    assert before.exit_code == 2
    assert "simmat align" in before.output
    found = run("align", data, "--modality", "rgb+thermal", "--pairs", 3, "--json")
    assert found.exit_code == 0, found.output
    thermal = json.loads(found.stdout)["sources"]["thermal"]
    assert corner_error_px(thermal["matrix"]) < 2
    stated = load_card(data, {}).alignment["thermal"]
    assert stated.reference_size == (256, 192)
    assert np.asarray(stated.matrix).tolist() == thermal["matrix"]
    page = (data / "alignment.html").read_text()
    assert "checkerboard" in page
    assert "http" not in page
    trained = run(*training)
    assert trained.exit_code == 0, trained.output
    name = sorted((data / "images/rgb").iterdir())[0].stem
    sources = []
    for source in ("rgb", "thermal"):
        file = next((data / "images" / source).glob(f"{name}.*"))
        sources += ["--source", f"{source}={file}"]
    bundle = run_folder / "bundle.safetensors"
    out = data.parent / "out"
    predicted = run(
        "predict",
        bundle,
        *sources,
        "--point",
        "128,96",
        "--out",
        out,
        "--device",
        "cpu",
    )
    assert predicted.exit_code == 0, predicted.output
    assert read_image(next(out.glob("*mask*.png"))).planes.shape == (1, 192, 256)


def test_each_pair_may_have_its_own(data: Path) -> None:
    """A pair that has nothing in common is named, and gets no matrix; the others keep theirs."""
    manifest = data / "manifest.csv"
    lines = manifest.read_text().splitlines()
    rows = [line for line in lines[1:] if "test" not in line.split(",")]
    manifest.write_text("\n".join([lines[0], *rows[:2]]) + "\n")
    bad = next((data / "images/thermal").glob(f"{rows[1].partition(',')[0]}.*"))
    write_noise(bad)
    found = run("align", data, "--modality", "rgb+thermal", "--each", "--json")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)["sources"]["thermal"]
    assert document["failed"] == [bad.stem]
    errors = [corner_error_px(one) for one in document["matrices"].values()]
    assert max(errors) < 4
    assert document["doubtful"] == []
    assert document["residuals_px"].keys() == document["matrices"].keys()
    assert max(document["residuals_px"].values()) < 0.015 * 256
    beside = json.loads((data / "images/thermal/alignment.json").read_text())
    assert len(beside["matrices"]) == 1
    assert bad.name not in beside["matrices"]
    assert load_card(data, {}).alignment["thermal"].matrix is None
    by_hand = np.eye(3).tolist()
    beside["matrices"][bad.name] = by_hand
    (data / "images/thermal/alignment.json").write_text(json.dumps(beside))
    assert run("align", data, "--modality", "rgb+thermal", "--each").exit_code == 0
    again = json.loads((data / "images/thermal/alignment.json").read_text())
    assert again["matrices"].keys() == beside["matrices"].keys()
    assert again["matrices"][bad.name] == by_hand


@pytest.mark.parametrize("link", ["images", "images/thermal"])
def test_no_matrix_is_written_through_a_link_out_of_the_folder(
    data: Path, tmp_path_factory: pytest.TempPathFactory, link: str
) -> None:
    """A folder of someone else may lead anywhere; the refusal comes before the pairs are read."""
    outside = tmp_path_factory.mktemp("outside") / "moved"
    (data / link).rename(outside)
    (data / link).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    found = run("align", data, "--modality", "rgb+thermal", "--each")
    assert found.exit_code == 2
    assert "leads out of" in found.output
    assert "pairs" not in found.output
    assert sorted(outside.rglob("*")) == before
    assert not (data / "alignment.html").exists()


def test_nothing_in_common_is_refused(data: Path) -> None:
    """Noise has edges, too; nothing is written."""
    for file in (data / "images/thermal").iterdir():
        write_noise(file)
    card = (data / "card.toml").read_text()
    refused = run("align", data, "--modality", "rgb+thermal", "--pairs", 1)
    assert refused.exit_code == 2
    assert "nothing to align by" in refused.output
    assert (data / "card.toml").read_text() == card
    assert not (data / "alignment.html").exists()


def test_a_turned_camera_is_named(data: Path) -> None:
    """A mirror or an upside-down mount is repaired in the files, not by a matrix."""
    for file in (data / "images/thermal").iterdir():
        stored = read_image(file)
        turned = np.ascontiguousarray(np.flip(stored.planes, 2))
        write_image(file, turned, description=stored.description)
    refused = run("align", data, "--modality", "rgb+thermal", "--pairs", 1)
    assert refused.exit_code == 2
    assert "left to right" in refused.output


def test_a_quarter_turn_turns_values_and_sizes() -> None:
    """To the left, the last column becomes the first row."""
    planes = np.arange(6.0, dtype=np.float32).reshape(1, 2, 3)
    image = Picture(planes, planes[0] > 0, (20, 30))
    turned = dict(turned_a_quarter([(image, image)]))
    ((first, second),) = turned["turned by 90 degrees to the left"]
    assert first is image
    assert second.planes[0].tolist() == [[2, 5], [1, 4], [0, 3]]
    assert second.valid.tolist() == [[True, True], [True, True], [False, True]]
    assert second.size_hw == (30, 20)
    ((_, second),) = turned["turned by 90 degrees to the right"]
    assert second.planes[0].tolist() == [[3, 0], [4, 1], [5, 2]]


def test_the_options_of_the_sensors_stay_with_the_alignment(data: Path) -> None:
    """Without them the next command would read the files in another unit, or not at all."""
    before = (data / "card.toml").read_text()
    for file in (data / "images/thermal").iterdir():
        write_image(file, read_image(file).planes)
    registry = load_registry()
    rig = open_rig(data, registry.modality("rgb+thermal", {"thermal.unit": "cK"}))
    fields = {"reference": "rgb", "matrix": TRUE.tolist()}
    write_alignments(data, {"thermal": fields}, rig.options)
    assert load_card(data, {}).modality_options == {"thermal": {"unit": "cK"}}
    assert (data / "card.toml").read_text().startswith(before.rstrip())
    sensor = open_dataset(data, registry.modality("rgb+thermal")).adapter
    image = sensor.load(rig.samples[0].files)
    assert image.channels[-1].unit == "K"
    with pytest.raises(ConfigError, match="unit=cK"):
        open_rig(data, registry.modality("rgb+thermal", {"thermal.unit": "K"}))


def test_a_page_that_cannot_be_written_is_said_before_the_search(data: Path) -> None:
    """Nothing is written then."""
    before = (data / "card.toml").read_text()
    found = run("align", data, "--modality", "rgb+thermal", "--page", data / "images")
    assert found.exit_code == 2
    assert "is a folder" in found.output
    assert (data / "card.toml").read_text() == before


def test_another_reference_replaces_the_alignment(data: Path) -> None:
    """A card with two references would be refused by every command."""
    fields = {"reference": "rgb", "matrix": TRUE.tolist()}
    write_alignments(data, {"thermal": fields})
    back = {"reference": "thermal", "matrix": np.linalg.inv(TRUE).tolist()}
    write_alignments(data, {"rgb": back})
    assert list(load_card(data, {}).alignment) == ["rgb"]
    write_alignments(data, {"depth": back})
    open_rig(data, load_registry().modality("thermal+rgb"))
    with pytest.raises(ConfigError, match=r"aligns depth with thermal.*remove"):
        open_rig(data, load_registry().modality("rgb+thermal"))


def test_one_sensor_or_a_missing_source_is_refused(data: Path) -> None:
    """There must be something to align."""
    one = run("align", data, "--modality", "rgb")
    assert one.exit_code == 2
    assert "rgb+thermal" in one.output
    next((data / "images/thermal").iterdir()).unlink()
    missing = run("align", data, "--modality", "rgb+thermal")
    assert missing.exit_code == 2
    assert "thermal" in missing.output
    assert "alignment" not in (data / "card.toml").read_text()


def test_single_pairs_that_disagree_with_themselves_are_named(data: Path) -> None:
    """One pair leaves more open than many: what the search found, fine edges must confirm."""
    rig = open_rig(data, load_registry().modality("rgb+thermal"))
    first, second = (sample.id for sample in rig.samples[:2])
    moved = TRUE @ [[1, 0, 8.0], [0, 1, 0], [0, 0, 1]]
    blank = Picture(np.zeros((1, 192, 256)), np.ones((192, 256), bool), (192, 256))
    residual = moved_px((blank, blank), moved, TRUE)
    assert residual == pytest.approx(8)
    found = Aligned(
        rig,
        rig.cameras[1],
        "a matrix for each pair",
        {first: TRUE, second: TRUE},
        None,
        ((192, 256), (96, 128)),
        {first: 1.0, second: residual},
        (),
        (),
    )
    assert found.doubtful == [second]
    assert "1 of 2 pairs are doubtful" in found.text()
    assert second in found.text()
    assert found.document()["doubtful"] == [second]
    together = replace(found, shared=TRUE)
    assert together.doubtful == []
    assert "doubtful" not in together.text()


def test_the_matrices_of_several_bands_are_in_one_file(tmp_path: Path) -> None:
    """Files per band are side by side, so their matrices are, too."""
    lines = ["format = 1", 'name = "rig"']
    for number in (1, 2, 3):
        lines += ["[[source]]", f'name = "b{number}"', f'files = "*_{number}.npy"']
        lines += ["[[channel]]", f'name = "b{number}"', f'source = "b{number}"']
        lines += ['quantity = "counts"', 'unit = "count"']
        (tmp_path / "images").mkdir(exist_ok=True)
        np.save(tmp_path / f"images/a_{number}.npy", np.zeros((6, 8), np.uint8))
    (tmp_path / "rig.toml").write_text("\n".join(lines))
    rig = open_rig(tmp_path, read_sensor(tmp_path / "rig.toml"))
    assert [camera.source for camera in rig.cameras] == ["b1", "b2", "b3"]
    found = []
    for camera in rig.cameras[1:]:
        sizes = ((6, 8), (6, 8))
        each = Aligned(rig, camera, "each", {"a": TRUE}, None, sizes, {}, (), ())
        found.append(each)
    write_matrices(found, kept_matrices(rig))
    matrices = json.loads((tmp_path / "images/alignment.json").read_text())["matrices"]
    assert matrices == {"a_2.npy": TRUE.tolist(), "a_3.npy": TRUE.tolist()}
    other = replace(
        found[0], matrices={}
    )  # its pair was refused, and a user writes the matrix
    by_hand = (np.diag([2.0, 2.0, 1.0])).tolist()
    matrices = {**matrices, "a_2.npy": by_hand, "of a test image.npy": by_hand}
    beside = tmp_path / "images/alignment.json"
    beside.write_text(json.dumps({"format": 1, "matrices": matrices}))
    write_matrices([other, found[1]], kept_matrices(rig))
    assert json.loads(beside.read_text())["matrices"] == matrices
    before = {"b2": Alignment(reference="b3", version="1")}
    kept = kept_matrices(replace(rig, before=before))[tmp_path / "images"]
    assert "a_2.npy" not in kept  # it was for the grid of another camera
    assert kept["of a test image.npy"]
    beside.write_text('{"format": 1, "matrices": {"a_2.npy": 3}}')
    with pytest.raises(ConfigError, match=r"alignment\.json"):
        kept_matrices(rig)
    beside.unlink()
    (tmp_path / "images/a_3.npy").unlink()
    with pytest.raises(DataError, match="'b3'"):
        open_rig(tmp_path, read_sensor(tmp_path / "rig.toml"))
