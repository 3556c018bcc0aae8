"""`simmat forecast`, from the logs and bundles of runs, and the learning curve that it continues."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import config, gray_set, registry
from simmat_plugin_report.learning_curve import RUN_STD, Score, fit_curve

from simmat import training
from simmat.bundle import read_sensors
from simmat.bundle.format import write_sensors
from simmat.cli import run
from simmat.errors import DataError

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


DAMAGED_RECORDS: list[tuple[str, object]] = [
    # the key that is damaged, and its value
    ("labels", None),
    ("labels", 0),
    ("labels", -5),
    ("labels", "5"),
    ("labels", 2.5),
    ("labels", True),
    ("labels", [5]),
    ("labels", 1e400),
    ("scores", None),
    ("scores", "abc"),
    ("scores", 0.5),
    ("scores", [0.5]),
    ("scores.images", "abc"),
    ("scores.images", -1),
    ("scores.images", 2.5),
    ("scores.images", 1e400),
    ("scores.images", [3]),
    ("scores.images", {}),
    ("scores.miou_object", -5),
    ("scores.miou_object", 1.5),
    ("scores.miou_object", "0.5"),
    ("scores.miou_object", True),
    ("scores.miou_object", 1e400),
    ("scores.miou_object", [0.5]),
    ("scores.miou_object_interval", 0.5),
    ("scores.miou_object_interval", "ab"),
    ("scores.miou_object_interval", [0.5]),
    ("scores.miou_object_interval", [0.4, 0.5, 0.6]),
    ("scores.miou_object_interval", ["a", "b"]),
    ("scores.miou_object_interval", [0.6, 0.4]),
    ("scores.miou_object_interval", [-1e400, 1e400]),
    ("scores.miou_object_interval", {"low": 0.4, "high": 0.6}),
    ("scores.everything", "abc"),
    ("scores.everything", [1]),
    ("scores.everything.missed", 7),
    ("scores.everything.missed", -1),
    ("scores.everything.missed", "abc"),
    ("scores.everything.missed", 1e400),
    ("scores.everything.objects", -2),
    ("scores.everything.objects", "abc"),
    ("scores.everything.objects", [6]),
]


@pytest.mark.parametrize(("key", "value"), DAMAGED_RECORDS)
def test_a_damaged_record_of_a_log_is_named(
    chain: Path,
    tmp_path: Path,
    key: str,
    value: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The log is text that anyone can edit: the error names the file, the record, the key and the way out."""
    everything = {"objects": 6, "missed": 2}
    scores = {"miou_object": 0.5, "images": 3, "miou_object_interval": [0.4, 0.6]}
    record: dict[str, Any] = {
        "labels": 3,
        "scores": scores | {"everything": everything},
    }
    table = record
    *tables, last = key.split(".")
    for name in tables:
        table = table[name]
    table[last] = value
    copy = _with_record(chain, tmp_path, record)
    assert run(["forecast", str(copy)]) == 2
    said = capsys.readouterr().err
    assert "metrics.jsonl is damaged: the record of new images at step 0" in said
    assert key in said
    assert "train the run again, or leave it out" in said
    assert "Error:" not in said


def test_a_damaged_validation_of_a_bundle_is_named(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle states its scores as a log does."""
    copy = tmp_path / "runs"
    shutil.copytree(chain / "runs", copy)
    file = copy / "more/bundle.safetensors"
    ((name, (spec, tensors)),) = read_sensors(file).items()
    scores = {"miou_object": 0.5, "images": "abc"}
    damaged = spec.model_copy(update={"metrics": {"val": scores}})
    write_sensors(file, {name: (damaged, tensors)})
    assert run(["forecast", str(copy)]) == 2
    said = capsys.readouterr().err
    assert "is damaged: its validation: images must be a whole number" in said


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


def scores(*counts: int, floor: float = 0.1, rate: float = 0.5) -> list[Score]:
    """Scores without noise of the law floor + n^-rate."""
    return [Score(count, floor + count**-rate, 0.01) for count in counts]


def test_a_law_is_continued() -> None:
    """Measured with up to 40 images, foretold for 160."""
    truth = 0.1 + 160**-0.5
    found = fit_curve(scores(5, 10, 20, 40)).error_at(160)
    assert found.low < truth < found.high
    assert abs(found.median - truth) < 0.04


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Of many noisy curves, 8 of 10 must end inside."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(40):
        floor, rate = rng.uniform(0, 0.2), rng.uniform(0.3, 0.9)
        noisy = []
        for one in scores(4, 8, 16, floor=floor, rate=rate):
            error = one.error + rng.normal(0, np.hypot(0.03, RUN_STD))
            noisy.append(Score(one.labels, float(np.clip(error, 0, 1)), 0.03))
        truth = floor + 64**-rate + rng.normal(0, RUN_STD)
        found = fit_curve(noisy).error_at(64)
        inside += found.low <= truth <= found.high
    assert 0.65 <= inside / 40 <= 0.98


def test_an_image_that_validates_again_and_again_counts_once() -> None:
    """One hard image beside three fresh scores; runs that repeat it must not outvote them."""
    fresh = [Score(count, 0.3, 0.1) for count in (3, 5, 7)]
    once = fit_curve([*fresh, Score(10, 0.9, 0.15, is_repeated=True)])
    repeated = [Score(count, 0.9, 0.15, is_repeated=True) for count in (3, 5, 7, 10)]
    again = fit_curve([*fresh, *repeated])
    assert again.error_at(10).median == pytest.approx(
        once.error_at(10).median, abs=0.02
    )
    fooled = fit_curve([*fresh, *[Score(s.labels, 0.9, 0.15) for s in repeated]])
    assert fooled.error_at(10).median > again.error_at(10).median + 0.1


def test_it_is_enough_where_the_gain_is_small() -> None:
    """A flat curve ends the work at once, a steep one later."""
    flat = fit_curve([Score(20, 0.1, 0.01), Score(40, 0.1, 0.01), Score(80, 0.1, 0.01)])
    assert flat.enough(0.02, 20, 8000) == 80
    later = fit_curve(scores(5, 10, 20)).enough(0.02, 20, 8000)
    assert later is not None
    assert later > 20


def test_one_number_of_labels_is_refused() -> None:
    """A point has no direction."""
    with pytest.raises(
        DataError, match="at least two numbers of training images, got 5"
    ):
        fit_curve(scores(5, 5))
