"""The tuners to compare with: what moves, what starts as it was, and that a bundle brings it back."""

from __future__ import annotations

import pytest
import torch
from bundle.test_format import expect_same_after_a_bundle
from nn.test_tuners import X, expect_state_of_what_moves, moving, toy, tune
from simmat_plugin_baselines import TUNERS
from simmat_testing import TunerContract

SPECS = {spec.name: spec for spec in TUNERS}


class TestTuners(TunerContract):
    """Each of them."""

    @pytest.fixture(params=SPECS)
    def tuner(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name


@pytest.mark.parametrize("name", ["adapter", "conv-lora"])
def test_nothing_changes_before_the_first_step(name: str) -> None:
    """They start at zero, bit for bit. What joins an attention takes a share of it from the first step on."""
    assert torch.equal(tune(toy(), SPECS[name])(X), toy()(X))


def test_each_tuner_moves_what_it_says() -> None:
    """The tuner is the experiment; a parameter too many is another experiment."""
    of_lora = moving(tune(toy(), "lora"))
    assert moving(tune(toy(), SPECS["conv-lora"])) == of_lora | {
        "backbone.point.lora_conv"
    }
    assert moving(tune(toy(), SPECS["prompt"])) == {"decoder.attend.memory.tokens"}
    assert moving(tune(toy(), SPECS["prefix"])) == {
        f"decoder.attend.memory.{part}" for part in ("keys", "values")
    }
    parts = ("down", "down_bias", "up", "up_bias")
    assert moving(tune(toy(), SPECS["adapter"])) == {
        f"backbone.mlp.adapter.{part}" for part in parts
    }


@pytest.mark.parametrize("name", SPECS)
def test_the_trainable_state_is_all_that_training_moves(name: str) -> None:
    """What is not in it is rebuilt from the foundation weights when a bundle is loaded."""
    expect_state_of_what_moves(tune(toy(), SPECS[name]))


@pytest.mark.parametrize("name", SPECS)
def test_what_a_bundle_holds_gives_the_trained_model_back(name: str) -> None:
    """Whatever training moved and a bundle forgot would be lost without a word."""
    expect_same_after_a_bundle("mat-residual", name)
