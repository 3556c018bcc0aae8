"""Training by the paper's released protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import config, gray_set, registry

from simmat import training
from simmat.bundle import load_bundle
from simmat.config import load_config
from simmat.evaluation import COMPAT, EvalRequest, evaluate_bundle
from simmat.training.step import learning_rate

NEEDED = {"modality": "thermal", "data": Path("/data"), "out": Path("/run")}


def test_the_preset_is_the_released_training() -> None:
    """51 epochs of 4, one random click an object, dice and BCE, no decay, no augmentation, squashed images."""
    preset = load_config(None, {**NEEDED, "protocol": "simmat-compat"})
    assert (
        preset.epochs,
        preset.steps,
        preset.batch_size,
        preset.prompts_per_image,
    ) == (51, None, 4, 1)
    assert (
        preset.clicks,
        preset.box_fraction,
        preset.correction_clicks,
        preset.augment,
    ) == ("random", 0, 0, False)
    assert (preset.loss, preset.aspect, preset.weight_decay, preset.grad_clip) == (
        "bce",
        "stretch",
        0,
        0,
    )
    assert (preset.schedule, preset.warmup_steps) == ("halving", 0)


@pytest.mark.parametrize(
    ("tune", "rate"),
    [("lora", 3e-4), ("adapter", 3e-4), ("prefix", 3e-4), ("full", 3e-5)],
)
def test_the_learning_rates_are_the_released_ones(tune: str, rate: float) -> None:
    """They are the tuners' own, so the preset says none."""
    assert load_config(None, {**NEEDED, "protocol": "simmat-compat"}).lr is None
    assert registry("baselines").tuner(tune).learning_rate == rate


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 1.0), (9, 1.0), (10, 0.5), (29, 0.25), (50, 1 / 32)]
)
def test_the_rate_is_halved_every_ten_epochs(epoch: int, rate: float) -> None:
    """In epochs, not in parts of the run: a longer run ends lower."""
    assert (
        learning_rate(5, peak=1.0, steps=999, warmup=0, schedule="halving", epoch=epoch)
        == rate
    )


def test_the_best_bundle_is_chosen_by_the_same_protocol(tmp_path: Path) -> None:
    """Its validation score is what `simmat eval --protocol simmat-compat --split val` says."""
    data = gray_set(tmp_path / "set")
    settings = config(
        data,
        tmp_path / "run",
        protocol="simmat-compat",
        batch_size=5,
        steps=11,
        val_every=11,
        lr=1e-3,
    )
    bundle = load_bundle(training.train(settings, registry()), registry())
    scores, _ = evaluate_bundle(
        bundle, data, "val", request=EvalRequest(protocol=COMPAT)
    )
    assert bundle.spec.aspect == "stretch"
    assert bundle.spec.metrics["protocol"] == "simmat-compat"
    assert bundle.spec.metrics["val"]["miou_oracle"] is None
    assert scores.summary()["miou_object"] == pytest.approx(
        bundle.spec.metrics["val"]["miou_object"], abs=1e-6
    )
    lines = [
        json.loads(line)
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    # 5 images a step of 5: every step is an epoch, and the eleventh has half the rate.
    assert [line["lr"] for line in lines if line["kind"] == "train"] == [1e-3] * 10 + [
        5e-4
    ]
