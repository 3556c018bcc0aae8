"""Bad input at the command line: one clear message, exit code 2, and nothing left behind."""

import shutil
from pathlib import Path

import numpy as np
import pytest
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
        patch.setenv("SIMMAT_PLUGINS", "testing,report,sam")
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


def test_all_bad_samples_are_named_at_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mending one file a run would take as many runs as there are bad files."""
    Image.fromarray(np.ones((20, 30), np.uint8)).save(place / "data/masks/s1.png")
    (place / "data/masks/s0.png").write_bytes(b"")
    said = message(capsys, train_args(place / "data", place / "out"))
    assert "s0.png" in said
    assert "s1.png" in said


@pytest.mark.parametrize("log", [b"\x80\xff", b'[1]\n{"a": 1}\n'])
def test_a_run_with_a_damaged_log_is_resumed(log: bytes, place: Path) -> None:
    """The log is for people; the state decides."""
    (place / "run/metrics.jsonl").write_bytes(log)
    assert run(["train", "--resume", str(place / "run")]) == 0
