"""Transfer layers: their sizes, their start, where their randomness comes from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.nn.channel_attention import build_channel_attention
from simmat.nn.mat import build_linear
from simmat.plugin_specs import TransferLayerSpec
from simmat.plugins.builtin import TRANSFER_LAYERS
from simmat.plugins.registry import import_from_string
from simmat.types import Channel

SPECS = {spec.name: spec for spec in TRANSFER_LAYERS}


class Backbone(nn.Module):
    """A backbone whose first layer is a patch embedding of 4x4 pixels into 16 features."""

    def __init__(self) -> None:
        super().__init__()
        self.first_layer = nn.Conv2d(3, 16, 4, stride=4)
        with torch.no_grad():
            for parameter in self.first_layer.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(17))


BACKBONE = Backbone().requires_grad_(False)


def build(name: str, count: int, seed: int = 0, **options: object) -> nn.Module:
    """Build a transfer layer of `count` channels by its spec."""
    spec = SPECS[name]
    layer: nn.Module = import_from_string(spec.build)(
        channels=tuple(Channel(f"c{i}", "counts", "count") for i in range(count)),
        zero_shot=zero_shot(count),
        backbone=BACKBONE,
        generator=torch.Generator().manual_seed(seed),
        **{**spec.options, **options},
    )
    return layer


def zero_shot(count: int) -> torch.Tensor:
    """Return some (3, C) map."""
    return torch.randn(3, count, generator=torch.Generator().manual_seed(count))


def planes(count: int) -> torch.Tensor:
    """Return (2, C, 16, 16) input."""
    return torch.randn(2, count, 16, 16, generator=torch.Generator().manual_seed(99))


@pytest.mark.parametrize(
    ("count", "parameters"), [(1, 2371), (3, 3523), (4, 4099), (6, 5251), (9, 6979)]
)
def test_mat_has_the_papers_size(count: int, parameters: int) -> None:
    """These are the counts of the paper's layer for 1, 3, 4, 6 and 9 channels."""
    assert sum(p.numel() for p in build("mat", count).parameters()) == parameters


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 13])
@pytest.mark.parametrize("name", ["mat-residual", "zeroshot"])
def test_step_zero_is_exactly_the_zero_shot_model(name: str, count: int) -> None:
    """A residual that is not zero at the start throws away what the foundation model knows."""
    expected = torch.nn.functional.conv2d(
        planes(count), zero_shot(count)[:, :, None, None]
    )
    assert torch.equal(build(name, count)(planes(count)), expected)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_linear_starts_as_the_zero_shot_map(count: int) -> None:
    """The cheapest layer should start no worse than no layer."""
    expected = torch.einsum("oc,bchw->bohw", zero_shot(count), planes(count))
    torch.testing.assert_close(build("linear", count)(planes(count)), expected)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "much", True])
def test_a_contrast_that_shows_nothing_is_refused(value: object) -> None:
    """With 0 the model would see no picture, and no gradient would say which."""
    with pytest.raises(ConfigError, match=r"'contrast' .*0"):
        build("mat-residual", 2, contrast=value)


def test_identity_refuses_other_counts_by_number_and_name() -> None:
    """One plane repeated without a word is what we do not do."""
    with pytest.raises(
        ConfigError, match=r"exactly 3 channels, got 1 \(c0 \[count\]\).*zeroshot"
    ):
        build("identity", 1)


@pytest.mark.parametrize("name", sorted(set(SPECS) - {"identity"}))
def test_weights_come_from_the_generator_alone(name: str) -> None:
    """The same seed gives the same layer, whatever else was drawn, and draws nothing from others."""
    before = torch.random.get_rng_state()
    one = build(name, 4, seed=7).state_dict()
    torch.manual_seed(123)
    two = build(name, 4, seed=7).state_dict()
    torch.random.set_rng_state(before)
    build(name, 4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], two[key]) for key in one)
    if name in ("mat", "mat-residual", "channel-attention"):
        other = build(name, 4, seed=8).state_dict()
        assert any(not torch.equal(one[key], other[key]) for key in one)


WITH_CONTENT = [spec.name for spec in TRANSFER_LAYERS if spec.output != "image"]
FIRST = Backbone().first_layer


class Stem(nn.Module):
    """A backbone whose first layer is a strided 3x3 convolution that pads, without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first_layer = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)


def layer(
    name: str | TransferLayerSpec,
    count: int,
    backbone: nn.Module | None = None,
    **options: Any,
) -> nn.Module:
    """Build a transfer layer, in evaluation."""
    spec = SPECS[name] if isinstance(name, str) else name
    built: nn.Module = import_from_string(spec.build)(
        channels=tuple(Channel(f"c{i}", "counts", "count") for i in range(count)),
        zero_shot=torch.full((3, count), 1.5 / count),
        backbone=backbone or Backbone(),
        generator=torch.Generator().manual_seed(0),
        **{**spec.options, **options},
    )
    return built.eval()


def shake(module: nn.Module, seed: int = 5) -> nn.Module:
    """Give every parameter a random value, as if trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return module


def whole(x: torch.Tensor) -> torch.Tensor:
    """Return content without padding."""
    return torch.ones(len(x), *x.shape[-2:], dtype=torch.bool)


def features(
    module: nn.Module, x: torch.Tensor, content: torch.Tensor | None = None
) -> torch.Tensor:
    """Run a layer; of two outputs the features."""
    out = module(x, whole(x) if content is None else content)
    found: torch.Tensor = out[1] if isinstance(out, tuple) else out
    return found


@pytest.mark.parametrize(
    ("count", "kernels"),
    [
        (1, [[1.0, 1.0, 1.0]]),
        (2, [[1.5, 0, 0], [0, 1.5, 0]]),
        (4, [[0.75, 0, 0], [0, 0.75, 0], [0, 0, 0.75], [0.75, 0, 0]]),
    ],
)
def test_first_conv_starts_from_the_rgb_kernels_by_the_usual_rule(
    count: int, kernels: list[list[float]]
) -> None:
    """One channel sees their sum; more get them in turn, scaled by 3/C."""
    backbone = Backbone().requires_grad_(False)
    module = layer("first-conv", count, backbone)
    weight = torch.einsum(
        "co,dohw->dchw", torch.tensor(kernels), backbone.first_layer.weight
    )
    torch.testing.assert_close(module.embed.weight.detach(), weight)
    expected = F.conv2d(planes(count), weight, backbone.first_layer.bias, stride=4)
    torch.testing.assert_close(features(module, planes(count)), expected)
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("backbone", [Backbone, Stem])
@pytest.mark.parametrize("name", WITH_CONTENT)
def test_features_of_padding_are_what_the_model_knows_there(
    name: str, backbone: type[nn.Module]
) -> None:
    """It was trained with padding embedded as zeros; a trained bias must not reach it."""
    first = backbone()
    module = shake(layer(name, 2, first))
    content = whole(planes(2))
    content[:, 8:] = False
    x = planes(2) * content[:, None]
    with torch.no_grad():
        out, zeros = (
            features(module, x, content),
            first.first_layer(torch.zeros(2, 3, 16, 16)),
        )
    expected = (
        torch.zeros_like(zeros) if SPECS[name].output == "image+features" else zeros
    )
    # the stem's kernel reaches over the edge
    below = out.shape[-2] // 2 + (backbone is Stem)
    assert torch.equal(out[:, :, below:], expected[:, :, below:])
    assert (
        not torch.isclose(
            out[:, :, : out.shape[-2] // 2], expected[:, :, : out.shape[-2] // 2]
        )
        .any(1)
        .all()
    )


@pytest.mark.parametrize("name", WITH_CONTENT)
def test_a_model_without_one_convolution_at_its_head_is_refused_by_name(
    name: str,
) -> None:
    """These layers copy or replace it."""
    with pytest.raises(
        ConfigError,
        match=rf"'{name}' needs .* backbone Linear has no `first_layer`; .*--mat",
    ):
        layer(name, 2, nn.Linear(1, 1))


@pytest.mark.parametrize("count", [1, 4])
def test_channel_attention_starts_as_the_zero_shot_model(count: int) -> None:
    """Weights start equal: the mean of the channels, scaled as the zero-shot map scales, through the first layer."""
    zero_shot = torch.full((3, count), 1.5 / count)
    shown = build_linear(
        channels=[Channel(f"c{i}", "counts", "count") for i in range(count)],
        zero_shot=zero_shot,
        backbone=None,
        generator=torch.Generator(),
    )
    torch.testing.assert_close(
        features(layer("channel-attention", count), planes(count)),
        FIRST(shown(planes(count))),
        atol=1e-5,
        rtol=1e-4,
    )


def test_a_missing_band_counts_for_nothing() -> None:
    """One bundle serves a camera without it: neither its code nor anything learned of it reaches the answer."""
    module = shake(layer("channel-attention", 3, embedding="identity"))
    x = planes(3)
    x[:, 1] = 0
    with torch.no_grad():
        missing = features(module, x)
        module.codes.learned[1] += 3
        assert torch.equal(features(module, x), missing)
        module.codes.learned[2] += 3
        assert not torch.allclose(features(module, x), missing)
        # Two channels as a layer of their own answer the same.
        two = layer("channel-attention", 2, embedding="identity")
        state = {
            k: v[[0, 2]] if k == "codes.learned" else v
            for k, v in module.state_dict().items()
        }
        two.load_state_dict(state)
        two.gain = module.gain
        torch.testing.assert_close(
            features(two, x[:, [0, 2]]), features(module, x), atol=1e-5, rtol=1e-4
        )


def test_channels_are_dropped_in_training_alone_and_never_all() -> None:
    """What was never missing in training cannot be missing later."""
    module = layer("channel-attention", 3, drop=0.2)
    x = torch.ones(400, 3, 4, 4)
    x[:, 2] = 0
    assert torch.equal(
        module.used_channels(x), torch.tensor([True, True, False]).expand(400, 3)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        used = module.train().used_channels(x)
    assert used.any(1).all()
    assert not used[:, 2].any()
    # both stay where both fell
    assert used[:, :2].float().mean().item() == pytest.approx(0.8 + 0.2**2, abs=0.03)


def by_wavelength(*wavelengths: float | None, **options: Any) -> nn.Module:
    """Build channel attention over channels of the given wavelengths."""
    channels = [
        Channel(f"c{i}", "reflectance", "1", wavelength_um=w)
        for i, w in enumerate(wavelengths)
    ]
    return build_channel_attention(
        channels=channels,
        zero_shot=torch.full((3, len(channels)), 1 / len(channels)),
        backbone=Backbone(),
        generator=torch.Generator().manual_seed(0),
        **{**SPECS["channel-attention"].options, **options},
    )


def test_channel_attention_reports_all_bad_options_at_once() -> None:
    """One run, one list."""
    with pytest.raises(
        ConfigError,
        match=r"16 features, got 5; drop .* got 1.*; .*every channel, \['c1'\] have none",
    ):
        by_wavelength(0.66, None, heads=5, drop=1.0, embedding="wavelength")
    with pytest.raises(ConfigError, match="auto, wavelength, identity, got 'colour'"):
        by_wavelength(0.66, embedding="colour")
