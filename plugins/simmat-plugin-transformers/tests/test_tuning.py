"""Every tuner of the core on every family, and recomputation to save memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from simmat.foundation import PromptBatch
from simmat.nn.prompt_tuning import apply_prefix, apply_prompt
from simmat.nn.tuners import set_train_mode
from simmat.plugins.loader import load_plugins
from simmat.testing import build_network

BUILTIN = load_plugins(env={"SIMMAT_PLUGINS": ""})


def answer(model: Any, size: int) -> Tensor:
    """Logits of a click in each of two images."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    prompts = PromptBatch(torch.tensor([0, 1]), torch.full((2, 1, 2), 20.0), torch.ones(2, 1, dtype=torch.int64))
    embedding = model.backbone.encode(model.backbone.embed(images))
    logits: Tensor = model.decoder.decode(embedding, prompts).logits
    return logits


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_joined_tokens_reach_every_attention_and_learn(tiny: Any, kind: str) -> None:
    """One that joined nothing would train tokens of no effect."""
    model = tiny.build()
    plain = answer(model, tiny.size).detach()
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    if kind == "prompt":
        apply_prompt(model, targets=tiny.spec().targets, generator=generator, tokens=3, dropout=0.0)
    else:
        apply_prefix(model, targets=tiny.spec().targets, generator=generator, tokens=3)
    joined = answer(model, tiny.size)
    joined.square().mean().backward()
    memories = {name: p for name, p in model.named_parameters() if ".memory." in name}
    assert len(memories) >= 2  # at least one an encoder's layer
    assert not torch.allclose(joined, plain, atol=1e-5)
    assert all(p.grad is not None and p.grad.any() for p in memories.values())


def test_a_prefix_that_repeats_all_keys_and_values_changes_nothing(tiny_of: Any) -> None:
    """Attention over everything twice is attention over it once: the joining itself is exact."""
    from simmat_plugin_transformers.attention import WindowAttention

    model = tiny_of("sam").build()
    attention = next(m for m in model.modules() if isinstance(m, WindowAttention))
    attention.relative = False  # joined tokens have no position
    x = torch.randn(1, 3, 3, attention.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        once, _ = attention(x)
        keys, values = attention.qkv(x).reshape(9, 3, -1).unbind(1)[1:]
        attention.memory = Given("prefix", keys, values)
        twice, _ = attention(x)
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_the_attention_of_the_interface_joins_exactly_too(tiny_of: Any, kind: str) -> None:
    """As above, for a ViT, where a prompt repeats the tokens and a prefix their keys and values."""
    model = tiny_of("dinov2").build()
    attention: Any = model.backbone.body.vision.encoder.layer[0].attention
    x = torch.randn(1, 9, attention.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        once, _ = attention(x)
        given = (x[0], x[0]) if kind == "prompt" else (attention.k_proj(x[0]), attention.v_proj(x[0]))
        attention.memory = Given(kind, *given)
        twice, _ = attention(x)
    torch.testing.assert_close(once, twice)


class Given(nn.Module):
    """A memory of given tokens."""

    def __init__(self, kind: Any, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.kind, self.keys, self.values = kind, keys, values

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.keys, self.values


@pytest.mark.parametrize("frozen", [True, False])
def test_recomputing_gives_the_same_gradients(tiny: Any, frozen: bool) -> None:
    """Also of the image in front of a frozen encoder, which is where a MAT stands."""
    gradients = []
    for on in (False, True):
        model = tiny.build()
        model.requires_grad_(not frozen)
        set_train_mode(model)
        model.gradient_checkpointing(on)
        images = torch.randn(1, 3, tiny.size, tiny.size, generator=torch.Generator().manual_seed(2)).requires_grad_()
        embedding = model.backbone.encode(model.backbone.embed(images))
        embedding.levels[-1].square().mean().backward()
        assert images.grad is not None
        gradients.append(images.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mat", BUILTIN.names("transfer layer"))
@pytest.mark.parametrize(
    "name", ["sam2", pytest.param("sam3", marks=pytest.mark.slow), pytest.param("dinov3", marks=pytest.mark.slow)]
)
def test_every_transfer_layer_works_before_every_kind_of_first_layer(tiny_of: Any, name: str, mat: str) -> None:
    """A stem that overlaps and pads, one without bias, and a patch embedding: what a layer trains gets a gradient."""
    tiny = tiny_of(name)
    planes = 4 if mat != "identity" else 3
    network = build_network(
        tiny.spec(), channels=planes, transfer=mat, image_size=tiny.size, weights=tiny.spec().weights.path
    )
    set_train_mode(network)
    content = torch.ones(1, tiny.size, tiny.size, dtype=torch.bool)
    content[:, tiny.size // 2 :] = False
    image = torch.randn(1, planes, tiny.size, tiny.size, generator=torch.Generator().manual_seed(1))
    prompts = PromptBatch(torch.tensor([0]), torch.full((1, 1, 2), 20.0), torch.ones(1, 1, dtype=torch.int64))
    logits = network(image * content[:, None], content, prompts).logits
    assert logits.isfinite().all()
    if trains := [parameter for parameter in network.mat.parameters() if parameter.requires_grad]:
        logits.square().mean().backward()
        assert any(p.grad is not None and p.grad.any() for p in trains)
