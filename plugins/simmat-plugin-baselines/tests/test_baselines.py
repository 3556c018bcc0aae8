"""The paper's baselines and ablation, and SimCMF's layer: what they compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nn.test_mat import Backbone, build, features, planes, whole
from nn.test_mat import layer as build_layer
from simmat_plugin_baselines import TRANSFER_LAYERS
from simmat_testing import TransferLayerContract
from torch import nn
from torch.nn import functional as F

from simmat.errors import ConfigError

SPECS = {spec.name: spec for spec in TRANSFER_LAYERS}
FIRST = Backbone().first_layer


class TestLayers(TransferLayerContract):
    """Each of them."""

    @pytest.fixture(params=SPECS)
    def transfer_layer(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name


def layer(
    name: str, count: int, backbone: nn.Module | None = None, **options: Any
) -> nn.Module:
    """Build one of them, in evaluation."""
    return build_layer(SPECS[name], count, backbone, **options)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 3), (2, 3), (3, 5)])
def test_preconv_has_a_relu_between_any_two_convolutions_and_keeps_the_size(
    n: int, k: int
) -> None:
    """The released ablation lost its ReLUs, and a padded 1x1 convolution changes the size."""
    module = layer("preconv", 2, n=n, k=k, d=7)
    kinds = [type(part) for part in module]
    assert kinds == [nn.Conv2d, nn.ReLU] * (n - 1) + [nn.Conv2d]
    assert {part.kernel_size for part in module if isinstance(part, nn.Conv2d)} == {
        (k, k)
    }
    assert module(planes(2)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("count", "parameters"), [(1, 2371), (3, 3523), (4, 4099), (6, 5251), (9, 6979)]
)
def test_preconv_by_default_is_the_papers_layer(count: int, parameters: int) -> None:
    """The ablation's middle is what it ablates."""
    assert sum(p.numel() for p in layer("preconv", count).parameters()) == parameters
    mat, ablation = build("mat", count), layer("preconv", count)
    assert torch.equal(mat(planes(count)), ablation(planes(count)))


def test_preconv_reports_all_bad_options_at_once() -> None:
    """One run, one list."""
    with pytest.raises(
        ConfigError, match=r"'n' .* got 0; .*'d' .* got 0; .*'k' must be odd .* got 4"
    ):
        layer("preconv", 1, n=0, k=4, d=0)


@pytest.mark.parametrize(
    ("count", "picked"),
    [(1, [0, 0, 0]), (2, [0, 1, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])],
)
def test_first_three_repeats_channels_in_turn(count: int, picked: list[int]) -> None:
    """That is what the released code calls zero-shot."""
    module = layer("first-three", count)
    assert torch.equal(module(planes(count)), planes(count)[:, picked])
    assert not list(module.parameters())


def test_baseline_d_is_one_small_convolution() -> None:
    """C -> 3 and nothing more."""
    assert sum(p.numel() for p in layer("baseline-d", 4).parameters()) == 4 * 3 + 3


def test_baseline_a_is_a_first_layer_for_all_channels_and_random() -> None:
    """It shares nothing with the pretrained one but its geometry."""
    module = layer("baseline-a", 5)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "embed.weight": (16, 5, 4, 4),
        "embed.bias": (16,),
    }
    expected = F.conv2d(planes(5), module.embed.weight, module.embed.bias, stride=4)
    torch.testing.assert_close(features(module, planes(5)), expected)
    assert module.embed.weight.abs().max() <= 1 / (5 * 16) ** 0.5


def test_baseline_b_trains_a_copy_of_the_pretrained_first_layer() -> None:
    """A copy: the model's own stays as it is."""
    backbone = Backbone().requires_grad_(False)
    module = layer("baseline-b", 2, backbone)
    expected = backbone.first_layer(module.before(planes(2)))
    torch.testing.assert_close(features(module, planes(2)), expected)
    assert all(p.requires_grad for p in module.parameters())
    assert module.embed.weight.data_ptr() != backbone.first_layer.weight.data_ptr()
    assert sum(p.numel() for p in module.parameters()) == (2 * 3 + 3) + (
        16 * 3 * 16 + 16
    )


def test_simcmf_starts_with_nothing_added_and_its_image_from_gated_planes() -> None:
    """The mix is zero; the image is a 1x1 convolution of planes times factors in 0..1."""
    module = layer("simcmf", 3)
    image, added = module(planes(3), whole(planes(3)))
    assert (added == 0).all()
    gates = module.gate(planes(3), whole(planes(3)))
    assert gates.shape == (2, 3, 1, 1)
    assert ((gates > 0) & (gates < 1)).all()
    torch.testing.assert_close(image, module.to_rgb(planes(3) * gates))


def test_simcmf_adds_a_mix_of_one_embedding_for_each_channel() -> None:
    """Each begins as the pretrained kernel summed over RGB: that of a grey picture."""
    module = layer("simcmf", 3)
    nn.init.normal_(module.mix, generator=torch.Generator().manual_seed(1))
    x = planes(3)
    gated = x * module.gate(x, whole(x))
    expected = sum(
        module.mix[c] * FIRST(gated[:, c : c + 1].expand(-1, 3, -1, -1))
        for c in range(3)
    )
    torch.testing.assert_close(features(module, x), expected)
