"""Every built-in transfer layer with every built-in tuner: what trains moves, and what is frozen does not."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from simmat_testing.networks import build_network
from simmat_testing.tiny import TINY

from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.nn.losses import mask_loss
from simmat.nn.tuners import set_train_mode, trainable_state
from simmat.plugin_specs import TransferLayerSpec, TunerSpec
from simmat.plugins.builtin import TRANSFER_LAYERS, TUNERS

SIZE = 64


def images(count: int, size: int = SIZE) -> torch.Tensor:
    """Return (B, 3, S, S) normalised input."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def clicks(image_index: list[int], points: int = 2) -> PromptBatch:
    """Return a prompt of some points for every index."""
    generator = torch.Generator().manual_seed(6)
    return PromptBatch(
        image_index=torch.tensor(image_index),
        point_coords=torch.rand(len(image_index), points, 2, generator=generator)
        * SIZE,
        point_labels=torch.randint(
            0, 2, (len(image_index), points), generator=generator
        ),
    )


def network(transfer: TransferLayerSpec, tuner: TunerSpec) -> SimMAT:
    """Build the tiny model for three channels."""
    return build_network(TINY, transfer=transfer, tuner=tuner, image_size=SIZE)


def step(model: SimMAT, optimiser: torch.optim.Optimizer) -> None:
    """Take a training step on two images and five prompts."""
    optimiser.zero_grad()
    content = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    targets = (
        torch.rand(5, SIZE, SIZE, generator=torch.Generator().manual_seed(9)) > 0.5
    )
    mask_loss(model(images(2), content, clicks([0, 1, 1, 0, 0])), targets)[
        0
    ].mean().backward()
    optimiser.step()


@pytest.mark.parametrize(
    ("transfer", "tuner"),
    [
        pytest.param(
            transfer,
            tuner,
            id=f"{transfer.name}-{tuner.name}",
            marks=()
            if transfer.name == "mat-residual" or tuner.name == "lora"
            else pytest.mark.slow,
        )
        for transfer, tuner in product(TRANSFER_LAYERS, TUNERS)
    ],
)
def test_after_two_steps_what_trains_has_moved_and_what_is_frozen_has_not(
    transfer: TransferLayerSpec, tuner: TunerSpec
) -> None:
    """A trainable weight without gradient is dead, and a frozen one that moves is lost when the bundle is saved."""
    model = network(transfer, tuner)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        assert {transfer.name, tuner.name} <= {"identity", "zeroshot", "frozen"}
        return
    set_train_mode(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD(trainable, 1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of dropout, as the training loop seeds it
        for _ in range(2):
            step(model, optimiser)
    kept = trainable_state(model)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name
        assert parameter.requires_grad == (name in kept)
    for name, tensor in model.state_dict().items():
        assert name in kept or torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("tuner", TUNERS, ids=lambda spec: spec.name)
def test_before_the_first_step_every_tuner_answers_as_the_frozen_model(
    tuner: TunerSpec,
) -> None:
    """LoRA starts at zero: bit for bit the pretrained model."""
    transfer = next(spec for spec in TRANSFER_LAYERS if spec.name == "zeroshot")
    frozen = next(spec for spec in TUNERS if spec.name == "frozen")
    content = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    # torch's attention takes another way where it must keep values for gradients
    with torch.inference_mode():
        tuned, plain = (
            network(transfer, spec)(images(2), content, clicks([0, 1]))
            for spec in (tuner, frozen)
        )
    assert torch.equal(tuned.logits, plain.logits)
    assert torch.equal(tuned.iou, plain.iou)
