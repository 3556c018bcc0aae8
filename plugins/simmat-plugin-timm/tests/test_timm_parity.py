"""Each family gives what timm's own forward pass gives."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from simmat_plugin_timm.network import first_layer_name
from torch import Tensor, nn

TIGHT = {"atol": 1e-5, "rtol": 1e-5}


@torch.no_grad()
def maps_of(network: Any, image: Tensor) -> list[Tensor]:
    body = network.backbone.body
    return list(body.maps(body.embed(image)))


ANOTHER = {"CoaT", "FastViT", "XCiT", "XCiT, patches of 8"}
"""Families whose `forward_features` goes on to class tokens, or to wider features, which are no part of the map."""


def features_of(network: nn.Module, image: Tensor) -> Tensor:
    """Return timm's `forward_features` as a map (B, D, h, w)."""
    features = network.forward_features(image)
    if features.ndim == 4:
        return (
            features
            if features.shape[2] == features.shape[3]
            else features.permute(0, 3, 1, 2)
        )
    places = math.isqrt(features.shape[1]) ** 2
    tokens = features[:, features.shape[1] - places :]
    return tokens.transpose(1, 2).unflatten(2, (math.isqrt(places), math.isqrt(places)))


def levels_expected(family: Any, network: nn.Module, image: Tensor) -> list[Tensor]:
    """Return the levels by timm's own `forward_intermediates`: the last map at each stride."""
    kind = family.architecture
    strides = [info["reduction"] for info in network.feature_info]
    taken = [
        i
        for i, stride in enumerate(strides)
        if stride >= 4 and stride not in strides[i + 1 :]
    ]
    return list(
        network.forward_intermediates(
            image, indices=taken, norm=kind.final_norm, intermediates_only=True
        )
    )


@torch.no_grad()
def test_the_last_map_is_timms_forward_features(
    family: Any, request: pytest.FixtureRequest
) -> None:
    """Position embeddings, class tokens, windows and norms are in it; a slip in any would spoil pretrained weights."""
    if request.node.callspec.params["family"] in ANOTHER:
        pytest.skip("its forward_features goes on")
    features = features_of(family.theirs(), family.image())
    torch.testing.assert_close(
        maps_of(family.ours(), family.image())[-1], features, **TIGHT
    )


@torch.no_grad()
def test_every_level_is_timms_intermediate_at_its_stride(family: Any) -> None:
    """A pyramid in another order, or off by a stage, would still train."""
    ours, theirs = family.ours(), family.theirs()
    levels = maps_of(ours, family.image())
    body = ours.backbone.body
    expected = levels_expected(family, theirs, family.image())
    assert len(levels) == len(expected)
    for level, width, stride, wanted in zip(
        levels, body.widths, body.strides, expected, strict=True
    ):
        assert level.shape == (2, width, family.size // stride, family.size // stride)
        torch.testing.assert_close(level, wanted, **TIGHT)


@torch.no_grad()
def test_features_of_the_first_layer_may_come_from_elsewhere(family: Any) -> None:
    """A transfer layer hands them in; the image must not reach the rest by another way, nor an earlier one linger."""
    network = family.ours()
    body, image = network.backbone.body, family.image()
    own = body.embed(image)
    torch.testing.assert_close(own, body.first_layer(image), atol=0, rtol=0)
    other = maps_of(network, image.flip(-1))[-1]
    assert not torch.allclose(body.maps(torch.zeros_like(own))[-1], body.maps(own)[-1])
    torch.testing.assert_close(
        maps_of(network, image.flip(-1))[-1], other, atol=0, rtol=0
    )
    torch.testing.assert_close(
        body.model.get_submodule(first_layer_name(body.model))(image),
        own,
        atol=0,
        rtol=0,
    )


def save(network: nn.Module, path: Path) -> Path:
    save_file(
        {
            name: tensor.contiguous().clone()
            for name, tensor in network.state_dict().items()
        },
        path,
    )
    return path


@pytest.mark.parametrize("classes", [None, 7, 0])
@torch.no_grad()
def test_a_weight_file_of_timm_fills_the_network_exactly(
    classes: int | None, family: Any, tmp_path: Path
) -> None:
    """Its classifier, as published, of one's own or none, is left aside; everything else must be in place."""
    source = family.theirs(seed=5, num_classes=classes)
    loaded = family.ours(seed=0, weights=save(source, tmp_path / "w.safetensors"))
    torch.testing.assert_close(
        maps_of(loaded, family.image())[-1],
        levels_expected(family, source, family.image())[-1],
        **TIGHT,
    )
    fresh, random = (
        loaded.decoder.state_dict(),
        family.ours(seed=0).decoder.state_dict(),
    )
    assert all(torch.equal(fresh[name], random[name]) for name in fresh)


@pytest.mark.parametrize(
    "title", ["ViT", "DINOv2 with registers", "DINOv3", "EVA-02", "CLIP"]
)
@torch.no_grad()
def test_weights_are_brought_to_another_size_as_timm_does_on_the_fly(
    title: str, make_family: Any, tmp_path: Path
) -> None:
    """DINOv2 was trained at 518 pixels; position embeddings are interpolated, rotary ones scaled."""
    family = make_family(title)
    larger = family.size + 2 * family.spec.size_multiple
    source = family.theirs(seed=5, dynamic_img_size=True)
    loaded = family.ours(size=larger, weights=save(source, tmp_path / "w.safetensors"))
    image = family.image(size=larger)
    torch.testing.assert_close(
        maps_of(loaded, image)[-1], levels_expected(family, source, image)[-1], **TIGHT
    )


TABLES = r".*(pos_embed|patch_pos|rel_pos|attention_biases|relative_position_bias_table|pos_proj|rope).*"


@torch.no_grad()
def test_weights_are_taken_at_another_size(family: Any, tmp_path: Path) -> None:
    """Position tables and windows change with the size; what does not must stay to the bit."""
    source = family.theirs(seed=5)
    larger = family.size + 2 * family.spec.size_multiple
    loaded = family.ours(size=larger, weights=save(source, tmp_path / "w.safetensors"))
    assert all(
        level.isfinite().all() for level in maps_of(loaded, family.image(size=larger))
    )
    mine = dict(loaded.backbone.body.model.named_parameters())
    theirs = {name: value for name, value in source.named_parameters() if name in mine}
    assert len(theirs) > 0.9 * len(mine)
    for name in theirs:
        if not re.fullmatch(TABLES, name):
            assert torch.equal(mine[name], theirs[name]), name


@torch.no_grad()
def test_positions_are_interpolated_on_their_grid(
    make_family: Any, tmp_path: Path
) -> None:
    """A table read in the wrong order would scramble the image without an error."""
    family = make_family("Hiera")
    source = family.theirs()
    side = family.size // 4
    rows = (
        torch.arange(float(side))[:, None].expand(side, side).reshape(1, side * side, 1)
    )
    source.pos_embed.copy_(rows.expand_as(source.pos_embed))
    loaded = family.ours(size=128, weights=save(source, tmp_path / "w.safetensors"))
    grid = loaded.backbone.body.model.pos_embed.unflatten(1, (2 * side, 2 * side))[
        0, ..., 0
    ]
    torch.testing.assert_close(grid, grid[:, :1].expand(2 * side, 2 * side), **TIGHT)
    assert (grid[1:, 0] > grid[:-1, 0] - 1e-4).all()
