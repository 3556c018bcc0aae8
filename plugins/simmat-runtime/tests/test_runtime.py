"""The runtime computes as SimMAT does, without it, and refuses what does not fit in one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import simmat_runtime
import torch
from simmat_runtime import ModelError, everything, objects, windows
from simmat_runtime import letterbox as frames
from simmat_runtime.command import main
from simmat_runtime.inputs import Prompt
from simmat_runtime.manifest import MAX_BYTES, check_files, read_manifest, with_checksum

from simmat import types
from simmat.data.instances import FoundObject, Instance
from simmat.nn.dense_head import upsample_logits
from simmat.predictor import objects as reference
from simmat.predictor.prompts import prompt_in
from simmat.predictor.tiles import ClassMapBlender, merge_objects
from simmat.predictor.tiles import plan_windows as reference_plan
from simmat.predictor.tiles import prompt_windows as reference_prompt_windows
from simmat.types import Letterbox, Window

CHANNEL = {
    "name": "gray",
    "quantity": "counts",
    "unit": "count",
    "valid_range": [0, None],
}
FILES = {
    name: {"sha256": "0" * 64}
    for name in ("encoder.onnx", "decoder.onnx", "masks.onnx")
}
SENSOR = {"name": "gray", "averaged": [True], "matrix": None, "size": None}
MANIFEST: dict[str, Any] = {
    "format": 1,
    "modality": "gray",
    "channels": [CHANNEL],
    "image_size": 64,
    "aspect": "pad",
    "largest": 128,
    "window": 64,
    "mask_size": [16, 16],
    "levels": 1,
    "dense": None,
    "class_names": {"1": "object"},
    "files": FILES,
}


def write(folder: Path, **changes: object) -> Path:
    (folder / "manifest.json").write_text(
        json.dumps(with_checksum({**MANIFEST, **changes}))
    )
    return folder


def test_it_imports_neither_torch_nor_simmat() -> None:
    """It runs where neither is installed."""
    code = "import sys, simmat_runtime.command; print(*{'torch', 'simmat'} & set(sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == ""
    )


@pytest.mark.parametrize("seed", range(3))
def test_clicks_are_those_of_simmat(seed: int) -> None:
    """Another click is another object."""
    distance = torch.rand(24, 31, generator=torch.Generator().manual_seed(seed))
    distance[12:] *= 0.3
    objects = (torch.arange(31) // 6 % 2).repeat(24, 1).float() * torch.tensor(
        [0.2, 0.7]
    )[:, None, None]
    objects[:, :13] = 0.0
    objects[:, 18:] = objects[:, 18:].flip(0)
    parts, classes = reference.object_parts(objects, 9)
    assert set(classes.tolist()) == {0, 1}
    for one, other in zip(
        everything.object_parts(objects.numpy(), 9), (parts, classes), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    expected, _ = reference.click_places(distance, parts, min_peak=0.3, window=3)
    assert (expected[:, 1] > 13).any()
    np.testing.assert_array_equal(
        everything.click_places(distance.numpy(), parts, min_peak=0.3, window=3),
        expected,
    )
    masks = np.zeros((1, 48, 62), np.bool_)
    masks[0, 25:, :30] = True
    missed = reference.uncovered(parts, classes, masks, [0])
    assert 0 < len(missed) < len(parts)
    assert everything.uncovered(parts, classes, masks, [0]) == missed


def test_suppression_and_growth_are_those_of_simmat() -> None:
    """Both decide which objects a user gets."""
    rng = np.random.default_rng(0)
    masks, scores = np.zeros((9, 20, 20), np.bool_), rng.random(9)
    for mask in masks:
        y, x = rng.integers(0, 12, 2)
        mask[y : y + 6, x : x + 6] = True
    kept = reference.suppress(masks, scores, 0.4)
    assert everything.suppress(masks, scores.tolist(), 0.4) == kept
    assert everything.suppress(masks[:0], [], 0.4) == []
    regions = [
        Instance(None, Window(2, 2, 5, 6), np.ones((3, 4), np.bool_)),
        Instance(None, Window(9, 9, 12, 12), np.eye(3) > 0),
    ]
    inside = rng.random((16, 16)) > 0.3
    found = [
        objects.FoundObject(one.window, one.crop, (16, 16), 1.0, (0, 0))
        for one in regions
    ]
    grown = reference.grown(regions, torch.from_numpy(inside), 4)
    for one, other in zip(grown, everything.grown(found, inside, 4), strict=True):
        np.testing.assert_array_equal(other.mask, one.mask((16, 16)))


def test_resizing_and_geometry_are_those_of_simmat() -> None:
    """A click half a pixel off misses small objects."""
    planes = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0))
    expected = upsample_logits(planes[None], (16, 20))[0]
    np.testing.assert_allclose(
        frames.resized(planes.numpy(), (16, 20)), expected, atol=1e-6
    )
    points = np.asarray([(0, 0), (50, 30)], np.float32)
    for aspect in ("pad", "stretch"):
        ours, theirs = (
            frames.Letterbox((37, 91), 64, aspect),
            Letterbox((37, 91), 64, aspect),
        )  # type: ignore[arg-type]
        assert ours.scaled_hw == theirs.scaled_hw
        np.testing.assert_array_equal(
            ours.points_to_input(points), theirs.points_to_input(points)
        )
        np.testing.assert_array_equal(
            ours.points_to_original(points), theirs.points_to_original(points)
        )


@pytest.mark.parametrize("aspect", ["pad", "stretch"])
@pytest.mark.parametrize(
    "known", [(10, 20, 58, 68), (0, 0, 40, 90), (34, 44, 82, 92), (70, 100, 90, 130)]
)
def test_an_earlier_mask_is_moved_to_its_place_as_in_simmat(
    aspect: Literal["pad", "stretch"], known: tuple[int, int, int, int]
) -> None:
    """A mask of one window in the pixels of another is another object's."""
    logits = np.random.default_rng(0).normal(0, 5, (16, 16)).astype(np.float32)
    window = (10, 20, 58, 90)
    there = Letterbox((48, 70), 64, aspect)
    prompt = types.Prompt(
        np.asarray([(30, 30)], np.float32),
        np.ones(1, np.int64),
        None,
        logits,
        Window(*known),
    )
    expected = prompt_in(prompt, Window(*window), there).mask_input
    assert expected is not None
    found = Prompt.of([(30, 30)], None, None, logits, known).in_window(
        window, frames.Letterbox((48, 70), 64, aspect)
    )[3]
    assert found is not None
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-4)


def test_windows_are_joined_as_in_simmat() -> None:
    """Objects that a border cuts, and classes near it, must not depend on what runs the model."""
    rng = np.random.default_rng(0)
    size_hw = (61, 90)
    planned = windows.plan_windows(size_hw, 32, 8)
    assert planned == [tuple(window) for window in reference_plan(size_hw, 32, 8)]
    for x, y, width, height in rng.uniform(0, 40, (20, 4)):
        box = np.asarray([x, y, x + width, y + height / 2], np.float32)
        prompt = Prompt.of((), None, box, None)
        expected_windows = list(
            reference_prompt_windows(
                types.Prompt(prompt.coords, prompt.labels, box), size_hw, 12
            )
        )
        assert (
            list(windows.prompt_windows(*prompt.extent(), size_hw, 12))
            == expected_windows
        )
    blender = ClassMapBlender(size_hw, 32, 8, 3)
    of_windows: list[list[FoundObject]] = []
    parts, probabilities, bands = [], [], []
    for y0, x0, y1, x1 in planned:
        ours, theirs = [], []
        for _ in range(6):
            (y, x), (h, w), score = (
                rng.integers(0, 24, 2),
                rng.integers(4, 9, 2),
                float(rng.random()),
            )
            box = (
                int(y + y0),
                int(x + x0),
                int(min(y + h + y0, y1)),
                int(min(x + w + x0, x1)),
            )
            crop = np.ones((box[2] - box[0], box[3] - box[1]), np.bool_)
            ours.append(objects.FoundObject(box, crop, size_hw, score, (0, 0)))
            theirs.append(
                FoundObject(Instance(None, Window(*box), crop), score, (0, 0))
            )
        parts.append(((y0, x0, y1, x1), ours))
        of_windows.append(theirs)
        probabilities.append(rng.random((3, y1 - y0, x1 - x0)).astype(np.float32))
        bands += list(blender.add(probabilities[-1]))
    expected = merge_objects(reference_plan(size_hw, 32, 8), of_windows)
    found = windows.joined(parts)
    assert len(found) < 6 * len(planned)
    assert sorted((one.score, one.window) for one in found) == sorted(
        (o.score, o.instance.window) for o in expected
    )
    for (y0, part), (start, band) in zip(
        windows.blended(size_hw, planned, probabilities, 3), bands, strict=True
    ):
        assert y0 == start
        np.testing.assert_allclose(part, band, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2"),
        ({"files": {}}, "encoder.onnx"),
        ({"files": {**FILES, "a\0": FILES["masks.onnx"]}}, "files"),
        ({"files": {**FILES, "../a": FILES["masks.onnx"]}}, "files"),
        ({"aspect": "wide"}, "aspect"),
        ({"image_size": None}, "image_size"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": -5}, "image_size"),
        ({"image_size": 10**9}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"window": 0}, "window"),
        ({"mask_size": [10**9, 10**9]}, "mask_size"),
        ({"mask_size": 16}, "mask_size"),
        ({"channels": []}, "channels"),
        ({"channels": [{**CHANNEL, "valid_range": [5]}]}, "valid_range"),
        ({"channels": [{**CHANNEL, "valid_range": [10**400, None]}]}, "valid_range"),
        ({"channels": [{**CHANNEL, "name": "\x1b[2J"}]}, "name"),
        ({"dense": {"background": True, "classes": []}}, "classes"),
        ({"dense": {"background": True, "classes": [2**40]}}, "classes"),
        ({"dense": []}, "dense"),
        ({"sensors": []}, "sensors"),
        ({"sensors": [{**SENSOR, "averaged": [True, True]}]}, "sensors of 1 channels"),
        ({"sensors": [{**SENSOR, "averaged": [1]}]}, "averaged"),
        ({"sensors": [{**SENSOR, "size": [4]}]}, "size"),
        ({"sensors": [{**SENSOR, "matrix": [[1, 0, 0]] * 2}]}, "matrix"),
        ({"sensors": [{**SENSOR, "matrix": [[0, 0, 0]] * 3}]}, "matrix"),
        ({"sensors": [{**SENSOR, "matrix": [[1, 0, True]] * 3}]}, "matrix"),
        (
            {"dense": {"background": True, "classes": [1], "temperature": 0}},
            "temperature",
        ),
    ],
)
def test_a_wrong_manifest_is_refused(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    """A newer file must not be read as something else, and a stranger can write a digest, too."""
    with pytest.raises(ModelError, match=words):
        read_manifest(write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            json.dumps(
                {**MANIFEST, "window": 32, "sha256": with_checksum(MANIFEST)["sha256"]}
            ),
            "was changed",
        ),
        (json.dumps(MANIFEST), "was changed"),
        ('{"format": 1e999}', "1e999"),
        ('{"format": NaN}', "NaN"),
        ("[" * 100_000, "recursion"),
        (" " * (MAX_BYTES + 1), "larger"),
        ("[]", "format None"),
    ],
)
def test_a_damaged_manifest_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    """Folders are copied by hand and edited, and some are not what they say."""
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx"])
def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path, name: str) -> None:
    """Opening one waits for ever for somebody who writes."""
    write(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{name}.* not a regular file"):
        simmat_runtime.load(tmp_path)


def test_a_folder_without_a_manifest_or_a_file_is_refused(tmp_path: Path) -> None:
    """Folders are copied by hand, and not always whole."""
    with pytest.raises(ModelError, match=r"manifest\.json is missing"):
        simmat_runtime.load(tmp_path)
    with pytest.raises(ModelError, match=r"encoder\.onnx cannot be read"):
        simmat_runtime.load(write(tmp_path))
    (tmp_path / "encoder.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="sha256"):
        check_files(tmp_path, read_manifest(tmp_path))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((2, 8, 8)), r"\(1, H, W\) of gray \[count\]"),
        (np.full((8, 8), -1.0), "no pixel"),
        (np.asarray([["a"]]), "numbers"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(
    tmp_path: Path, image: np.ndarray, words: str
) -> None:
    """Channels are never guessed."""
    model = simmat_runtime.load(write(tmp_path), check=False)
    with pytest.raises(ValueError, match=words):
        model.set_image(image)
    with pytest.raises(ValueError, match="set_image"):
        model.predict([(1, 1)])


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ({"points": [(1, 1, 1)]}, r"\(x, y\)"),
        ({"points": [1, 1]}, r"\(x, y\)"),
        ({"box": [1, 2, 3]}, "x0, y0, x1, y1"),
        ({"points": [(99, 1)]}, "8 wide"),
        ({"points": [(1, 1)], "labels": [2]}, "0 or 1"),
        ({}, "at least one point"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused(
    prompt: dict[str, Any], words: str
) -> None:
    """Numbers are never taken as other coordinates than they were given as."""
    given: dict[str, Any] = {"points": (), "labels": None, "box": None, "mask": None}
    with pytest.raises(ValueError, match=words):
        Prompt.of(**{**given, **prompt}).check((6, 8), (16, 16))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image": "none.npy"}, "none.npy"),
        ({"--out": "none/mask.npy"}, "mkdir"),
        ({"--point": "a,b"}, "2 numbers"),
    ],
)
def test_the_command_names_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    words: str,
) -> None:
    """A user reads it without the code beside."""
    monkeypatch.setattr("simmat_runtime.network.check_files", lambda *_: None)
    monkeypatch.chdir(write(tmp_path))
    np.save("image.npy", np.zeros((1, 8, 8)))
    given = {"image": "image.npy", "--point": "1,1", "--out": "mask.npy", **changed}
    arguments = [
        "predict",
        ".",
        given.pop("image"),
        *(text for option in given.items() for text in option),
    ]
    try:
        code = main(arguments)
    except SystemExit as error:  # of argparse
        code = int(error.code or 0)
    assert code == 2
    assert words in capsys.readouterr().err


def test_a_point_beside_the_object_has_the_name_of_simmat_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One learns an option once."""
    prompts: list[Any] = []

    def predict(points: Any, labels: Any, box: Any) -> SimpleNamespace:
        prompts.append((points, labels, box))
        return SimpleNamespace(mask=np.ones((8, 8), bool), score=0.5, class_id=None)

    model = SimpleNamespace(channels=(), set_image=lambda *_: None, predict=predict)
    monkeypatch.setattr("simmat_runtime.command.load", lambda folder: model)
    monkeypatch.setattr("simmat_runtime.command.read_file", lambda *_: None)
    out = str(tmp_path / "mask.npy")
    given = [
        "predict",
        "model",
        "x.npy",
        "--point",
        "1,2",
        "--negative",
        "3,4",
        "--out",
        out,
    ]
    assert main(given) == 0
    assert prompts == [([(1, 2), (3, 4)], [1, 0], None)]


def test_the_command_says_bad_input_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and no traceback, as every command of SimMAT."""
    (tmp_path / "image.npy").write_text("no numbers")
    given = [str(write(tmp_path)), str(tmp_path / "image.npy"), "--point", "1,1"]
    for arguments, words in (
        ([*given, "--out", "mask.npy"], "encoder.onnx cannot be read"),
        (
            [str(tmp_path / "none"), *given[1:], "--out", "mask.npy"],
            "no exported model",
        ),
    ):
        assert main(["predict", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert words in said
        assert said.count("\n") == 1
