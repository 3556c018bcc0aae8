"""`simmat predict`: what lies beside a mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image
from runs import config, gray_set, registry

from simmat import training
from simmat.cli import run
from simmat.cli.predict import _own_files
from simmat.errors import ConfigError


def test_the_file_beside_a_mask_begins_with_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs read it, and must see when it means something else."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    image = tmp_path / "s.png"
    Image.fromarray(np.full((40, 56), 60, np.uint8)).save(image)
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
    assert run(["predict", str(bundle), str(image), "--point", "3,4", "--out", str(out), "--device", "cpu"]) == 0
    said = json.loads((out / "s.json").read_text(encoding="utf-8"))
    assert next(iter(said.items())) == ("format", 1)
    assert (said["size_hw"], said["point_coords_xy"]) == ([40, 56], [[3.0, 4.0]])


def test_a_bad_file_leaves_nothing_of_the_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the masks would pass for all; those of an earlier call stay."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
    for name in "ab":
        Image.fromarray(np.full((40, 56), 60, np.uint8)).save(tmp_path / f"{name}.png")
    call = ["predict", str(bundle), "--point", "3,4", "--out", str(out), "--device", "cpu"]
    assert run([*call, str(tmp_path / "a.png")]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert run([*call, str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert "b.png" in capsys.readouterr().err


def test_what_an_earlier_call_wrote_does_not_stay_beside_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mask with coordinates, of an image that had some, would be opened as that of the next one of its name."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
    Image.fromarray(np.full((40, 56), 60, np.uint8)).save(tmp_path / "s.png")
    call = ["predict", str(bundle), str(tmp_path / "s.png"), "--point", "3,4", "--out", str(out), "--device", "cpu"]
    assert run(call) == 0
    said = json.loads((out / "s.json").read_text(encoding="utf-8"))
    assert sorted(said["written"]) == sorted(path.name for path in out.iterdir())
    (out / "s_mask.tif").write_bytes(b"of a person")
    assert run(call) == 2
    assert "s_mask.tif is there already and was not written by simmat predict" in capsys.readouterr().err
    (out / "s.json").write_text(json.dumps(said | {"written": [*said["written"], "s_mask.tif"]}), encoding="utf-8")
    (out / "other_mask.tif").write_bytes(b"of another image")
    assert run(call) == 0
    assert {path.name for path in out.iterdir()} == {*said["written"], "other_mask.tif"}


@pytest.mark.parametrize("theirs", ["s.json", "s_mask.png"])
def test_files_of_others_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], theirs: str
) -> None:
    """labelme keeps its polygons in NAME.json, and truth is often called NAME_mask.png."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
    Image.fromarray(np.full((40, 56), 60, np.uint8)).save(tmp_path / "s.png")
    out.mkdir()
    (out / theirs).write_text('{"shapes": [], "version": "5.4.1"}')
    call = ["predict", str(bundle), str(tmp_path / "s.png"), "--point", "3,4", "--out", str(out), "--device", "cpu"]
    assert run(call) == 2
    assert f"{theirs} is there already and was not written by simmat predict" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [theirs]
    (out / theirs).unlink()
    assert [run(call), run(call)] == [0, 0]


def test_an_image_without_a_measurement_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mask of it would look like any other."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    bundle = tiny_bundle(tmp_path / "bundle")
    np.save(tmp_path / "s.npy", np.full((40, 56), np.nan, np.float32))
    call = ["predict", str(bundle), str(tmp_path / "s.npy"), "--point", "3,4", "--out", str(tmp_path / "out")]
    assert run([*call, "--device", "cpu"]) == 2
    assert "s.npy: no pixel holds a measurement" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1, ""), (256, "most values of channel 'gray' are far from those of training"), (1 / 255, "hardly vary")],
)
def test_values_unlike_those_of_training_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], factor: float, said: str
) -> None:
    """16 bits in place of 8, or 0 to 1, give a mask and a score that mean nothing."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    data = gray_set(tmp_path / "set")
    bundle = training.train(config(data, tmp_path / "run", steps=1), registry())
    values = np.asarray(Image.open(data / "images/s8.png")).astype(np.float32) * factor
    np.save(tmp_path / "s.npy", values)
    call = ["predict", str(bundle), str(tmp_path / "s.npy"), "--point", "3,4", "--out", str(tmp_path / "out")]
    assert run([*call, "--device", "cpu"]) == 0
    assert (said in capsys.readouterr().err) if said else ("Warning" not in capsys.readouterr().err)


@pytest.mark.parametrize("content", [None, "[" * 100_000, '{"written": 3}', "9" * 400])
def test_a_file_of_that_name_that_is_no_answer_of_ours_is_kept(tmp_path: Path, content: str | None) -> None:
    """What stands beside the masks may come from anyone: a pipe, json of any depth, another program's."""
    path = tmp_path / "photo.json"
    if content is None:
        path.symlink_to("/dev/zero")
    else:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"photo\.json is there already and was not written by simmat predict"):
        _own_files(tmp_path, {"photo": {}})
