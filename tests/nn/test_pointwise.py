"""The 1x1 convolution that is fast on one thread."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simmat.nn.lora import add_lora, takes_lora
from simmat.nn.pointwise import PointwiseConv2d


@pytest.mark.parametrize("shape", [(2, 6, 8, 4), (1, 6, 3, 5), (17, 6, 2, 2)])
def test_it_is_a_1x1_convolution_with_its_gradients(
    shape: tuple[int, int, int, int],
) -> None:
    """Small batches are computed as larger ones, which must show in the time alone."""
    generator = torch.Generator().manual_seed(0)
    layer = PointwiseConv2d(6, 5).double()
    results = []
    for function in (layer, lambda x: F.conv2d(x, layer.weight, layer.bias)):
        x = torch.randn(shape, generator=generator.manual_seed(0)).double()
        x.requires_grad_()
        layer.zero_grad()
        found = function(x)
        (found * torch.arange(shape[-1])).sum().backward()
        results.append((found, x.grad, layer.weight.grad, layer.bias.grad))
    torch.testing.assert_close(*results)


def test_a_map_with_channels_last_keeps_that_layout() -> None:
    """Another layout would be copied by the next convolution."""
    x = torch.randn(2, 6, 8, 8).to(memory_format=torch.channels_last)
    found = PointwiseConv2d(6, 5)(x)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_lora_tunes_it_as_a_plain_convolution() -> None:
    """It starts from the layer's own answer."""
    layer = PointwiseConv2d(6, 5)
    x = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    before = layer(x)
    assert takes_lora(layer)
    assert not takes_lora(nn.Conv2d(6, 6, 3))
    add_lora(
        layer,
        slices=(0,),
        parts=1,
        rank=2,
        alpha=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(layer(x), before)
