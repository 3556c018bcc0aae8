"""Bad input at the command line: one clear message, exit code 2, and nothing left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import change_json
from PIL import Image
from runs import gray_set

from simmat.cli import run

pytestmark = pytest.mark.plugins("report", "sam")

SETTINGS = {
    "--modality": "gray",
    "--foundation": "tiny",
    "--image-size": "64",
    "--steps": "1",
    "--batch-size": "2",
    "--prompts-per-image": "1",
    "--device": "cpu",
}


def train_args(data: Path, out: Path, **changes: str) -> list[str]:
    """The arguments of a run of one step."""
    given = SETTINGS | {"--data": str(data), "--out": str(out)}
    given |= {"--" + name.replace("_", "-"): value for name, value in changes.items()}
    return ["train", *(part for pair in given.items() for part in pair)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set `data` and a finished run `run`."""
    root = tmp_path_factory.mktemp("bad")
    gray_set(root / "data", train=2, val=1, test=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMMAT_PLUGINS", "report,sam")
        assert run(train_args(root / "data", root / "run")) == 0
    return root


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of the data set and the run to break."""
    shutil.copytree(trained / "data", tmp_path / "data")
    shutil.copytree(trained / "run", tmp_path / "run")
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace(str(trained), str(tmp_path)))
    return tmp_path


def message(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """Run a command that must fail by the user's fault, and return what it said."""
    capsys.readouterr()
    code = run(args)
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("error:") == 1
    assert "Traceback" not in said
    return said


def test_all_bad_samples_are_named_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mending one file a run would take as many runs as there are bad files."""
    Image.fromarray(np.ones((20, 30), np.uint8)).save(place / "data/masks/s1.png")
    (place / "data/masks/s0.png").write_bytes(b"")
    said = message(capsys, train_args(place / "data", place / "out"))
    assert "s0.png" in said
    assert "s1.png" in said


@pytest.mark.parametrize(
    ("setting", "old", "new"),
    [
        ("tune", '"lora"', '"full"'),
        ("image_size", "image_size = 64", "image_size = 128"),
        ("seed", "seed = 0", "seed = 1"),
    ],
)
def test_a_run_is_not_resumed_with_another_network(
    setting: str, old: str, new: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The edited setting would be ignored, or fail deep in the network."""
    config = place / "run/config.toml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    assert f"{setting} = " in message(capsys, ["train", "--resume", str(place / "run")])


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda bundle: (bundle / "weights.safetensors").write_bytes(b"x")])
def test_a_run_is_not_resumed_without_its_best_bundle(
    damage: Callable[[Path], Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would end by naming a bundle that is not there."""
    damage(place / "run/bundle")
    assert "bundle" in message(capsys, ["train", "--resume", str(place / "run")])


@pytest.mark.parametrize("notes", ["[]", '{"format": 1, "step": 0, "spec": {}, "best": {}, "fingerprint": ""}'])
def test_a_state_of_strange_notes_is_called_damaged(
    notes: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state that is a safetensors file need not be one of ours."""
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, place / "run/last.safetensors", metadata={"simmat": notes})
    assert "damaged" in message(capsys, ["train", "--resume", str(place / "run")])


@pytest.mark.parametrize("log", [b"\x80\xff", b'[1]\n{"a": 1}\n'])
def test_a_run_with_a_damaged_log_is_resumed(log: bytes, place: Path) -> None:
    """The log is for people; the state decides."""
    (place / "run/metrics.jsonl").write_bytes(log)
    assert run(["train", "--resume", str(place / "run")]) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": "64"},
        {"aspect": "crop"},
        {"zero_shot": [[1, 2], [3]]},
        {"channels": []},
        {"tune": {"name": "lora", "options": [3]}},
        {"foundation": {"name": "tiny", "sha256": None, "seed": "x"}},
        {"weights_sha256": None},
        {"card": {"region": "x"}},
    ],
)
def test_a_bundle_with_a_wrong_value_is_called_damaged(
    changes: dict[str, Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People edit json by hand; what comes of it must not fail deep in the network."""
    file = place / "run/bundle/bundle.json"
    change_json(file.parent, **changes)
    image = place / "data/images/s0.png"
    out = place / "out"
    said = message(capsys, ["predict", str(file.parent), str(image), "--point", "3,3", "--out", str(out)])
    assert "damaged" in said
    assert not out.exists()


def test_the_json_of_a_bundle_stands_for_the_bundle(place: Path) -> None:
    """It is the file one sees; every command takes it alike."""
    file = str(place / "run/bundle/bundle.json")
    image = str(place / "data/images/s0.png")
    assert run(["predict", file, image, "--point", "3,3", "--out", str(place / "out")]) == 0
