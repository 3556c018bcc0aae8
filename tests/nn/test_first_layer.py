"""A library's network in two steps: its convolution, whose output can be given, and the rest."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.nn.first_layer import blank_image, make_overridable


class PadsItself(nn.Conv2d):
    """A convolution with a rule of its own, as libraries have."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (1, 0, 1, 0)))


def network() -> nn.Module:
    return nn.Sequential(PadsItself(3, 4, 3, stride=2), nn.ReLU())


def test_an_overridable_convolution_answers_as_before_under_its_names() -> None:
    """Weight files and bundles know the library's names, and its padding decides every pixel."""
    model, image = network(), torch.randn(2, 3, 9, 9)
    before, names = model(image), list(model.state_dict())
    make_overridable(model, "0")
    assert torch.equal(model(image), before)
    assert list(model.state_dict()) == names


def test_given_features_are_returned_whatever_the_image_and_no_longer() -> None:
    """Left behind, they would be the answer to the next image."""
    model, image = network(), torch.randn(2, 3, 9, 9)
    first, before = make_overridable(model, "0"), model(image)
    features = torch.randn(2, 4, 4, 4)
    with first.override(features):
        assert torch.equal(model(blank_image(features, first)), features.relu())
    assert torch.equal(model(image), before)


def test_threads_that_share_a_network_get_their_own() -> None:
    """A service that answers several users at once must not answer one with the image of another."""
    model = network()
    first, together = make_overridable(model, "0"), threading.Barrier(2)

    def answer(features: Tensor) -> Tensor:
        with first.override(features):
            together.wait(10)  # both have given theirs
            found = cast(Tensor, model(blank_image(features, first)))
            together.wait(10)
            return found

    given = [torch.full((1, 4, 4, 4), value) for value in (1.0, 2.0)]
    with ThreadPoolExecutor(2) as pool:
        assert all(
            torch.equal(*pair)
            for pair in zip(pool.map(answer, given), given, strict=True)
        )
