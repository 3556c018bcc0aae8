"""`unet` is segmentation-models-pytorch's U-Net with C + 1 inputs, and says honestly what it is not."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from simmat_plugin_baselines import TUNERS as OTHER_TUNERS
from simmat_plugin_unet.model import ENCODER, UNetModel, build_unet, prompt_plane
from simmat_plugin_unet.spec import UNET
from simmat_testing import FoundationContract
from simmat_testing.networks import build_network

from simmat.errors import ConfigError
from simmat.foundation import PromptBatch
from simmat.io.weights import find_weights, sha256_of
from simmat.model import SimMAT
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.builtin import TUNERS

SIZE = 64
TUNE = {spec.name: spec for spec in (*TUNERS, *OTHER_TUNERS)}


def network(
    channels: int, tune: str = "full", *, mat: str = "first-conv", seed: int = 0
) -> SimMAT:
    return build_network(
        UNET,
        channels=channels,
        transfer=mat,
        tuner=tune,
        image_size=SIZE,
        weights=find_weights(UNET),
        seed=seed,
    )


def unet_of(model: SimMAT) -> UNetModel:
    assert isinstance(model.foundation, UNetModel)
    return model.foundation


def asked(
    *clicks: tuple[float, float, int],
    image: tuple[int, ...] = (0,),
    **more: torch.Tensor,
) -> PromptBatch:
    """As many equal prompts as images are named, of (x, y, label) points."""
    count = len(image)
    points = torch.tensor([[c[:2] for c in clicks]] * count).reshape(count, -1, 2)
    labels = torch.tensor([[c[2] for c in clicks]] * count, dtype=torch.int64).reshape(
        count, -1
    )
    return PromptBatch(torch.tensor(image), points.float(), labels, **more)


def planes(images: int, channels: int) -> torch.Tensor:
    return torch.randn(
        images, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1)
    )


def whole(images: int) -> torch.Tensor:
    return torch.ones(images, SIZE, SIZE, dtype=torch.bool)


def plain_unet(model: SimMAT, channels: int) -> torch.nn.Module:
    """The library's own model of C + 1 channels with the weights of ours."""
    ours = unet_of(model)
    unet = smp.Unet(ENCODER, encoder_weights=None, in_channels=channels + 1, classes=1)
    stem = torch.cat([model.mat.embed.weight, ours.decoder.click.weight], 1)  # type: ignore[union-attr, list-item]
    body = {
        f"model.{name}": tensor
        for name, tensor in ours.backbone.body.state_dict().items()
    }
    unet.encoder.load_state_dict({**body, "model.conv_stem.weight": stem})
    unet.decoder.load_state_dict(ours.decoder.blocks.state_dict())
    unet.segmentation_head.load_state_dict(ours.decoder.head.state_dict())
    return unet


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_it_is_the_plain_unet_with_the_click_as_one_more_channel(
    channels: int, training: bool
) -> None:
    """It stands for what others use; a model of our own making would be no comparison."""
    # in float32 the order of summation alone makes 3e-5
    model = network(channels).double()
    plain = plain_unet(model, channels).double().train(training)
    model.train(training)
    images, prompts = (
        planes(2, channels).double(),
        asked((20, 30, 1), (50, 9, 0), image=(1, 0, 1)),
    )
    with torch.no_grad():
        ours = model(images, whole(2), prompts).logits
        theirs = plain(
            torch.cat([images[prompts.image_index], prompt_plane(prompts, SIZE)], 1)
        )
    assert ours.shape == (3, 1, SIZE, SIZE)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_its_encoder_holds_the_imagenet_weights() -> None:
    """Random weights under the name of pretrained ones would make every comparison too kind to us."""
    path = find_weights(UNET)
    assert path is not None
    assert UNET.weights is not None
    assert sha256_of(path) == UNET.weights.sha256
    found = list(torch.load(path, weights_only=True).values())
    ours = build_unet(UNET, image_size=SIZE, weights=path, seed=0)
    stem = ours.backbone.stem.weight
    torch.testing.assert_close(stem.detach(), found[0])
    torch.testing.assert_close(
        ours.decoder.click.weight.detach(), found[0].sum(1, keepdim=True)
    )
    last = ours.backbone.body.state_dict()["blocks.6.0.bn3.running_var"]
    assert any(torch.equal(last, tensor) for tensor in found)


def test_a_click_is_a_disk_of_its_sign_and_the_last_one_lies_on_top() -> None:
    """A correction on a wrong place must win over the click before it."""
    plane = prompt_plane(asked((20, 30, 1), (24, 30, 0), (50, 50, -1)), SIZE)[0, 0]
    assert (plane[30, 15], plane[30, 14]) == (1, 0)
    assert (plane[30, 20], plane[30, 29], plane[30, 30]) == (-1, -1, 0)
    assert plane[50, 50] == 0, "label -1 is no point"
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    assert torch.equal(plane < 0, (x - 24) ** 2 + (y - 30) ** 2 <= 25)


def test_outside_of_a_box_is_not_the_object() -> None:
    """A box says nothing of what lies inside."""
    box = torch.tensor([[10.0, 12.0, 20.0, 30.0]])
    plane = prompt_plane(asked(boxes=box), SIZE)[0, 0]
    inside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inside[12:30, 10:20] = True  # a box's numbers are edges: 10 to 20 is ten pixels
    assert torch.equal(plane, torch.where(inside, 0.0, -1.0))


@pytest.mark.parametrize("side", [SIZE, SIZE // 4])
def test_a_previous_mask_is_a_weaker_word_than_a_click(side: int) -> None:
    """The click corrects the mask, so it must be told from it."""
    logits = torch.full((1, 1, side, side), 20.0)
    logits[..., : side // 2] = -20
    plane = prompt_plane(asked((10, 10, 1), mask_input=logits), SIZE)[0, 0]
    assert plane[10, 10] == 1
    torch.testing.assert_close(plane[40, [2, 60]], torch.tensor([-0.5, 0.5]))


MOVES = {"full": ("backbone.body.", "decoder."), "decoder": ("decoder.",), "frozen": ()}


@pytest.mark.parametrize("tune", sorted(TUNE.keys() - MOVES.keys()))
def test_other_tuners_refuse_it_by_name(tune: str) -> None:
    """A tuner that found nothing to do would train the transfer layer alone without a word."""
    with pytest.raises(ConfigError, match="'unet'"):
        network(1, tune)


class TestUNet(FoundationContract):
    """The model, with random weights and with those of ImageNet."""

    @pytest.fixture
    def foundation(self) -> FoundationSpec:
        return UNET
