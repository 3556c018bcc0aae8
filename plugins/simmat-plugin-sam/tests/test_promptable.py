"""A bare backbone made promptable: pyramid and decoder."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from simmat_plugin_sam.pyramid import FRESH, FeaturePyramid, PromptableModel
from torch import Tensor, nn

from simmat.errors import DataError
from simmat.foundation import PromptBatch
from simmat.nn.tuners import (
    pretrained_backbone,
    trainable_state,
    unfreeze_newly_initialized,
)
from simmat.plugin_specs import TuningTargets

SIZE = 64
DIM = 32


class Maps(nn.Module):
    """Average pools of a stride-4 stem, or one map at a given stride."""

    def __init__(self, strides: Sequence[float]) -> None:
        super().__init__()
        first = int(strides[0])
        self.strides, self.widths = list(strides), [6] * len(strides)
        self.first_layer = nn.Conv2d(3, 6, first, stride=first)

    def embed(self, image: Tensor) -> Tensor:
        return self.first_layer(image)

    def maps(self, features: Tensor) -> list[Tensor]:
        return [
            nn.functional.avg_pool2d(features, int(s // self.strides[0]))
            for s in self.strides
        ]


def model(*strides: float, size: int = SIZE) -> PromptableModel:
    body = Maps(strides)
    return PromptableModel(
        "zoo/m", body, image_size=size, seed=3, dim=DIM, heads=2, hidden=16
    )


def clicks(*points: tuple[float, float, int], image: int = 0) -> PromptBatch:
    return PromptBatch(
        torch.tensor([image]),
        torch.tensor([[p[:2] for p in points]]).float(),
        torch.tensor([[p[2] for p in points]]),
    )


def encoded(network: PromptableModel, images: int = 2, size: int = SIZE):
    image = torch.randn(
        images, 3, size, size, generator=torch.Generator().manual_seed(1)
    )
    return network.backbone.encode(network.backbone.embed(image))


@pytest.mark.parametrize(
    ("given", "strides", "size"),
    [
        ((16,), (4, 8, 16), 64),
        ((14,), (3.5, 7, 14), 70),
        ((8, 16), (4, 8, 16), 64),
        ((4, 8, 16, 32), (4, 8, 16), 64),
        ((8, 16, 32), (8, 16, 32), 64),
    ],
)
def test_every_kind_of_backbone_gets_three_levels_and_masks_at_the_finest(
    given: tuple[int, ...], strides: tuple[float, ...], size: int
) -> None:
    """One decoder for plain ViTs of any patch and for hierarchies."""
    network = model(*given, size=size)
    embedding = encoded(network, size=size)
    assert embedding.strides == strides
    assert [tuple(level.shape) for level in embedding.levels] == [
        (2, width, size / stride, size / stride)
        for width, stride in zip((4, 8, 32), strides, strict=True)
    ]
    answer = network.decoder.decode(embedding, clicks((5, 6, 1), image=1))
    assert answer.logits.shape == (1, 4, size / strides[0], size / strides[0])
    assert answer.iou.shape == (1, 4)


def test_strides_that_do_not_double_are_refused() -> None:
    """A sum of maps of other sizes would fail deep in the network."""
    with pytest.raises(ValueError, match=r"strides \[4, 16\]"):
        FeaturePyramid((6, 6), (4, 16), DIM)


@torch.no_grad()
def test_points_boxes_and_masks_all_matter() -> None:
    """A decoder that overlooks a prompt would still train and score something."""
    network = model(16)
    embedding = encoded(network)
    click = clicks((20, 30, 1))
    mask = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    others = [
        clicks((40, 40, 1)),
        clicks((20, 30, 0)),
        PromptBatch(
            click.image_index,
            click.point_coords,
            click.point_labels,
            torch.tensor([[4.0, 4, 60, 60]]),
        ),
        PromptBatch(
            click.image_index, click.point_coords, click.point_labels, None, mask
        ),
    ]
    answer = network.decoder.decode(embedding, click).logits
    for other in others:
        assert not torch.allclose(
            network.decoder.decode(embedding, other).logits, answer
        )


@torch.no_grad()
def test_fine_levels_reach_the_mask() -> None:
    """Without them an edge could be no sharper than the coarsest level."""
    network = model(4, 8, 16, 32)
    embedding = encoded(network)
    answer = network.decoder.decode(embedding, clicks((20, 30, 1))).logits
    embedding.levels[0].zero_()
    assert not torch.allclose(
        network.decoder.decode(embedding, clicks((20, 30, 1))).logits, answer
    )


def test_a_seed_leaves_every_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that opens a bundle may draw on its GPU; the same numbers after each opening would be no chance."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    model(16)
    assert seeded == []


def test_a_prompt_that_says_nothing_is_refused() -> None:
    """The package would answer for a batch of one; a mask of another size would fail inside of a convolution."""
    network = model(16)
    nothing = PromptBatch(
        torch.tensor([0]), torch.zeros(1, 0, 2), torch.zeros(1, 0).long()
    )
    with pytest.raises(DataError, match="at least one point"):
        network.decoder.decode(encoded(network), nothing)
    click = clicks((1, 1, 1))
    wrong = PromptBatch(
        click.image_index,
        click.point_coords,
        click.point_labels,
        None,
        torch.zeros(1, 1, 8, 8),
    )
    with pytest.raises(DataError, match=r"\(K, 1, 16, 16\).*got \(1, 1, 8, 8\)"):
        network.decoder.decode(encoded(network), wrong)


def test_a_backbone_without_a_weight_file_is_not_pretrained() -> None:
    """`--backbone-lr-factor` slows what is known already; a random pyramid has everything to learn."""
    network = model(4, 8, 16, 32)
    known = {
        id(parameter)
        for parameter in pretrained_backbone(
            network, TuningTargets(newly_initialized=FRESH)
        )
    }
    names = [
        name for name, parameter in network.named_parameters() if id(parameter) in known
    ]
    assert names == [
        "backbone.body.first_layer.weight",
        "backbone.body.first_layer.bias",
    ]


def test_a_trained_decoder_is_kept_with_its_random_frequencies() -> None:
    """Drawn otherwise one day, every click would lie elsewhere for it, and its bundle would load without a word."""
    network = model(4, 8, 16, 32)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    unfreeze_newly_initialized(network, TuningTargets(newly_initialized=FRESH))
    kept = trainable_state(network)
    other = PromptableModel(
        "zoo/m",
        Maps([4, 8, 16, 32]),
        image_size=SIZE,
        seed=4,
        dim=DIM,
        heads=2,
        hidden=16,
    )
    other.backbone.body.load_state_dict(network.backbone.body.state_dict())
    other.load_state_dict(kept, strict=False)
    with torch.no_grad():
        expected = network.decoder.decode(encoded(network), clicks((20, 30, 1))).logits
        assert torch.equal(
            other.decoder.decode(encoded(other), clicks((20, 30, 1))).logits, expected
        )
