"""Transfer layers: their sizes, their start, where their randomness comes from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from simmat.errors import ConfigError
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
