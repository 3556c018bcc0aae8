"""The network put together: what it gives at step 0, and what moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import registry

from simmat.errors import ConfigError
from simmat.foundation import PromptBatch
from simmat.model import SimMAT, merge_options
from simmat.testing import build_network

REGISTRY = registry()


def network(channels: int = 2, mat: str = "mat-residual", tune: str = "lora", **changes: Any) -> SimMAT:
    changes = {"image_size": 64, "seed": 3, **changes}
    return build_network(REGISTRY.foundation("sam_vit_tiny"), channels=channels, transfer=mat, tuner=tune, **changes)


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


def test_an_unknown_option_names_the_nearest() -> None:
    """A typing mistake in an option must not be ignored."""
    with pytest.raises(ConfigError, match="did you mean 'rank'"):
        network(tune_options={"rnak": 4})


@pytest.mark.parametrize(("given", "kept"), [("8", 8), (8.0, 8), (8, 8)])
def test_options_take_the_type_of_their_default(given: object, kept: int) -> None:
    """Values from a command line are text."""
    assert merge_options("tuner", "lora", {"rank": 16}, {"rank": given}) == {"rank": kept}


@pytest.mark.parametrize("wrong", ["eight", "8.5", 8.5, "inf", float("inf"), float("nan"), True, "true", None])
def test_an_option_of_the_wrong_type_is_refused(wrong: object) -> None:
    """Half a rank is nothing, and neither is an endless one."""
    with pytest.raises(ConfigError, match="option 'rank' of 'lora' takes int, got"):
        merge_options("tuner", "lora", {"rank": 16}, {"rank": wrong})


@pytest.mark.parametrize("wrong", ["inf", float("-inf"), float("nan"), "nan", True])
def test_an_option_that_is_no_finite_number_is_refused(wrong: object) -> None:
    """It would make every weight it scales infinite, which shows as a loss of NaN a step later."""
    with pytest.raises(ConfigError, match="option 'alpha' of 'lora' takes a finite float, got"):
        merge_options("tuner", "lora", {"alpha": 16.0}, {"alpha": wrong})


@pytest.mark.parametrize(("given", "kept"), [("true", True), ("False", False), (True, True)])
def test_a_switch_is_true_or_false(given: object, kept: bool) -> None:
    """In words on a command line, as it is in a file."""
    assert merge_options("tuner", "x", {"bias": False}, {"bias": given}) == {"bias": kept}
    with pytest.raises(ConfigError, match="option 'bias' of 'x' takes bool, got 1"):
        merge_options("tuner", "x", {"bias": False}, {"bias": 1})


def test_weights_are_found_nowhere_else(tmp_path: Path) -> None:
    """A plan without weights is random from its seed, and another seed gives another network."""
    one, two = network(), network(seed=4)
    name = "foundation.backbone.pos_embed"
    tensors = (dict(one.state_dict()), dict(two.state_dict()))
    keys = [key for key in tensors[0] if tensors[0][key].is_floating_point() and tensors[0][key].std() > 0]
    assert any(not torch.equal(tensors[0][key], tensors[1][key]) for key in keys), name
