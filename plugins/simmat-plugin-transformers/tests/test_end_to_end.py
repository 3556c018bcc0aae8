"""A folder of the library's, trained, scored and asked, through the command line alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from bundles import read_parts
from safetensors.torch import load_file, save_file

from simmat.cli import run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated gray images, six to train on."""
    folder = tmp_path_factory.mktemp("data") / "set"
    size = ["--size", "64", "48"]
    assert (
        run(
            [
                "data",
                "simulate",
                "--modality",
                "gray",
                "--out",
                str(folder),
                "--count",
                "8",
                *size,
            ]
        )
        == 0
    )
    return folder


@pytest.mark.parametrize(
    "name",
    ["sam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sam2", "sam3"))],
)
def test_a_folder_is_trained_scored_and_predicted_on(
    name: str, data: Path, tiny_of: Any, tmp_path: Path
) -> None:
    """The bundle says whose weights it needs and is built again from the name alone."""
    tiny = tiny_of(name)
    foundation = f"hf/{tiny.folder}"
    bundle, picture = (
        tmp_path / "run/bundle.safetensors",
        next((data / "images").iterdir()),
    )
    quick = "--no-pictures --steps 2 --batch-size 2 --prompts-per-image 2 --tune lora".split()
    start = [
        "train",
        "--modality",
        "gray",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
    ]
    assert (
        run(
            [*start, "--foundation", foundation, "--image-size", str(tiny.size), *quick]
        )
        == 0
    )
    assert run(["eval", str(bundle), "--data", str(data), "--split", "test"]) == 0
    assert (
        run(
            [
                "predict",
                str(bundle),
                str(picture),
                "--point",
                "30,30",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert list((tmp_path / "out").glob("*mask*"))
    said, _ = read_parts(bundle)
    assert said["foundation"] == foundation
    assert said["foundation_sha256"] == tiny.spec().weights.sha256


def test_a_bundle_and_its_run_are_opened_where_its_folder_lies_elsewhere(
    data: Path,
    tiny_of: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another machine has another file system; the sha256 of the weights says that it is the same model."""
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(tiny_of("sam").folder, before)
    start = [
        "train",
        "--modality",
        "gray",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
    ]
    quick = "--no-pictures --steps 1 --batch-size 1 --prompts-per-image 1 --tune lora --image-size 64".split()
    assert run([*start, "--foundation", f"hf/{before}", *quick]) == 0
    picture = next((data / "images").iterdir())
    ask = [
        "predict",
        str(tmp_path / "run/bundle.safetensors"),
        str(picture),
        "--point",
        "30,30",
        "--out",
    ]
    assert run([*ask, str(tmp_path / "here")]) == 0
    before.rename(after)
    # plugins are loaded anew, as in another process
    monkeypatch.setenv("SIMMAT_PLUGINS", "testing,transformers")
    capsys.readouterr()
    assert run([*ask, str(tmp_path / "lost")]) == 2
    assert "--foundation NAME" in capsys.readouterr().err
    assert run([*ask, str(tmp_path / "there"), "--foundation", f"hf/{after}"]) == 0
    masks = [
        next((tmp_path / place).glob("*_mask.png")).read_bytes()
        for place in ("here", "there")
    ]
    assert masks[0] == masks[1]
    other = tiny_of("sam2").folder
    assert run([*ask, str(tmp_path / "other"), "--foundation", f"hf/{other}"]) == 2
    assert "sha256" in capsys.readouterr().err
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace(str(before), str(after)))
    resume = ["train", "--resume", str(tmp_path / "run")]
    assert run(resume) == 0
    weights = after / "model.safetensors"
    changed = {name: one + 1 for name, one in load_file(weights).items()}
    save_file(changed, weights, {"format": "pt"})
    assert run(resume) == 2
    assert "sha256" in capsys.readouterr().err
