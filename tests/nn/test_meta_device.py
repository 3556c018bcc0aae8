"""Networks on the meta device: their sizes, and an end of loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from simmat.nn.meta_device import TooLargeError, meta_copy, meta_device


def test_a_copy_has_the_shapes_and_takes_no_memory() -> None:
    """The original keeps its values, and shared tensors stay shared."""
    layer = nn.Linear(3, 4)
    module = nn.Sequential(layer, nn.BatchNorm1d(4), layer)
    copied = meta_copy(module)
    assert {name: t.shape for name, t in copied.state_dict().items()} == {
        name: t.shape for name, t in module.state_dict().items()
    }
    assert all(tensor.is_meta for tensor in copied.state_dict().values())
    assert copied[0].weight is copied[2].weight
    assert not layer.weight.is_meta


def test_terabytes_are_built_at_once_on_the_meta_device() -> None:
    """So are their initial values."""
    with meta_device("it", 100):
        layer = nn.Linear(10**6, 10**6)
        layer.weight.data.normal_(generator=torch.Generator())
    assert layer.weight.nbytes == 4 * 10**12


def test_a_loop_of_a_million_layers_ends() -> None:
    """An option may say how many there are."""
    with pytest.raises(TooLargeError, match="layer 'x' would take more than 100 calls"), meta_device("layer 'x'", 100):
        nn.Sequential(*(nn.Linear(2, 2) for _ in range(10**6)))
