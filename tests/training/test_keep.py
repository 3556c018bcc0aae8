"""Which state of a training becomes its bundle."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
import torch
from runs import config, gray_set, registry

from simmat import training
from simmat.bundle import read_bundle
from simmat.training import fit
from simmat.training.run_folder import load_state

SETTINGS = {"steps": 4, "val_every": 2, "pictures": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_set(tmp_path_factory.mktemp("keep") / "set")


def worse_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each validation choose by a lower score than the one before."""
    scores = count(0, -1)
    monkeypatch.setattr(fit, "selection_score", lambda summary: float(next(scores)))


def test_the_last_state_is_kept_where_it_is_asked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few objects of validation may say that step 0 was better, and be wrong."""
    kept = {}
    for keep in ("best", "last"):
        worse_each_time(monkeypatch)
        out = tmp_path / keep
        settings = config(data, out, keep=keep, **SETTINGS)
        training.train(settings, registry())
        kept[keep] = read_bundle(out)
    assert kept["best"][0].metrics["step"] == 0
    assert kept["last"][0].metrics["step"] == 4
    last = load_state(tmp_path / "last/last.safetensors").model
    for name, tensor in kept["last"][1].items():
        assert torch.equal(tensor, last[name])


@pytest.mark.parametrize(("val", "kept"), [(5, "last"), (6, "best")])
def test_a_validation_of_few_images_chooses_nothing(
    val: int, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two images, an early step may be the best by chance, or because a model made their labels."""
    data = gray_set(tmp_path / "data", train=2, val=val)
    worse_each_time(monkeypatch)
    plan = training.plan_run(config(data, tmp_path / "run", **SETTINGS), registry())
    assert plan.config.keep == kept
    assert any("--keep best" in note for note in plan.notes) == (kept == "last")
    training.train(config(data, tmp_path / "run", **SETTINGS), registry())
    step = read_bundle(tmp_path / "run")[0].metrics["step"]
    assert step == {"last": 4, "best": 0}[kept]


def test_settings_without_it_go_on_with_what_was_chosen(
    data: Path, tmp_path: Path
) -> None:
    """A bench writes its own settings anew before it resumes a cell."""
    out = tmp_path / "run"
    training.train(config(data, out, **SETTINGS), registry())
    text = (out / "config.toml").read_text()
    assert 'keep = "last"\n' in text
    (out / "config.toml").write_text(text.replace('keep = "last"\n', ""))
    training.resume(out, registry())
    assert 'keep = "last"\n' in (out / "config.toml").read_text()
