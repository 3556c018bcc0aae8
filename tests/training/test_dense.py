"""A run with a dense head: what it trains is in the bundle, and finds objects without prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import config, gray_set, registry

import simmat
from simmat import cli, training
from simmat.bundle import load_bundle
from simmat.config import load_config
from simmat.errors import ConfigError
from simmat.predictor.objects import EverythingSettings
from simmat.training.plan import plan_run
from simmat.training.resumed import check_settings
from simmat.training.run_folder import settings_of


@pytest.fixture
def run(dense_bundle: Path) -> Path:
    """A run of two steps with both heads, beside its data set."""
    return dense_bundle.parent


def test_objects_are_found_without_prompts(run: Path) -> None:
    """Every object has a mask, a score and the click that found it."""
    model = simmat.load(run, device="cpu")
    image = model.set_image(
        next(iter(sorted((run.parent / "set" / "images").iterdir())))
    )
    assert (
        model.segment_everything(EverythingSettings(peak=1.0, peak_window=99)) == []
    )  # no peak, and no part of 99² pixels
    found = model.segment_everything(
        EverythingSettings(peak=0.0, min_score=0.0, objectness=0.0)
    )
    assert found
    assert all(0 <= one.score <= 1 and one.instance.area >= 1 for one in found)
    assert [one.score for one in found] == sorted(
        (one.score for one in found), reverse=True
    )
    classes = model.segment_semantic()
    assert classes.labels.shape == image.size_hw
    assert set(np.unique(classes.labels)) <= {
        0,
        *(value or 1 for value in load_bundle(run, registry()).spec.dense.classes),
    }
    assert (classes.probability > 0).all()


def test_validation_scores_it_and_chooses_by_all_scores(run: Path) -> None:
    """A bundle that answers clicks well and finds nothing is not the best one."""
    records = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    found = [record for record in records if record["kind"] == "val"]
    for record in found:
        assert 0 <= record["semantic"]["miou"] <= 1
        every = (
            record["miou_object"],
            record["everything"]["ap50"],
            record["semantic"]["miou"],
        )
        assert record["score"] == pytest.approx(sum(every) / 3)
    best = max(found, key=lambda record: (record["score"], -record["step"]))
    assert load_bundle(run, registry()).spec.metrics["step"] == best["step"]


def test_eval_scores_masks_without_prompts(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Python and on the command line, beside the scores of clicks."""
    report = simmat.evaluate(
        run, run.parent / "set", everything=True, semantic=True, device="cpu"
    )
    assert report["tuned"]["everything"]["clicks"] == "peaks of the dense head"
    assert report["class_names"] == {"0": "background", "1": "object"}
    assert set(report["cost"]["tuned"]) == {
        "encode_ms",
        "decode_ms",
        "everything_ms",
        "semantic_ms",
    }
    plain = simmat.evaluate(run, run.parent / "set", device="cpu")
    assert (
        set(report["tuned"].pop("confidence"))
        > set(plain["tuned"].pop("confidence"))
        == {"click"}
    )
    blocks = ("everything", "semantic")
    assert {
        name: value for name, value in report["tuned"].items() if name not in blocks
    } == plain["tuned"]
    options = [
        "--data",
        str(run.parent / "set"),
        "--everything",
        "--semantic",
        "--device",
        "cpu",
    ]
    assert cli.run(["eval", str(run), *options]) == 0
    said = capsys.readouterr().out
    assert all(
        row in said
        for row in (
            "AP50",
            "PQ",
            "F1",
            "class map: mIoU",
            "IoU of class 0 (background)",
        )
    )


def test_images_with_unmarked_objects_are_refused(tmp_path: Path) -> None:
    """Their background would be learned as such."""
    settings = config(
        gray_set(tmp_path / "set"),
        tmp_path / "run",
        heads="prompt,dense",
        zero_means="unlabelled",
    )
    with pytest.raises(ConfigError, match="unlabelled"):
        training.train(settings, registry())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "heads"),
    [
        ({}, "prompt,dense"),
        ({"zero_means": "unlabelled"}, "prompt"),
        ({"protocol": "simmat-compat"}, "prompt"),
    ],
)
def test_the_card_chooses_the_heads(
    run: Path, tmp_path: Path, changes: dict[str, str], heads: str
) -> None:
    """A dense head is trained where every object is marked, so that everything can be found without an option."""
    settings = config(run.parent / "set", tmp_path / "run", **changes).model_dump(
        exclude_none=True
    )
    del settings["heads"]
    chosen = load_config(None, settings)
    assert plan_run(chosen, registry()).config.heads == heads


def test_a_resumed_run_keeps_its_heads(run: Path, tmp_path: Path) -> None:
    """They were chosen from the data card at its start."""
    now = config(run.parent / "set", tmp_path / "run", heads="auto")
    started = settings_of(now)
    check_settings(now, started | {"heads": "prompt,dense"})
    with pytest.raises(ConfigError, match="heads"):
        check_settings(now.model_copy(update={"heads": "prompt,dense"}), started)


def test_a_clicked_mask_has_the_class_that_the_map_gives_its_pixels(
    tmp_path: Path,
) -> None:
    """Who clicks on an object wants to know what it is."""
    settings = config(
        gray_set(tmp_path / "set"),
        tmp_path / "run",
        heads="prompt,dense",
        steps=1,
        pictures=False,
        regions="classes",
    )
    training.train(settings, registry())
    model = simmat.load(tmp_path / "run", device="cpu", registry=registry())
    assert model.dense is not None
    assert model.model.dense is not None
    model.set_image(
        tmp_path
        / "set/images"
        / min(path.name for path in (tmp_path / "set/images").iterdir())
    )
    for place, value in enumerate(model.dense.classes, start=1):
        with torch.no_grad():
            model.model.dense.classes.weight.zero_()
            model.model.dense.classes.bias.zero_()
            model.model.dense.classes.bias[place] = 2.0
        model.set_image(model.image)
        found = model.predict([(20, 20)])
        assert found.class_id == value
        assert found.class_probability is not None
