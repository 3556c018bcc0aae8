"""Every transfer layer and tuner of the core on `lite`."""

from __future__ import annotations

import pytest
import torch
from simmat_plugin_lite.spec import LITE

from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.nn.tuners import set_train_mode
from simmat.plugins.builtin import TRANSFER_LAYERS, TUNERS
from simmat.specs import TransferLayerSpec, TunerSpec
from simmat.testing import build_network

SIZE = 64
FROZEN = next(spec for spec in TUNERS if spec.name == "frozen")
ZERO_SHOT = next(spec for spec in TRANSFER_LAYERS if spec.name == "zeroshot")
MAT = next(spec for spec in TRANSFER_LAYERS if spec.name == "mat")


def network(transfer: TransferLayerSpec, tuner: TunerSpec) -> SimMAT:
    """Build lite of random weights for three channels."""
    return build_network(LITE, transfer=transfer, tuner=tuner, image_size=SIZE)


def answer(model: SimMAT) -> torch.Tensor:
    """Return logits of two images, one of them half padding."""
    content = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    content[1, 32:] = False
    planes = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * content[:, None]
    prompts = PromptBatch(torch.tensor([0, 1]), torch.full((2, 1, 2), 20.0), torch.ones(2, 1, dtype=torch.int64))
    prediction = model(planes, content, prompts)
    return torch.cat([prediction.logits.flatten(1), prediction.iou], 1)


PAIRS = [*((transfer, FROZEN) for transfer in TRANSFER_LAYERS), *((MAT, tuner) for tuner in TUNERS)]


@pytest.mark.parametrize(("transfer", "tuner"), PAIRS, ids=lambda spec: spec.name)
def test_what_trains_gets_a_gradient_and_what_is_frozen_none(transfer: TransferLayerSpec, tuner: TunerSpec) -> None:
    """A stem that pads, images of features and a fused attention in a block: all unlike SAM."""
    model = network(transfer, tuner)
    set_train_mode(model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        assert transfer.name in ("identity", "zeroshot")
        return
    optimiser = torch.optim.SGD(trainable, 1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of dropout
        for _ in range(2):
            optimiser.zero_grad()
            answer(model).square().mean().backward()
            optimiser.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("name", ["lora", "conv-lora", "adapter", "linear"])
def test_a_tuned_lite_starts_as_the_untouched_one(name: str) -> None:
    """Low-rank updates and adapters begin at zero."""
    tuner = next(spec for spec in TUNERS if spec.name == name)
    with torch.inference_mode():
        tuned, plain = (answer(network(ZERO_SHOT, spec).eval()) for spec in (tuner, FROZEN))
    torch.testing.assert_close(tuned, plain, atol=1e-6, rtol=1e-6)
