"""`simmat forecast`, from the logs and bundles of runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs import config, gray_set, registry

from simmat import training
from simmat.cli import run

pytestmark = pytest.mark.plugins("simmat-plugin-report")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a run on 2 images, and one that goes on with all."""
    root = tmp_path_factory.mktemp("chain") / "set"
    gray_set(root)
    settings = {"steps": 1, "heads": "prompt,dense", "pictures": False}
    few = config(root, root / "runs/few", train_images=2, **settings)
    training.train(few, registry())
    more = config(root, root / "runs/more", init=root / "runs/few", **settings)
    training.train(more, registry())
    return root


def test_a_folder_of_runs_is_a_forecast(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page has the curve, the terminal the figures."""
    page = tmp_path / "f.html"
    command = ["forecast", str(chain), "--more", "10", "--out", str(page)]
    assert run(command) == 0
    said = capsys.readouterr().out
    # the validations of both runs, and the new images of the second
    assert "3 scores of models with 2 to 5 training images" in said
    assert "10 more (15 training images): mIoU 0." in said
    assert "of 100 objects missed" in said
    assert "data:image/png" in page.read_text()


def test_few_images_that_agree_by_chance_do_not_decide(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new set often has two new images, and these may have almost the same score."""
    copy = tmp_path / "runs"
    shutil.copytree(chain / "runs", copy)
    records = copy / "more/metrics.jsonl"
    lines = []
    for line in records.read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "new":
            record["scores"] |= {"images": 2, "miou_object_interval": [0.70, 0.71]}
        lines.append(json.dumps(record))
    records.write_text("\n".join(lines) + "\n")
    assert run(["forecast", str(copy), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert min(standard_error for _, _, standard_error in scores) > 0.04


def test_a_run_that_is_given_twice_counts_once(
    chain: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Counted twice, its score would look twice as sure."""
    monkeypatch.chdir(chain)
    words = ["runs/few", str(chain / "runs/few"), "runs/more", str(chain)]
    assert run(["forecast", *words]) == 0
    assert "3 scores of models" in capsys.readouterr().out


@pytest.mark.parametrize("labels", [None, 0, "5"])
def test_a_damaged_record_of_a_log_is_named(
    chain: Path, tmp_path: Path, labels: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log is text that anyone can edit."""
    copy = _with_record(chain, tmp_path, {"labels": labels, "scores": {}})
    assert run(["forecast", str(copy)]) == 2
    assert "metrics.jsonl is damaged" in capsys.readouterr().err


def test_an_interval_that_is_not_a_number_is_left_out(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The score beside it still counts."""
    interval = [float("nan"), float("nan")]
    scores = {"miou_object": 0.5, "images": 3, "miou_object_interval": interval}
    copy = _with_record(chain, tmp_path, {"labels": 3, "scores": scores})
    assert run(["forecast", str(copy)]) == 0
    assert "4 scores of models" in capsys.readouterr().out


def _with_record(chain: Path, folder: Path, record: dict[str, object]) -> Path:
    """Copy the runs, and append a record of new images to the log of one."""
    copy = folder / "runs"
    shutil.copytree(chain / "runs", copy)
    with (copy / "more/metrics.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "new", "step": 0, **record}) + "\n")
    return copy
