"""Each family gives what timm's own forward pass gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.xcit import Xcit
from torch import Tensor, nn

TIGHT = {"atol": 1e-5, "rtol": 1e-5}


@torch.no_grad()
def maps_of(network: Any, image: Tensor) -> list[Tensor]:
    body = network.backbone.body
    return list(body.maps(body.embed(image)))


def last_map(network: nn.Module, image: Tensor) -> Tensor:
    """Return timm's `forward_features` as a map (B, D, h, w)."""
    if isinstance(network, Xcit):  # it goes on to let the class token look, which is no part of the map
        maps: list[Tensor] = network.forward_intermediates(image, indices=1, norm=True, intermediates_only=True)
        return maps[-1]
    features = network.forward_features(image)
    if features.ndim == 4:
        return features if features.shape[1] > features.shape[3] else features.permute(0, 3, 1, 2)
    tokens = features[:, getattr(network, "num_prefix_tokens", 0) :]
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


@torch.no_grad()
def test_the_last_map_is_timms_forward_features(family: Any) -> None:
    """Position embeddings, class tokens, windows and norms are in it; a slip in any would spoil pretrained weights."""
    torch.testing.assert_close(
        maps_of(family.ours(), family.image())[-1], last_map(family.theirs(), family.image()), **TIGHT
    )


@torch.no_grad()
def test_every_level_is_timms_intermediate_at_its_stride(family: Any) -> None:
    """A pyramid in another order, or off by a stage, would still train."""
    ours, theirs = family.ours(), family.theirs()
    levels = maps_of(ours, family.image())
    body = ours.backbone.body
    kind = family.architecture
    indices = list(range(kind.first_level, len(theirs.feature_info))) if kind.every_level else 1
    expected = theirs.forward_intermediates(
        family.image(), indices=indices, norm=kind.final_norm, intermediates_only=True
    )
    assert len(levels) == len(expected) == (len(indices) if kind.every_level else 1)
    for level, width, stride, wanted in zip(levels, body.widths, body.strides, expected, strict=True):
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
    torch.testing.assert_close(maps_of(network, image.flip(-1))[-1], other, atol=0, rtol=0)
    torch.testing.assert_close(body.model.get_submodule(family.architecture.first_layer)(image), own, atol=0, rtol=0)


def save(network: nn.Module, path: Path) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("classes", [None, 7, 0])
@torch.no_grad()
def test_a_weight_file_of_timm_fills_the_network_exactly(classes: int | None, family: Any, tmp_path: Path) -> None:
    """Its classifier, as published, of one's own or none, is left aside; everything else must be in place."""
    source = family.theirs(seed=5, num_classes=classes)
    loaded = family.ours(seed=0, weights=save(source, tmp_path / "w.safetensors"))
    torch.testing.assert_close(maps_of(loaded, family.image())[-1], last_map(source, family.image()), **TIGHT)
    fresh, random = loaded.decoder.state_dict(), family.ours(seed=0).decoder.state_dict()
    assert all(torch.equal(fresh[name], random[name]) for name in fresh)


@pytest.mark.parametrize("title", ["ViT", "DINOv2 with registers", "DINOv3", "EVA-02", "CLIP"])
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
    torch.testing.assert_close(maps_of(loaded, image)[-1], last_map(source, image), **TIGHT)


@pytest.mark.parametrize("title", ["SAM's encoder", "SAM 2's encoder"])
@torch.no_grad()
def test_sams_encoder_takes_every_size_with_the_same_weights(title: str, make_family: Any) -> None:
    """It interpolates positions in every forward pass, so its weights stay those of the native size."""
    family = make_family(title)
    image = family.image(size=96)
    torch.testing.assert_close(maps_of(family.ours(size=96), image)[-1], last_map(family.theirs(), image), **TIGHT)


@pytest.mark.parametrize(
    "title",
    [
        *("Swin", "Swin V2", "Hiera", "Hiera with absolute windows", "BEiT v2", "ViT with relative positions", "PVTv2"),
        *(pytest.param(title, marks=pytest.mark.slow) for title in
          ("ViT with a relative position MLP", "CaiT", "XCiT", "Swin V2 (CR)", "MViTv2", "DaViT", "MaxViT")),
    ],
)  # fmt: skip
@torch.no_grad()
def test_hierarchies_take_weights_of_another_size(title: str, make_family: Any, tmp_path: Path) -> None:
    """Windows and their tables change with the size; what does not must stay to the bit."""
    family = make_family(title)
    source = family.theirs(seed=5)
    loaded = family.ours(size=128, weights=save(source, tmp_path / "w.safetensors"))
    assert maps_of(loaded, family.image(size=128))[-1].isfinite().all()
    mine = loaded.backbone.body.model.state_dict()
    theirs = source.state_dict()
    same = [name for name in theirs if name in mine and re.search(r"[.]mlp[.](fc1|layers[.]0)[.]weight", name)]
    assert same
    assert all(torch.equal(mine[name], theirs[name]) for name in same)


@pytest.mark.parametrize(("title", "stride"), [("Hiera", 4), pytest.param("CaiT", 16, marks=pytest.mark.slow)])
@torch.no_grad()
def test_positions_are_interpolated_on_their_grid(title: str, stride: int, make_family: Any, tmp_path: Path) -> None:
    """A table read in the wrong order would scramble the image without an error."""
    family = make_family(title)
    source = family.theirs()
    side = family.size // stride
    rows = torch.arange(float(side))[:, None].expand(side, side).reshape(1, side * side, 1)
    source.pos_embed.copy_(rows.expand_as(source.pos_embed))
    loaded = family.ours(size=128, weights=save(source, tmp_path / "w.safetensors"))
    grid = loaded.backbone.body.model.pos_embed.unflatten(1, (2 * side, 2 * side))[0, ..., 0]
    torch.testing.assert_close(grid, grid[:, :1].expand(2 * side, 2 * side), **TIGHT)
    assert (grid[1:, 0] > grid[:-1, 0] - 1e-4).all()


def test_a_seed_gives_the_same_bits_and_leaves_torch_alone(family: Any) -> None:
    """Bundles name a random model by its seed."""
    before = torch.random.get_rng_state()
    first, second, third = (family.ours(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_loading_weights_leaves_torch_alone(make_family: Any, tmp_path: Path) -> None:
    """timm draws random weights before it loads; a bundle opened in a program of its own must not move its draws."""
    family = make_family("ViT")
    file = save(family.theirs(seed=5), tmp_path / "w.safetensors")
    before = torch.random.get_rng_state()
    family.ours(weights=file)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_seed_leaves_every_gpu_alone(make_family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that opens a bundle may draw on its GPU; the same numbers after each opening would be no chance."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    make_family("ViT").ours(seed=1)
    assert seeded == []
