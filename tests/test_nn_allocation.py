"""The limit on the memory that building a network may take."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simmat.nn.allocation import AllocationLimit, Room, TooLargeError
from simmat.nn.initial import conv2d

MIB = 2**20


def test_values_and_random_numbers_are_those_without_a_limit() -> None:
    """A bundle must load into the very network that was trained."""

    def made() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        torch.manual_seed(5)
        large = torch.randn(1000, 1100, generator=generator) @ torch.rand(1100, 3)
        tensors = [large, conv2d(3, 4, 3, generator).weight, nn.Linear(40, 50).weight]
        return [tensor.detach() for tensor in [*tensors, torch.randperm(9), F.interpolate(large[None, None], (9, 9))]]

    plain = made()
    with AllocationLimit(Room(100 * MIB, 100), "it"):
        limited = made()
    assert all(torch.equal(one, other) for one, other in zip(plain, limited, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2**40),
        lambda: torch.eye(2**20),
        lambda: torch.rand(2**40, generator=torch.Generator()),
        lambda: torch.linspace(0, 1, 2**36),
        lambda: nn.Linear(2**20, 2**20),
        lambda: conv2d(1, 2**32, 3, torch.Generator()),
        lambda: torch.arange(2**20)[:, None] - torch.arange(2**20)[None],
        lambda: torch.ones(1).repeat(2**38),
        lambda: torch.ones(1).expand(2**38).clone(),
        lambda: F.interpolate(torch.zeros(1, 4, 4, 4), (2**18, 2**18), mode="bicubic", antialias=True),
    ],
)
def test_a_tensor_beyond_the_limit_is_not_made(make: Callable[[], object]) -> None:
    """Each of these is hundreds of gigabytes, so that a machine that made it would not come back."""
    said = r"transfer layer 'x' would take more than 0\.0625 GiB"
    with pytest.raises(TooLargeError, match=said), AllocationLimit(Room(64 * MIB, 100), "transfer layer 'x'"):
        make()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: torch.device("meta")])
def test_a_refusal_leaves_torch_as_it_was(context: Callable[[], AbstractContextManager[object]]) -> None:
    """A refused bundle must not switch gradients off for the training that follows."""
    limit = AllocationLimit(Room(MIB, 2), "it")
    with pytest.raises(TooLargeError), limit, context():
        [torch.zeros(2**40) if torch.get_default_device().type == "cpu" else torch.zeros(1) for _ in range(9)]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.get_default_device().type == "cpu"


@pytest.mark.parametrize("make", [lambda: torch.zeros(0), lambda: nn.Linear(2, 2, device="meta")])
def test_a_loop_of_small_tensors_ends(make: Callable[[], object]) -> None:
    """A billion layers of one number take no less than a large one."""
    with pytest.raises(TooLargeError, match="more than 100 tensors"), AllocationLimit(Room(MIB, 100), "it"):
        [make() for _ in range(10**9)]


def test_views_and_changes_in_place_take_nothing() -> None:
    """Otherwise loading what fits would be refused."""
    with AllocationLimit(Room(2 * MIB, 1), "it"):
        tensor = torch.zeros(2**19)
        for _ in range(100):
            tensor.view(2**9, 2**10).T.mul_(2)[3:].add_(1)
