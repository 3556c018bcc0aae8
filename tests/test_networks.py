"""The method as parts of torch, without a data set or a bundle."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import simmat
from simmat.errors import ConfigError
from simmat.foundation import PromptBatch


def test_a_mat_stands_before_any_network() -> None:
    """Whoever has a network for RGB of her own takes the layer alone, and step 0 is the zero-shot model."""
    mat = simmat.MAT(6, seed=3)
    network = nn.Sequential(mat, nn.Conv2d(3, 4, 3))
    planes = torch.randn(2, 6, 32, 40)
    assert network(planes).shape == (2, 4, 30, 38)
    image = mat(planes)
    assert torch.equal(image[:, 0], image[:, 2])
    assert image.std().item() == pytest.approx(1, rel=0.1)
    network(planes).sum().backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in mat.parameters() if parameter.grad is not None)
    assert torch.equal(simmat.MAT(6, "mat", seed=3)(planes), simmat.MAT(6, "mat", seed=3)(planes))
    assert simmat.MAT(2, "mat", width=8)(planes[:, :2]).shape == (2, 3, 32, 40)


def test_channels_named_red_green_and_blue_pass_as_they_are() -> None:
    """RGB beside another plane keeps its colours."""
    channels = [*(simmat.Channel(name, "srgb", "count") for name in ("red", "green", "blue"))]
    planes = torch.randn(1, 4, 8, 8)
    mat = simmat.MAT([*channels, simmat.Channel("nir", "reflectance", "1")])
    assert torch.equal(mat(planes), planes[:, :3])


def test_a_layer_that_needs_a_backbone_does_not_stand_alone() -> None:
    """It replaces the first layer, which is not there."""
    with pytest.raises(ConfigError, match=r"'first-conv'.*simmat.build"):
        simmat.MAT(4, "first-conv")
    for wrong in (0, 9.0, "thermal", ["red"]):
        with pytest.raises(ConfigError, match=rf"a number of channels, at least 1.*got {re.escape(repr(wrong))}"):
            simmat.MAT(wrong)
    with pytest.raises(ConfigError, match="wide"):
        simmat.MAT(4, wide=3)


def test_a_network_is_built_without_data() -> None:
    """A researcher brings her own training loop."""
    network = simmat.build(
        foundation="tiny", modality="gray", mat="mat", tune="lora", tune_options={"rank": 2}, image_size=64
    )
    moving = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
    assert moving == {"mat", "foundation"}
    embedding = network.encode(torch.randn(2, 1, 64, 64))
    clicks = torch.tensor([[[10.0, 20.0]], [[30.0, 40.0]]])
    prompts = PromptBatch(torch.tensor([0, 1]), clicks, torch.ones(2, 1, dtype=torch.int64))
    found = network.decode(embedding, prompts)
    assert found.logits.shape[0] == 2
    found.logits.mean().backward()
    assert all(p.grad is not None for p in network.mat.parameters())


def test_a_sensor_whose_files_say_its_channels_is_refused() -> None:
    """The number of planes of a raster is known when a file is open."""
    with pytest.raises(ConfigError, match=r"'raster' learns its channels.*simmat.MAT"):
        simmat.build(foundation="tiny", modality="raster")
