"""The network put together: what it gives at step 0, and what moves."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from runs import registry
from simmat_testing.networks import build_network

import simmat
from simmat.errors import ConfigError, PluginError, SpecError
from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.model_spec import complete_options
from simmat.plugin_specs import TransferLayerSpec, TunerSpec
from simmat.sensors.normalize import Moments

REGISTRY = registry()


def network(
    channels: int = 2, mat: str = "mat-residual", tune: str = "lora", **changes: Any
) -> SimMAT:
    changes = {"image_size": 64, "seed": 3, **changes}
    return build_network(
        REGISTRY.foundation("tiny"),
        channels=channels,
        transfer=mat,
        tuner=tune,
        **changes,
    )


def ask(count: int = 2) -> PromptBatch:
    return PromptBatch(
        image_index=torch.arange(count),
        point_coords=torch.full((count, 1, 2), 20.0),
        point_labels=torch.ones(count, 1, dtype=torch.int64),
    )


def inputs(channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    planes = torch.randn(2, channels, 64, 64, generator=generator)
    content = torch.ones(2, 64, 64, dtype=torch.bool)
    content[:, 48:] = False
    return planes * content[:, None], content


def build_quarter(*, channels: Any, **given: Any) -> torch.nn.Module:
    """Build a layer that shrinks its image."""
    return torch.nn.Conv2d(len(channels), 3, 4, stride=4)


def test_a_layer_of_the_wrong_shape_is_named() -> None:
    """What torch says of it reads as a bug in SimMAT."""
    layer = TransferLayerSpec("my-layer", "mine", f"{__name__}:build_quarter")
    broken = build_network(
        REGISTRY.foundation("tiny"), image_size=64, channels=2, transfer=layer
    )
    with pytest.raises(
        PluginError, match=r"'my-layer'.*\(2, 3, 64, 64\).*\(2, 3, 16, 16\)"
    ):
        broken.encode(*inputs())


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_step_0_of_mat_residual_with_lora_is_the_zero_shot_model(channels: int) -> None:
    """Training starts from what the foundation model can do, whatever the sensor."""
    planes, content = inputs(channels)
    with torch.no_grad():
        ours = network(channels).eval()(planes, content, ask())
        zero = network(channels, "zeroshot", "frozen").eval()(planes, content, ask())
    assert torch.equal(ours.logits, zero.logits)


def test_a_plan_gives_the_same_bits_twice_and_leaves_torchs_generator_alone() -> None:
    """A bundle rebuilds its frozen part from the plan; a global seed would reach into a user's program."""
    before = torch.random.get_rng_state()
    one, two = network().state_dict(), network().state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_padding_reaches_the_foundation_model_as_zero() -> None:
    """A transfer layer's bias must not paint the padding; the foundation model was trained with zeros there."""
    planes, content = inputs()
    model = network(mat="mat").eval()
    seen = []
    model.foundation.backbone.register_forward_pre_hook(lambda *_: None)
    embed = model.foundation.backbone.embed
    model.foundation.backbone.embed = lambda image: seen.append(image) or embed(image)  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        model.encode(planes, content)
    assert (seen[0][:, :, 48:] == 0).all()
    assert (seen[0][:, :, :48] != 0).any()


def spec(**options: object) -> TunerSpec:
    return TunerSpec("some", "a tuner", "a.module:function", options=options)


def test_an_unknown_option_names_the_nearest() -> None:
    """A typing mistake in an option must not be ignored."""
    with pytest.raises(ConfigError, match="did you mean 'rank'"):
        network(tune_options={"rnak": 4})


@pytest.mark.parametrize(
    ("default", "given"),
    [
        (16, 8),
        (16.0, 8),
        (False, True),
        ("all", "late"),
        ((1, 2), [3, 4]),
        ([1], [2, 3]),
        (None, "x"),
        (None, 3),
    ],
)
def test_an_option_takes_what_its_default_is(default: object, given: object) -> None:
    """Json and TOML know no tuples, and a whole number is a number; None says nothing of a type."""
    expected = (
        tuple(given)
        if isinstance(default, tuple) and isinstance(given, list)
        else given
    )
    found = complete_options(spec(own=default, other=1), {"own": given})
    assert found == {"own": expected, "other": 1}
    assert default is None or type(found["own"]) is type(default)


def correlated(count: int = 7) -> torch.Tensor:
    """Planes of zero mean and unit variance, each pair correlated at 0.9, as the bands of a camera are."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(2, 1, 64, 64, generator=generator)
    own = torch.randn(2, count, 64, 64, generator=generator)
    return math.sqrt(0.9) * common + math.sqrt(0.1) * own


def test_a_mat_takes_the_statistics_of_a_sensor() -> None:
    """They are in the sensor's units, by which the planes are normalized."""
    planes = correlated()
    raw = 3000 + 500 * planes.movedim(1, 0).flatten(1).numpy()
    statistics = Moments.of_pixels(raw, np.ones(raw.shape, np.bool_)).statistics()
    image = simmat.MAT(7, statistics=statistics)(planes)
    assert image.std(dim=(0, 2, 3)).tolist() == pytest.approx([1] * 3, rel=0.02)
    with pytest.raises(SpecError, match="7 channels do not fit 6"):
        simmat.MAT(6, statistics=statistics)


def test_a_layer_that_needs_a_backbone_does_not_stand_alone() -> None:
    """It replaces the first layer, which is not there."""
    with pytest.raises(ConfigError, match=r"'first-conv'.*simmat.build"):
        simmat.MAT(4, "first-conv")
    for wrong in (0, 9.0, "thermal", ["red"]):
        with pytest.raises(
            ConfigError,
            match=rf"a number of channels, at least 1.*got {re.escape(repr(wrong))}",
        ):
            simmat.MAT(wrong)
    with pytest.raises(ConfigError, match="wide"):
        simmat.MAT(4, wide=3)


def test_a_network_is_built_without_data() -> None:
    """A researcher brings her own training loop."""
    network = simmat.build(
        foundation="tiny",
        modality="gray",
        mat="mat",
        tune="lora",
        tune_options={"rank": 2},
        image_size=64,
    )
    moving = {
        name.split(".")[0]
        for name, value in network.named_parameters()
        if value.requires_grad
    }
    assert moving == {"mat", "foundation"}
    embedding = network.encode(torch.randn(2, 1, 64, 64))
    clicks = torch.tensor([[[10.0, 20.0]], [[30.0, 40.0]]])
    prompts = PromptBatch(
        torch.tensor([0, 1]), clicks, torch.ones(2, 1, dtype=torch.int64)
    )
    found = network.decode(embedding, prompts)
    assert found.logits.shape[0] == 2
    found.logits.mean().backward()
    assert all(p.grad is not None for p in network.mat.parameters())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "without a modality, channels is the number"),
        ({"channels": "0-6"}, "without a modality, channels is the number"),
        ({"channels": 0}, "at least 1"),
        ({"channels": 2, "modality_options": {"unit": "K"}}, "belong to a sensor"),
        ({"channels": 2, "modality": "gray"}, "by name or index"),
    ],
)
def test_channels_of_a_network_that_mean_nothing_are_refused(
    given: dict[str, Any], said: str
) -> None:
    """A number means planes, a text the channels of a sensor."""
    with pytest.raises(ConfigError, match=said):
        simmat.build(foundation="tiny", **given)


def test_a_sensor_whose_files_say_its_channels_is_refused() -> None:
    """The number of planes of a raster is known when a file is open."""
    with pytest.raises(ConfigError, match=r"'raster' learns its channels.*simmat.MAT"):
        simmat.build(foundation="tiny", modality="raster")


def test_a_mat_fitted_to_planes_gives_their_components() -> None:
    """Three equal images of 2.5 times the contrast are not what a network for photographs expects."""
    planes = correlated()
    image = simmat.MAT.fitted(planes)(planes)
    found = torch.corrcoef(image.movedim(1, 0).flatten(1))
    assert image.std(dim=(0, 2, 3)).tolist() == pytest.approx([1] * 3, rel=0.01)
    assert found.abs().sum().item() == pytest.approx(3, abs=0.01)
    assert simmat.MAT(7)(planes).std().item() == pytest.approx(2.5, rel=0.05)
