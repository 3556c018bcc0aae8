"""`simmat eval` with its protocols: from a bundle to a table, a file and a picture; on one process and on two."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from launched import TWO_PROCESSES, run_python
from runs import config, gray_set, registry

from simmat import training
from simmat.assemble import Parts
from simmat.cli import run
from simmat.evaluation import why_no_zero_shot

pytestmark = pytest.mark.plugins()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_set(tmp_path_factory.mktemp("data") / "set", test=3)


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.train(
        config(data, tmp_path_factory.mktemp("run") / "run", steps=1), registry()
    )


FULL = ["--protocol", "full", "--clicks", "3", "--repeats", "2", "--device", "cpu"]


def evaluate(bundle: Path, data: Path, out: Path, *more: str) -> dict[str, Any]:
    assert (
        run(["eval", str(bundle), "--data", str(data), "--out", str(out), *more]) == 0
    )
    return dict(json.loads(out.read_text()))


def test_a_score_of_training_images_says_so(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stands beside the score, and in the file."""
    full = [
        "--split",
        "train",
        "--protocol",
        "full",
        "--clicks",
        "2",
        "--repeats",
        "1",
        "--device",
        "cpu",
    ]
    report = evaluate(bundle, data, tmp_path / "s.json", *full)
    assert report["seen"] == {"trained": 5, "validated": 0, "left_out": 0}
    assert report["seen_images"]["trained"] == ["s0", "s1", "s2", "s3", "s4"]
    assert "5 of 5 images were used to train the bundle" in capsys.readouterr().out


def test_the_untuned_model_searches_every_object_only_where_that_is_asked(
    bundle: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A grid of clicks takes it seconds an image."""
    for module in ("simmat.evaluation.scoring", "simmat.evaluation"):
        monkeypatch.setattr(f"{module}.why_no_zero_shot", lambda parts: "")
    asked = ("--everything", "--device", "cpu")
    assert (
        evaluate(bundle, data, tmp_path / "s.json", *asked)["zero_shot"]["everything"]
        is None
    )
    assert "add --zero-shot" in capsys.readouterr().out
    report = evaluate(bundle, data, tmp_path / "s.json", *asked, "--zero-shot")
    assert report["zero_shot"]["everything"]["clicks"] == "grid"


def test_compat_says_what_the_bundle_was_not_trained_for(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle of kept aspect sees squashed images for the first time; a low figure would puzzle."""
    report = evaluate(
        bundle,
        data,
        tmp_path / "s.json",
        "--protocol",
        "simmat-compat",
        "--device",
        "cpu",
    )
    assert report["tuned"]["miou_oracle"] is None
    assert "clicks" not in report["tuned"]
    assert "aspect" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_file_of_one(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    """Three samples on two processes: none is scored twice, and the order is that of the data set."""
    alone = evaluate(bundle, data, tmp_path / "one.json", *FULL)
    command = [
        "-m",
        "simmat",
        "eval",
        str(bundle),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "two.json"),
        *FULL,
    ]
    done = run_python([*TWO_PROCESSES, *command])
    assert done.stdout.count("protocol full") == 1
    shared = json.loads((tmp_path / "two.json").read_text())
    assert [(s["sample"], s["region"]) for s in shared["scores"]] == [
        (s["sample"], s["region"]) for s in alone["scores"]
    ]
    for ours, theirs in zip(shared["scores"], alone["scores"], strict=True):
        assert ours["random_clicks"] == pytest.approx(theirs["random_clicks"], abs=2e-2)
        assert ours["clicks"] == pytest.approx(theirs["clicks"], abs=2e-2)


@pytest.mark.parametrize(
    ("promptable", "weights", "exported", "said"),
    [
        (False, None, False, "decoder of 'x'"),
        (True, None, False, "random weights"),
        (True, None, True, "exported"),
        (True, Path("w"), False, ""),
    ],
)
def test_the_reason_for_a_missing_zero_shot_score_is_reported(
    promptable: bool, weights: Path | None, exported: bool, said: str
) -> None:
    """A model thrown away for a start from scratch was trained all the same, and an export can be scored otherwise."""
    foundation = SimpleNamespace(name="x", promptable=promptable)
    parts = SimpleNamespace(foundation=foundation, weights=weights, exported=exported)
    found = why_no_zero_shot(cast(Parts, parts))
    assert said in found
    assert ("random" in found) == (said == "random weights")
    assert bool(found) == bool(said)
