"""The 1x1 convolution that is fast on one thread."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

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
