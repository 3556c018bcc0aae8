"""A library's network in two steps: its convolution, handed its answer, and the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.nn.first_layer import blank_image, open_first_layer, refitted


class PadsItself(nn.Conv2d):
    """A convolution with a rule of its own, as libraries have."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (1, 0, 1, 0)))


def network() -> nn.Module:
    return nn.Sequential(PadsItself(3, 4, 3, stride=2), nn.ReLU())


def test_an_opened_convolution_answers_as_before_under_its_names() -> None:
    """Weight files and bundles know the library's names, and its padding decides every pixel."""
    model, image = network(), torch.randn(2, 3, 9, 9)
    before, names = model(image), list(model.state_dict())
    open_first_layer(model, "0")
    assert torch.equal(model(image), before)
    assert list(model.state_dict()) == names


def test_features_that_are_handed_in_are_answered_whatever_the_image_and_no_longer() -> None:
    """Left behind, they would be the answer to the next image."""
    model, image = network(), torch.randn(2, 3, 9, 9)
    first, before = open_first_layer(model, "0"), model(image)
    features = torch.randn(2, 4, 4, 4)
    with first.handing(features):
        assert torch.equal(model(blank_image(features, first)), features.relu())
    assert torch.equal(model(image), before)


def test_a_refitted_copy_of_an_opened_convolution_keeps_its_rule() -> None:
    """Transfer layers that replace the first layer must see the pixels that it sees."""
    model = network()
    first = open_first_layer(model, "0")
    copy = refitted(first, torch.ones(4, 5, 3, 3), None)
    assert copy(torch.ones(1, 5, 9, 9)).shape == first(torch.ones(1, 3, 9, 9)).shape


def test_a_blank_image_has_the_size_that_the_features_stand_for_and_takes_no_memory() -> None:
    """A batch of large images for their shape alone would cost gigabytes."""
    first = open_first_layer(network(), "0")
    image = blank_image(torch.ones(2, 4, 512, 256), first)
    assert image.shape == (2, 3, 1024, 512)
    assert image.untyped_storage().nbytes() == 4
