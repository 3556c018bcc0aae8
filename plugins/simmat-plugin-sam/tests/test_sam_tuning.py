"""Tuners on SAM: as many parameters as the released methods move, where and how they move them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention as EncoderAttention
from segment_anything.modeling.image_encoder import add_decomposed_rel_pos
from segment_anything.modeling.transformer import Attention as DecoderAttention
from simmat_plugin_baselines import TUNERS as OTHER_TUNERS
from simmat_plugin_baselines.adapters import Adapted
from simmat_plugin_baselines.prompt_tuning import PrefixTokens, PromptTokens
from simmat_plugin_sam.model import FusedAttention, SamModel, build_sam
from simmat_plugin_sam.specs import SAM_VIT_B, SAM_VIT_TINY
from simmat_plugin_sam.two_way import (
    ImageToTokenAttention,
    TokenAttention,
    TokenToImageAttention,
)
from torch import nn

from simmat.errors import ConfigError
from simmat.nn.mat import build_mat
from simmat.nn.tuners import set_train_mode
from simmat.plugin_specs import TuningTargets
from simmat.plugins.builtin import TUNERS
from simmat.plugins.registry import import_from_string
from simmat.types import Channel

SPECS = {spec.name: spec for spec in (*TUNERS, *OTHER_TUNERS)}
RELEASED: dict[str, tuple[dict[str, Any], int]] = {
    "full": ({}, 93_736_231),
    "linear": ({}, 3_743_299),
    "adapter": ({}, 3_910_707),
    "lora": ({"rank": 100, "alpha": 100.0}, 4_282_179),
    "prompt": ({}, 4_410_179),
    "prefix": ({}, 4_410_179),
}
"""Options as released and trainable parameters on SAM ViT-B, the paper's transfer layer at 9 channels among them."""


def drawn(seed: int = 0) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def tune(
    model: nn.Module,
    name: str,
    targets: TuningTargets = SAM_VIT_B.targets,
    **options: Any,
) -> nn.Module:
    """Apply a tuner to a frozen model."""
    spec = SPECS[name]
    merged = {**spec.options, **options}
    import_from_string(spec.apply)(
        model.requires_grad_(False), targets=targets, generator=drawn(), **merged
    )
    return model


def tiny() -> SamModel:
    """Build the tiny model."""
    return build_sam(SAM_VIT_TINY, image_size=64, weights=None, seed=0)


def moving(module: nn.Module) -> int:
    """Count trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", RELEASED)
def test_a_tuner_moves_as_many_parameters_as_the_released_one(name: str) -> None:
    """Else a comparison with the published method compares something else; on the meta device it needs no weights."""
    options, expected = RELEASED[name]
    with torch.device("meta"):
        model = SamModel(SAM_VIT_B, 1024)
    channels = tuple(Channel(f"c{i}", "counts", "count") for i in range(9))
    mat = build_mat(
        channels=channels,
        zero_shot=torch.zeros(3, 9),
        backbone=None,
        generator=drawn(),
        width=64,
    )
    assert moving(tune(model, name, **options)) + moving(mat) == expected


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [("adapter", 2, 2), ("prompt", 2, 7), ("prefix", 2, 7)],
)
def test_encoder_and_decoder_are_tuned_and_the_prompt_encoder_is_not(
    name: str, encoder: int, decoder: int
) -> None:
    """Two blocks of the tiny encoder, two of the decoder; seven attentions there."""
    model = tune(tiny(), name)
    places = {
        parameter.rpartition(".")[0]
        for parameter, p in model.named_parameters()
        if p.requires_grad
    }
    assert (
        len([place for place in places if place.startswith("backbone.image_encoder.")])
        == encoder
    )
    assert (
        len([place for place in places if place.startswith("decoder.mask_decoder.")])
        == decoder
    )
    assert len(places) == encoder + decoder


def test_an_adapter_of_the_encoder_sees_what_the_norm_sees() -> None:
    """It stands on the residual stream, before the norm; behind it, it would be another method."""
    block = tiny().backbone.image_encoder.blocks[1]
    norm, mlp = block.norm2, block.mlp
    model = tiny()
    tune(model, "adapter", width=5, scale=0.5)
    adapted = model.backbone.image_encoder.blocks[1]
    assert isinstance(adapted.mlp, Adapted)
    assert isinstance(adapted.norm2, nn.Identity)
    adapter = adapted.mlp.adapter
    with torch.no_grad():
        for parameter in (adapter.up, adapter.up_bias):
            parameter.normal_(generator=drawn(1))
    x = torch.randn(2, 4, 4, 64, generator=drawn(2)) + 3
    beside = (
        torch.relu(x @ adapter.down.T + adapter.down_bias) @ adapter.up.T
        + adapter.up_bias
    )
    torch.testing.assert_close(
        adapted.mlp(adapted.norm2(x)), mlp(norm(x)) + 0.5 * beside
    )


def test_an_adapter_works_on_images_of_features_too() -> None:
    """Convolutional models hold their features in front of height and width."""
    model = nn.Module()
    model.backbone = nn.ModuleDict(
        {"block": nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())}
    )
    tune(
        model,
        "adapter",
        TuningTargets(adapters={r"backbone[.]block": ""}),
        width=3,
        scale=1.0,
    )
    adapted = model.backbone["block"]
    nn.init.normal_(adapted.adapter.up, generator=drawn(1))
    x = torch.randn(2, 6, 5, 4, generator=drawn(2))
    rows = x.permute(0, 2, 3, 1)
    beside = (
        torch.relu(rows @ adapted.adapter.down.T + adapted.adapter.down_bias)
        @ adapted.adapter.up.T
    )
    torch.testing.assert_close(adapted(x), adapted.base(x) + beside.permute(0, 3, 1, 2))


def encoder_attention() -> FusedAttention:
    """Return attention of the encoder on a 3x4 grid, with random weights."""
    module = EncoderAttention(8, num_heads=2, use_rel_pos=True, input_size=(3, 4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5, generator=drawn(3))
    return FusedAttention(module)


def by_hand(
    attention: FusedAttention, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Attend over the tokens of x and some further keys and values (N, D), head by head."""
    batch, height, width, _ = x.shape
    q, k, v = attention.qkv(x).reshape(batch, height * width, 24).chunk(3, -1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        more_k, more_v = (t[:, head].expand(batch, -1, -1) for t in (keys, values))
        logits = q[..., head] @ torch.cat([k[..., head], more_k], 1).transpose(1, 2) / 2
        own = logits[..., : height * width]
        sides = (height, width)
        tables = (attention.rel_pos_h, attention.rel_pos_w)
        positioned = add_decomposed_rel_pos(
            own.contiguous(), q[..., head].contiguous(), *tables, sides, sides
        )
        logits = torch.cat([positioned, logits[..., height * width :]], -1)
        heads.append(logits.softmax(-1) @ torch.cat([v[..., head], more_v], 1))
    out: torch.Tensor = attention.proj(torch.cat(heads, -1)).reshape(x.shape)
    return out


def test_a_prompt_joins_the_encoder_through_qkv_without_a_position() -> None:
    """Its tokens are tokens like all others but have no place on the grid."""
    attention, tokens = encoder_attention(), torch.randn(5, 8, generator=drawn(4))
    x = torch.randn(2, 3, 4, 8, generator=drawn(5))
    attention.memory = PromptTokens(tokens, 0.0)
    _, keys, values = attention.qkv(tokens).chunk(3, -1)
    torch.testing.assert_close(attention(x), by_hand(attention, x, keys, values))


def test_a_prefix_joins_the_encoder_as_keys_and_values_of_its_own() -> None:
    """No projection stands between them and the attention."""
    attention = encoder_attention()
    keys, values = torch.randn(2, 5, 8, generator=drawn(4))
    x = torch.randn(2, 3, 4, 8, generator=drawn(5))
    attention.memory = PrefixTokens(keys, values)
    torch.testing.assert_close(attention(x), by_hand(attention, x, keys, values))


@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize(
    "kind", [TokenAttention, TokenToImageAttention, ImageToTokenAttention]
)
def test_what_joins_the_decoder_is_projected_with_its_keys_and_values(
    kind: type[TokenAttention], rate: int
) -> None:
    """There keys may be narrower than tokens; the package's attention on longer input is the oracle."""
    source = DecoderAttention(8, 2, downsample_rate=rate)
    ours = kind(source)
    q, k, v = (
        torch.randn(2, n, 8, generator=drawn(seed)) for seed, n in enumerate((3, 6, 6))
    )
    torch.testing.assert_close(ours(q, k, v), source(q, k, v))
    keys, values = torch.randn(2, 5, 8, generator=drawn(9))
    ours.memory = PrefixTokens(keys, values)
    longer = (
        torch.cat([k, keys.expand(2, -1, -1)], 1),
        torch.cat([v, values.expand(2, -1, -1)], 1),
    )
    torch.testing.assert_close(ours(q, k, v), source(q, *longer))


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("kind", [TokenToImageAttention, ImageToTokenAttention])
def test_prompts_of_one_image_share_its_tokens(
    kind: type[TokenAttention], tuned: bool
) -> None:
    """What is projected once for all must be what every prompt would project, by a layer with LoRA too."""
    source = DecoderAttention(8, 2, downsample_rate=2)
    if tuned:
        source = nn.ModuleDict({"decoder": source})
        targets = TuningTargets(lora={r"decoder[.][qkv]_proj": ((0,), 1)})
        source = tune(source, "lora", targets, rank=2, alpha=2.0)["decoder"]
        for layer in (source.q_proj, source.k_proj, source.v_proj):
            nn.init.normal_(layer.lora_b, generator=drawn(1))
    ours = kind(source)
    image, tokens, moved = (
        torch.randn(*shape, 8, generator=drawn(3)) for shape in ((1, 5), (3, 2), (3, 2))
    )
    each = image.expand(3, -1, -1)
    given, expected = ((tokens, image, image), (tokens, each, each))
    if kind is ImageToTokenAttention:
        given, expected = ((image, tokens, moved), (each, tokens, moved))
    torch.testing.assert_close(ours(*given), source(*expected))
    torch.testing.assert_close(ours(*expected), source(*expected))


def test_dropout_of_a_prompt_works_in_training_alone() -> None:
    """An answer must not be a matter of chance."""
    model = tune(tiny(), "prompt", tokens=50, dropout=0.5)
    memory = model.backbone.image_encoder.blocks[0].attn.memory
    model.eval()
    assert torch.equal(memory()[0], memory.tokens)
    set_train_mode(model)
    assert (memory()[0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert not model.backbone.image_encoder.blocks[0].attn.qkv.training


def test_conv_lora_mixes_neighbours_between_its_factors() -> None:
    """On the token grid, slice by slice, added to what LoRA has there."""
    model = tune(tiny(), "conv-lora", rank=3, alpha=6.0)
    layer, plain = (
        model.backbone.image_encoder.blocks[1].attn.qkv,
        tiny().backbone.image_encoder.blocks[1].attn.qkv,
    )
    nn.init.normal_(layer.lora_b, generator=drawn(1))
    x = torch.randn(2, 4, 4, 64, generator=drawn(2))
    delta = (layer(x) - plain(x)).chunk(3, -1)
    assert (delta[1] == 0).all()
    for part, number in ((0, 0), (2, 1)):
        inner = (x @ layer.lora_a.chunk(2)[number].T).permute(0, 3, 1, 2)
        inner = inner + nn.functional.conv2d(
            inner, layer.lora_conv.chunk(2)[number], padding=1
        )
        torch.testing.assert_close(
            delta[part], 2.0 * inner.permute(0, 2, 3, 1) @ layer.lora_b[number].T
        )


def test_conv_lora_is_plain_lora_where_there_is_no_grid() -> None:
    """The decoder's tokens stand in no grid."""
    names = [
        name
        for name, p in tune(tiny(), "conv-lora").named_parameters()
        if p.requires_grad
    ]
    assert {name.split(".")[0] for name in names if name.endswith("lora_conv")} == {
        "backbone"
    }
    assert {name.split(".")[0] for name in names if name.endswith("lora_a")} == {
        "backbone",
        "decoder",
    }


@pytest.mark.parametrize("name", ["adapter", "conv-lora", "linear", "prefix", "prompt"])
def test_a_model_that_cannot_take_a_tuner_is_refused_by_name(name: str) -> None:
    """Training on with nothing tuned would look like a method that does not work."""
    targets = TuningTargets(lora=SAM_VIT_TINY.targets.lora)
    with pytest.raises(
        ConfigError, match=r"'sam_vit_tiny' (names no|has no parameter).*--tune"
    ):
        tune(tiny(), name, targets)


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        (
            "prompt",
            TuningTargets(attention=(r"backbone[.]image_encoder[.]neck",)),
            "'backbone.*neck'.*Seq",
        ),
        (
            "adapter",
            TuningTargets(
                adapters={r"backbone[.]image_encoder[.]blocks[.]0[.]norm1": ""}
            ),
            "no Linear",
        ),
        (
            "adapter",
            TuningTargets(
                adapters={r"backbone[.]image_encoder[.]blocks[.]0[.]mlp": "nrm"}
            ),
            "no norm 'nrm'",
        ),
    ],
)
def test_a_module_a_tuner_cannot_take_is_refused_by_name(
    name: str, targets: TuningTargets, message: str
) -> None:
    """A plugin's spec may name the wrong module."""
    with pytest.raises(ConfigError, match=message):
        tune(tiny(), name, targets)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adapter", {"width": 0, "scale": 0.0}, "width .* got 0; scale .* got 0"),
        ("prompt", {"tokens": 0, "dropout": 1.0}, "tokens .* got 0; dropout .* got 1"),
        ("prefix", {"tokens": 0}, "tokens .* got 0"),
        (
            "conv-lora",
            {"rank": 0, "where": "x"},
            "'conv-lora': rank .* got 0; where .* got 'x'",
        ),
    ],
)
def test_bad_options_are_reported_at_once(
    name: str, options: dict[str, Any], message: str
) -> None:
    """One run, one list."""
    with pytest.raises(ConfigError, match=message):
        tune(tiny(), name, **options)
