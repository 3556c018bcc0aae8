"""The parts of docs/extending.md, as they are written there."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from installed import need_plugins
from simmat_testing.find_parts import find_checkable

from simmat import Dataset, FrameSequence
from simmat.data.instances import FoundObject, Instance
from simmat.errors import DataError
from simmat.foundation import MaskPrediction
from simmat.inference import ImageResult
from simmat.inference.formats import choose_formats, write_result
from simmat.io.images import stacks
from simmat.nn import losses
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.types import Window

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
"""Path of a file -> its text."""
PICTURE = np.zeros((8, 8, 3), np.uint8)


def load(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Return the built-in parts and those of a plugin of the page."""
    module = f"simmat_plugin_{name}"
    for path, text in FILES.items():
        if path.startswith(f"src/{module}/"):
            (folder / path.removeprefix("src/")).parent.mkdir(exist_ok=True)
            (folder / path.removeprefix("src/")).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return load_plugins([importlib.metadata.EntryPoint(name, module, "simmat")], {"SIMMAT_STRICT_PLUGINS": "1"})


@pytest.mark.parametrize("name", ["gain", "norms", pytest.param("cnn", marks=pytest.mark.slow)])
def test_a_layer_a_tuner_and_a_foundation_model_keep_their_rules(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is copied from; a slip in it is a slip in many."""
    if name == "cnn":
        need_plugins("sam")
    ((_, _, run_in),) = find_checkable(name, load(name, tmp_path, monkeypatch))
    results = list(run_in(tmp_path))
    assert len(results) >= 3
    assert [result for result in results if result.status == "failed"] == []


def test_a_format_is_written_beside_the_built_in_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `--format table` does with the objects of an image."""
    registry = load("table", tmp_path, monkeypatch)
    (chosen,) = choose_formats(["table"], ["objects"], registry).named
    found = FoundObject(Instance(1, Window(2, 2, 5, 5), np.ones((3, 3), bool)), 0.75, (3.0, 3.0))
    result = ImageResult("a", (8, 8), None, {1: "ship"}, (found,), None, None, lambda: PICTURE)
    assert write_result(result, [chosen], tmp_path) == ["a_objects.csv"]
    assert (tmp_path / "a_objects.csv").read_text().splitlines()[1] == "1,ship,0.7500,9"


def test_a_format_of_frames_is_read_frame_by_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording is a sequence as any other, and one that is cut is refused by name."""
    registry = load("raw", tmp_path, monkeypatch)
    monkeypatch.setattr(stacks, "plugin_formats", lambda: registry.all("stack format"))
    frames = np.random.default_rng(0).integers(0, 2**16, (2, 1, 512, 640), np.uint16)
    (tmp_path / "a.raw").write_bytes(frames.astype("<u2").tobytes())
    (tmp_path / "cut.raw").write_bytes(b"short")
    found = list(FrameSequence(tmp_path / "a.raw", "gray"))
    assert np.array_equal([image.data for image in found], frames)
    with pytest.raises(DataError, match=r"cut\.raw: damaged"):
        FrameSequence(tmp_path / "cut.raw", "gray")


def test_a_command_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is tried at once."""
    load("areas", tmp_path, monkeypatch)
    command = importlib.import_module("simmat_plugin_areas").areas
    image, mask = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    mask[:3, :3], mask[5:, 6:] = 1, 2
    Dataset.from_arrays([image], [mask], split=["train"], folder=tmp_path / "data")
    done = CliRunner().invoke(command, [str(tmp_path / "data"), "--modality", "raster"], catch_exceptions=False)
    assert [line.split(",")[1] for line in done.output.splitlines()] == ["9", "6"]


def test_a_loss_is_two_lines_in_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """It trains as the built-in ones do, and the line of the settings is the one that is there."""
    monkeypatch.setattr(losses, "LOSSES", dict(losses.LOSSES))
    exec(FILES["simmat/nn/losses.py"], vars(losses))
    logits = torch.zeros(2, 1, 8, 8, requires_grad=True)
    prediction = MaskPrediction(logits, torch.zeros(2, 1))
    loss, _ = losses.mask_loss(prediction, torch.ones(2, 8, 8), None, losses.LOSSES["poly"])
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad < 0).all()  # a larger logit is better
    line = FILES["simmat/config.py"].strip().partition("Literal[")[0]
    assert line in (ROOT / "simmat" / "config.py").read_text(encoding="utf-8")
