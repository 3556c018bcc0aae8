"""The contract of foundation models and every tuner of the core on every family, and recomputation to save memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from simmat_testing import FoundationContract
from simmat_testing.networks import build_network

from simmat.foundation import PromptBatch
from simmat.nn.tuners import set_train_mode
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.loader import load_plugins

BUILTIN = load_plugins(env={"SIMMAT_PLUGINS": ""})


@pytest.mark.parametrize("frozen", [True, False])
def test_recomputing_gives_the_same_gradients(tiny: Any, frozen: bool) -> None:
    """Also of the image in front of a frozen encoder, which is where a MAT stands."""
    gradients = []
    for on in (False, True):
        model = tiny.build()
        model.requires_grad_(not frozen)
        set_train_mode(model)
        model.gradient_checkpointing(on)
        images = torch.randn(
            1, 3, tiny.size, tiny.size, generator=torch.Generator().manual_seed(2)
        ).requires_grad_()
        embedding = model.backbone.encode(model.backbone.embed(images))
        embedding.levels[-1].square().mean().backward()
        assert images.grad is not None
        gradients.append(images.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mat", BUILTIN.names("transfer layer"))
@pytest.mark.parametrize("name", ["sam2", pytest.param("sam3", marks=pytest.mark.slow)])
def test_every_transfer_layer_works_before_every_kind_of_first_layer(
    tiny_of: Any, name: str, mat: str
) -> None:
    """A stem that overlaps and pads, and one without bias: what a layer trains gets a gradient."""
    tiny = tiny_of(name)
    planes = 4 if mat != "identity" else 3
    network = build_network(
        tiny.spec(),
        channels=planes,
        transfer=mat,
        image_size=tiny.size,
        weights=tiny.spec().weights.path,
    )
    set_train_mode(network)
    content = torch.ones(1, tiny.size, tiny.size, dtype=torch.bool)
    content[:, tiny.size // 2 :] = False
    image = torch.randn(
        1, planes, tiny.size, tiny.size, generator=torch.Generator().manual_seed(1)
    )
    prompts = PromptBatch(
        torch.tensor([0]),
        torch.full((1, 1, 2), 20.0),
        torch.ones(1, 1, dtype=torch.int64),
    )
    logits = network(image * content[:, None], content, prompts).logits
    assert logits.isfinite().all()
    if trains := [
        parameter for parameter in network.mat.parameters() if parameter.requires_grad
    ]:
        logits.square().mean().backward()
        assert any(p.grad is not None and p.grad.any() for p in trains)


class TestFamilies(FoundationContract):
    @pytest.fixture
    def foundation(self, tiny: Any) -> FoundationSpec:
        spec: FoundationSpec = tiny.spec()
        return spec
