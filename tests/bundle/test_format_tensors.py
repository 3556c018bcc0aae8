"""Every transfer layer and every tuner comes back from the tensors of a bundle."""

from __future__ import annotations

import pytest
import torch
from test_model import ask, inputs, network

from simmat.bundle import load_tensors, trained_tensors
from simmat.model import SimMAT
from simmat.nn.tuners import set_train_mode
from simmat.plugins.builtin import TRANSFER_LAYERS, TUNERS

LAYERS = [(spec.name, "lora") for spec in TRANSFER_LAYERS] + [
    ("mat-residual", spec.name) for spec in TUNERS
]
PAIRS = [*dict.fromkeys(LAYERS), ("channel-attention", "full")]


def answer(model: SimMAT) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a model answers in evaluation."""
    with torch.inference_mode():
        prediction = model.eval()(*inputs(3), ask())
    return prediction.logits, prediction.iou


def trained(mat: str, tune: str) -> SimMAT:
    """Return a model after two training steps."""
    model = network(3, mat, tune)
    set_train_mode(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, 0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of dropout
        for _ in range(2):
            optimiser.zero_grad()
            prediction = model(*inputs(3), ask())
            (
                prediction.logits.square().mean() + prediction.iou.square().mean()
            ).backward()
            optimiser.step()
    return model


@pytest.mark.parametrize(("mat", "tune"), PAIRS, ids=map("+".join, PAIRS))
def test_what_a_bundle_holds_gives_the_trained_model_back(mat: str, tune: str) -> None:
    """Whatever training moved and a bundle forgot would be lost without a word."""
    expect_same_after_a_bundle(mat, tune)


def expect_same_after_a_bundle(mat: str, tune: str) -> None:
    """Train, and compare the answers with those of a model that is filled from the trained tensors."""
    model, again = trained(mat, tune), network(3, mat, tune)
    fresh = answer(again)
    expected = answer(model)
    assert not torch.equal(fresh[0], expected[0])
    load_tensors(again, trained_tensors(model), "test")
    assert all(torch.equal(a, b) for a, b in zip(answer(again), expected, strict=True))
