"""What the specs of timm's models say, which models there are, and the foundation contract of each family."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
from simmat_plugin_timm import TIMM
from simmat_plugin_timm.architectures import architecture_of
from simmat_plugin_timm.network import TimmBody, random_network
from simmat_plugin_timm.specs import models, spec
from simmat_testing import FoundationContract
from torch import nn

from simmat.assemble import check_image_size
from simmat.cli import run
from simmat.errors import SpecError, UnknownNameError
from simmat.nn.lora import takes_lora
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.registry import Registry

REGISTRY = Registry([], [("foundation family", TIMM, "simmat-plugin-timm")])


def test_a_spec_says_what_the_weights_were_trained_with() -> None:
    """Pixels on another scale, or another licence, would go unnoticed."""
    found = REGISTRY.foundation("timm/vit_base_patch16_clip_224.openai")
    facts = timm.get_pretrained_cfg("vit_base_patch16_clip_224.openai")
    assert found.name == "timm/vit_base_patch16_clip_224.openai"
    assert found.pixel_mean == pytest.approx([255 * value for value in facts.mean])
    assert found.pixel_std == pytest.approx([255 * value for value in facts.std])
    assert (found.image_size, found.size_multiple) == (224, 16)
    assert found.weights is not None
    assert (found.weights.hub, found.weights.filename) == (
        facts.hf_hub_id,
        "open_clip_model.safetensors",
    ) or (found.weights.filename == "model.safetensors")
    assert found.licence == facts.license
    assert not found.promptable


@pytest.mark.parametrize(
    ("model", "native", "multiple"),
    [
        ("vit_small_patch14_dinov2", 518, 14),
        ("vit_small_patch16_dinov3", 256, 16),
        ("samvit_base_patch16", 1024, 16),
        ("swin_tiny_patch4_window7_224", 224, 32),
        ("hiera_tiny_224", 224, 32),
        ("vit_tiny_patch16_384", 384, 16),
    ],
)
def test_sizes_are_those_the_patches_and_windows_allow(
    model: str, native: int, multiple: int
) -> None:
    """Any other is refused by name before anything is built."""
    found = REGISTRY.foundation(f"timm/{model}")
    assert (found.image_size, found.size_multiple) == (native, multiple)
    with pytest.raises(
        SpecError, match=f"'timm/{model}' takes .* multiple of {multiple}"
    ):
        check_image_size(found, native + 1)


def test_the_list_has_the_names_people_look_for() -> None:
    """With and without the tag of their weights."""
    listed = models()
    assert {
        "vit_small_patch14_dinov2",
        "vit_small_patch14_dinov2.lvd142m",
        "swin_tiny_patch4_window7_224",
    } <= set(listed)
    assert not any(name.startswith(("resnet", "convnext")) for name in listed)
    assert "518 px" in listed["vit_small_patch14_dinov2"]


def listed_names() -> list[str]:
    """Return one name of each model; its tags are other weights of the same."""
    return [name for name in models() if "." not in name]


@pytest.mark.slow
def test_every_listed_name_is_taken_for_what_it_is() -> None:
    """A list with names that fail is no list."""
    assert len(listed_names()) > 400
    for name in listed_names():
        found = spec(name)
        assert found is not None, name
        assert found.name == f"timm/{name}"
        check_image_size(found, found.image_size)


def kinds_of_models() -> list[str]:
    """Return one listed model for each module of timm and first layer: what may differ in how it is taken."""
    kinds = {}
    for name in listed_names():
        architecture = architecture_of(name)
        assert architecture is not None
        kinds[architecture.module, timm.get_pretrained_cfg(name).first_conv] = name
    return sorted(kinds.values())


@pytest.mark.slow
@torch.no_grad()
def test_a_model_at_full_size_gives_maps_at_its_strides() -> None:
    """The tiny configurations have other depths; here shapes alone are computed, at another than the native size."""
    for name in kinds_of_models():
        found, architecture = spec(name), architecture_of(name)
        assert found is not None
        assert architecture is not None
        size = found.size_multiple * (found.image_size // found.size_multiple + 1)
        with torch.device("meta"):
            body = TimmBody(random_network(name, size, 0), architecture).eval()
            maps = body.maps(body.embed(torch.zeros(1, 3, size, size)))
        sides = [
            (1, w, size // stride, size // stride)
            for w, stride in zip(body.widths, body.strides, strict=True)
        ]
        assert [tuple(level.shape) for level in maps] == sides, name


def test_names_that_lead_nowhere_are_distinguished() -> None:
    """A slip gets the nearest name, a model of another kind the reason."""
    with pytest.raises(UnknownNameError, match="'timm/vit_tiny_patch16_224'"):
        REGISTRY.foundation("timm/vit_tny_patch16_224")
    with pytest.raises(
        UnknownNameError, match=r"'timm/vit_tiny_patch16_224[.]nonsense'"
    ):
        REGISTRY.foundation("timm/vit_tiny_patch16_224.nonsense")
    with pytest.raises(SpecError, match=r"timm/fastvit_t8 .*two"):
        REGISTRY.foundation("timm/fastvit_t8")
    with pytest.raises(SpecError, match="timm/resnet50"):
        REGISTRY.foundation("timm/resnet50")


@pytest.mark.parametrize(
    ("model", "slices"),
    [("maxvit_nano_rw_256", ((0,), 1)), ("maxvit_tiny_tf_224", ((0, 2), 3))],
)
def test_lora_takes_queries_and_values_only_where_they_are_apart(
    model: str, slices: Any
) -> None:
    """Some MaxViTs keep each head's query, key and value together; a third of all that is a mixture of heads."""
    found = spec(model)
    assert found is not None
    assert set(found.targets.lora.values()) == {slices}


def is_attention(module: nn.Module) -> bool:
    """Say by its class, as timm's authors call it, whether a module attends."""
    kind = type(module).__name__
    attends = re.search(r"Attention|Attn|MHSA|XCA", kind)
    return bool(attends) and not re.search(r"Block|Partition|^ConvAttention", kind)


def test_tuning_targets_name_layers_that_exist_and_fit(family: Any) -> None:
    """A pattern that matches nothing, or half, would make a tuner silently tune less."""
    model, targets = family.ours(), family.spec.targets
    modules = dict(model.named_modules())
    attentions = [
        name
        for name, module in modules.items()
        if name.startswith("backbone") and is_attention(module)
    ]
    assert bool(attentions) == bool(targets.lora)
    tuned = [
        name
        for pattern in targets.lora
        for name in modules
        if re.fullmatch(pattern, name)
    ]
    assert len(tuned) == len(set(tuned))
    assert all(takes_lora(modules[name]) for name in tuned)
    assert all(
        any(name.startswith(f"{attention}.") for name in tuned)
        for attention in attentions
    )
    assert all(
        any(name.startswith(f"{attention}.") for attention in attentions)
        for name in tuned
    )
    for pattern in [*targets.lora, *targets.adapters]:
        assert any(re.fullmatch(pattern, name) for name in modules), pattern
    blocks = {attention.rpartition(".")[0] for attention in attentions}
    adapted = [
        name
        for pattern in targets.adapters
        for name in modules
        if re.fullmatch(pattern, name)
    ]
    assert not adapted or {name.rpartition(".")[0] for name in adapted} == blocks
    names = [name for name, _ in model.named_parameters()]
    moved = [
        name
        for name in names
        if any(re.fullmatch(pattern, name) for pattern in targets.embed)
    ]
    first = timm.get_pretrained_cfg(family.model).first_conv
    assert f"backbone.body.model.{first}.weight" in moved
    assert any("pos_embed" in n for n in moved) == any(
        "pos_embed" in n for n, _ in family.theirs().named_parameters()
    )
    fresh = [
        name
        for name in names
        if any(re.fullmatch(pattern, name) for pattern in targets.newly_initialized)
    ]
    assert fresh == [name for name in names if not name.startswith("backbone.body.")]


class TestFamilies(FoundationContract):
    """Each family."""

    @pytest.fixture
    def foundation(self, family: Any) -> FoundationSpec:
        """Its tiny configuration."""
        found: FoundationSpec = family.spec
        return found


def test_the_name_of_the_family_alone_means_the_package(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model is timm/NAME; `timm` is how `simmat plugins list` calls the plugin."""
    assert run(["plugins", "check", "timm"]) == 0
    assert "package simmat-plugin-timm" in capsys.readouterr().out
