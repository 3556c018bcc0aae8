"""Two processes under accelerate's launcher do the work of one."""

from __future__ import annotations

import json
from pathlib import Path

import norm_layer
import pytest
import torch
from launched import TWO_PROCESSES, run_python
from runs import gray_set
from safetensors.torch import load_file

from simmat.bundle import load_bundle, load_tensors
from simmat.evaluation import evaluate_bundle
from simmat.training.run_folder import load_state

pytestmark = pytest.mark.slow

TRAIN = (
    "train --modality gray --foundation tiny --mat mat --tune full --image-size 64 --steps 3 --val-every 3 "
    "--batch-size 4 --prompts-per-image 2 --lr 1e-3 --device cpu"
).split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("distributed")
    data = gray_set(root / "set", train=6, val=3)
    one, two = root / "one", root / "two"
    run_python(["-m", "simmat", *TRAIN, "--data", str(data), "--out", str(one)])
    done = run_python(
        [*TWO_PROCESSES, "-m", "simmat", *TRAIN, "--data", str(data), "--out", str(two)]
    )
    assert "in 2 processes" in done.stderr
    return one, two


def test_two_processes_give_the_weights_of_one(runs: tuple[Path, Path]) -> None:
    """The same global batch must mean the same training, on however many devices."""
    one, two = (load_file(run / "last.safetensors") for run in runs)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-4, msg=name)


def test_two_processes_score_every_sample_once(runs: tuple[Path, Path]) -> None:
    """A sharded validation that pads its last batch would count samples twice."""
    one, two = (_records(run, "val") for run in runs)
    assert (
        [record["objects"] for record in two]
        == [record["objects"] for record in one]
        == [6, 6]
    )
    for ours, theirs in zip(two, one, strict=True):
        assert ours["images"] == 3
        assert ours["miou_object"] == pytest.approx(theirs["miou_object"], abs=2e-3)


def test_two_processes_score_the_network_that_is_kept(tmp_path: Path) -> None:
    """BatchNorm's running statistics are each process's own; a score over several networks is that of no bundle."""
    data, out = gray_set(tmp_path / "set", train=6, val=6), tmp_path / "run"
    run_python([*TWO_PROCESSES, norm_layer.__file__, str(data), str(out)])
    last = load_bundle(out, norm_layer.registry())
    load_tensors(last.model, load_state(out / "last.safetensors").model, "the run")
    scores, _ = evaluate_bundle(last, data, "val")
    said = _records(out, "val")[-1]
    assert said["step"] == 2
    assert scores.summary()["miou_object"] == pytest.approx(
        said["miou_object"], abs=1e-6
    )


def _records(run: Path, kind: str) -> list[dict[str, float]]:
    records = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    return [record for record in records if record["kind"] == kind]
