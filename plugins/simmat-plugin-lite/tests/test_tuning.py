"""Every transfer layer and tuner of the core on `lite`."""

from __future__ import annotations

import pytest
import torch
from simmat_plugin_lite.spec import LITE

from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.plugin_specs import TransferLayerSpec, TunerSpec
from simmat.plugins.builtin import TRANSFER_LAYERS, TUNERS
from simmat.testing import build_network

SIZE = 64
FROZEN = next(spec for spec in TUNERS if spec.name == "frozen")
ZERO_SHOT = next(spec for spec in TRANSFER_LAYERS if spec.name == "zeroshot")


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


@pytest.mark.parametrize("name", ["lora", "adapter", "linear"])
def test_a_tuned_lite_starts_as_the_untouched_one(name: str) -> None:
    """Low-rank updates and adapters begin at zero."""
    tuner = next(spec for spec in TUNERS if spec.name == name)
    with torch.inference_mode():
        tuned, plain = (answer(network(ZERO_SHOT, spec).eval()) for spec in (tuner, FROZEN))
    torch.testing.assert_close(tuned, plain, atol=1e-6, rtol=1e-6)
