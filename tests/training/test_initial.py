"""A training that starts from a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import config, gray_set, registry
from simmat_testing.tiny import TINY

from simmat import training
from simmat.bundle import read_bundle
from simmat.errors import ConfigError
from simmat.io.weights import sha256_of
from simmat.plugin_specs import WeightFile
from simmat.plugins.registry import Registry
from simmat.training.network import network_of_bundle
from simmat.training.plan import plan_run


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("first")
    settings = config(
        gray_set(root / "set"), root / "run", steps=4, lr=1e-2, heads="prompt,dense"
    )
    training.train(settings, registry())
    return root


def test_a_training_continues_where_a_bundle_is(first: Path, tmp_path: Path) -> None:
    """A second training, on more images, must not lose what the first one learnt."""
    settings = config(
        first / "set",
        tmp_path / "run",
        init=first / "run",
        steps=1,
        heads="prompt,dense",
        tune=None,
    )
    training.train(settings, registry())
    before: Any = read_bundle(first / "run")[0].metrics["val"]
    records = [
        json.loads(line)
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    assert records[0]["step"] == 0
    assert records[0]["miou_object"] == pytest.approx(before["miou_object"], abs=1e-6)
    assert records[0]["semantic"] == before["semantic"]
    assert read_bundle(tmp_path / "run")[0].tune == "lora"


def test_what_the_first_training_saw_stays_seen(first: Path, tmp_path: Path) -> None:
    """A score on an image of the first training would be no score of a new image."""
    other = gray_set(tmp_path / "set", train=3)
    for image in (tmp_path / "set/images").iterdir():
        # other files, which the first training has not seen
        image.write_bytes(image.read_bytes() + b"\0")
    training.train(
        config(other, tmp_path / "run", init=first / "run", steps=1), registry()
    )
    (then, _), (now, _) = read_bundle(first / "run"), read_bundle(tmp_path / "run")
    assert then.trained_on is not None
    assert now.trained_on is not None
    assert set(then.trained_on.rows()) < set(now.trained_on.rows())


def test_a_dense_head_of_other_classes_starts_anew(first: Path, tmp_path: Path) -> None:
    """Labels of a class that is new must not end what was learnt of clicks."""
    settings = config(
        first / "set",
        tmp_path / "run",
        init=first / "run",
        steps=1,
        heads="prompt,dense",
        regions="classes",
    )
    training.train(settings, registry())
    (_, then), (_, now) = read_bundle(first / "run"), read_bundle(tmp_path / "run")
    heads = {"dense.classes.weight", "dense.classes.bias"}
    assert {name for name in then if then[name].shape != now[name].shape} == heads
    layer = [name for name in then if name.startswith("mat.")]
    assert layer
    for name in layer:
        # a step at a rate of 1e-3 from there
        assert torch.allclose(then[name], now[name], atol=2e-3)


def test_a_bundle_trained_from_scratch_is_trained_on(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was compared with pretrained weights, which it never used."""
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"never read")
    pretrained = replace(
        TINY, weights=WeightFile(weights.name, sha256_of(weights), path=weights)
    )
    monkeypatch.setattr(
        Registry, "foundation", lambda self, name, *, fetch=True: pretrained
    )
    scratch = config(
        first / "set", tmp_path / "first", from_scratch=True, tune="full", steps=1
    )
    training.train(scratch, registry())
    again = config(
        first / "set", tmp_path / "run", init=tmp_path / "first", tune=None, steps=1
    )
    training.train(again, registry())
    assert read_bundle(tmp_path / "run")[0].foundation_sha256 is None
    with pytest.raises(ConfigError, match=r"random weights.*leave --checkpoint out"):
        plan_run(again.model_copy(update={"checkpoint": weights}), registry())


def test_a_bundle_of_another_network_is_refused(first: Path, tmp_path: Path) -> None:
    """Its weights would not fit, and a part of them would be worse than none."""
    with pytest.raises(ConfigError, match=r"--init .*tune = lora.*full"):
        training.train(
            config(first / "set", tmp_path / "run", init=first / "run", tune="full"),
            registry(),
        )
    with pytest.raises(ConfigError, match=r"--init .*sensor channels"):
        training.train(
            config(
                first / "set", tmp_path / "run", init=first / "run", modality="raster"
            ),
            registry(),
        )
    exported = read_bundle(first / "run")[0].model_copy(update={"exported": "onnx"})
    with pytest.raises(ConfigError, match=r"--init .*exported"):
        network_of_bundle(
            config(first / "set", tmp_path / "run", init=first / "run", tune=None),
            exported,
        )
    assert not (tmp_path / "run").exists()


def records(run: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    return [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]


def test_new_images_are_scored_before_they_are_learned(tmp_path: Path) -> None:
    """Only then is the score that of images which the model does not know: a point of an honest learning curve."""
    data = gray_set(tmp_path / "set", train=5)
    few = config(data, tmp_path / "few", steps=1, train_images=2)
    training.train(few, registry())
    more = config(data, tmp_path / "more", steps=1, init=tmp_path / "few")
    training.train(more, registry())
    assert not [one for one in records(tmp_path / "few") if one["kind"] == "new"]
    (new,) = [one for one in records(tmp_path / "more") if one["kind"] == "new"]
    assert new["labels"] == 2
    assert new["scores"]["images"] == 3  # of train; those of val are known
    assert 0 <= new["scores"]["miou_object"] <= 1
