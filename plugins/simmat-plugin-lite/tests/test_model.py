"""What SimMAT expects of `lite`, whatever its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from simmat_plugin_lite.blocks import pool_region, unit_vectors
from simmat_plugin_lite.encoder import depthwise, make_encoder
from simmat_plugin_lite.model import LiteModel, build_lite
from simmat_plugin_lite.prompt_maps import PromptState, prompt_maps
from simmat_plugin_lite.spec import LITE
from simmat_testing import FoundationContract
from torch import nn
from torch.nn import functional as F

from simmat.errors import WeightsError
from simmat.foundation import ImageEmbedding, PromptBatch

SIZE = 64


def encoded(model: LiteModel, images: int = 1, size: int = SIZE) -> ImageEmbedding:
    """Levels of random images."""
    image = torch.randn(
        images, 3, size, size, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        return model.backbone.encode(model.backbone.embed(image))


def clicks(*points: tuple[float, float, int], image: int = 0) -> PromptBatch:
    """One prompt of (x, y, label) points."""
    return PromptBatch(
        image_index=torch.tensor([image]),
        point_coords=torch.tensor([[p[:2] for p in points]]).reshape(1, -1, 2).float(),
        point_labels=torch.tensor([[p[2] for p in points]]).reshape(1, -1).long(),
    )


def answer(
    model: LiteModel, embedding: ImageEmbedding, prompts: PromptBatch
) -> torch.Tensor:
    """Mask logits, without gradient."""
    with torch.no_grad():
        return model.decoder.decode(embedding, prompts).logits


def test_the_encoder_is_that_of_timm() -> None:
    """The packaged weights came of it, and bundles name random ones by their seed.

    Its weights are equal bit for bit; its results in double precision, as sums are added in another order.
    """
    timm = pytest.importorskip("timm", reason="lite builds its encoder without it")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        theirs = timm.create_model("tf_efficientnet_lite0").eval()
        torch.manual_seed(5)
        stem, norm, stages = (part.eval() for part in make_encoder())
    state = theirs.state_dict()
    ours = nn.ModuleDict(
        {"conv_stem": stem, "bn1": norm, "blocks": stages}
    ).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in ours.items())
    assert [
        name
        for name in state
        if not name.startswith(("conv_head", "bn2", "classifier"))
    ] == list(ours)
    for part in (theirs, stem, norm, stages):
        part.double()
    for size in (64, 75):  # with an odd side the padding is another
        image = torch.randn(
            2,
            3,
            size,
            size,
            generator=torch.Generator().manual_seed(1),
            dtype=torch.float64,
        )
        with torch.no_grad():
            maps = theirs.blocks(theirs.bn1(theirs.conv_stem(image)))
            found = stages(norm(stem(image)))
        torch.testing.assert_close(found, maps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_previous_mask_of_any_size_is_taken(model: LiteModel, side: int) -> None:
    """Its own answers come back at stride 2; other sources have other sizes."""
    embedding = encoded(model)
    first = clicks((20, 30, 1))
    again = PromptBatch(
        first.image_index,
        first.point_coords,
        first.point_labels,
        None,
        torch.ones(1, 1, side, side),
    )
    assert answer(model, embedding, again).shape == (1, 4, SIZE // 2, SIZE // 2)


def test_levels_of_another_model_are_refused_with_the_reason(model: LiteModel) -> None:
    """A decoder run on foreign features would answer nonsense."""
    with pytest.raises(ValueError, match="strides"):
        model.decoder.decode(
            ImageEmbedding((torch.zeros(1, 8, 4, 4),), (16,)), clicks((1, 1, 1))
        )


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """The message names the tensors, so that one sees whose file it is."""
    save_file({"image_encoder.pos_embed": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="pos_embed is unknown"):
        build_lite(LITE, image_size=SIZE, weights=tmp_path / "w.safetensors", seed=0)


@pytest.mark.parametrize("frozen", [True, False])
def test_pretrained_statistics_stay_in_training_and_random_ones_learn(
    frozen: bool,
) -> None:
    """Six images a batch are too few to estimate what ImageNet's millions did; random weights have nothing to keep."""
    norms = [
        m
        for m in LiteModel(freeze_statistics=frozen).train().modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    assert norms
    assert all(norm.training != frozen for norm in norms)


def test_bfloat16_autocast_answers_much_the_same(model: LiteModel) -> None:
    """Half precision is for speed."""
    exact = answer(model, encoded(model), clicks((20, 30, 1)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = answer(model, encoded(model), clicks((20, 30, 1)))
    assert (rough - exact).abs().mean() < 0.1 * exact.abs().mean() + 0.02


def test_autocast_leaves_the_places_of_clicks_exact() -> None:
    """In bfloat16, 401.3 is 402: the click would be seen elsewhere."""
    there = clicks((401.3, 299.7, 1))
    state = PromptState.from_batch(there, 512, 1)
    exact = prompt_maps(state, 64, 64, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = prompt_maps(PromptState.from_batch(there, 512, 1), 64, 64, 8)
    assert torch.equal(rough, exact)


def test_the_mean_of_a_large_region_stays_within_fp16() -> None:
    """The sum over a frame of 1024 px is beyond what 16 bits hold; only the mean is asked for."""
    maps = torch.full((1, 4, 256, 256), 3.0).half()
    with torch.autocast("cpu", dtype=torch.float16):
        found = pool_region(maps, torch.ones(1, 1, 1, 256, 256))
    torch.testing.assert_close(
        found.float(), torch.full((1, 1, 4), 3.0), rtol=2e-3, atol=0
    )


def test_unit_vectors_are_those_of_torch_with_their_gradient():
    """A zero vector has no direction: it stays zero, and its gradient is finite."""
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    x[0, 1, :, 2] = 0
    results = []
    for function in (unit_vectors, lambda values, dim: F.normalize(values, dim=dim)):
        given = x.clone().requires_grad_()
        found = function(given, 2)
        (found * torch.arange(7.0)).sum().backward()
        results.append((found.detach(), torch.where(x == 0, 0.0, given.grad)))
        assert given.grad.isfinite().all()
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    assert not results[0][0][0, 1, :, 2].any()
    assert unit_vectors(x.bfloat16(), 2).dtype == torch.bfloat16


def test_prompts_in_the_order_of_their_images_are_answered_as_in_any_order(
    model: LiteModel,
) -> None:
    """In order, an image's features are not copied for its prompts; each takes part in the answer as before."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        embedding = model.backbone.encode(model.backbone.embed(images))
    coords = torch.rand(6, 2, 2, generator=generator) * 64
    labels = torch.tensor([[1, 0], [1, 1], [1, -1]] * 2)
    corner = torch.rand(6, 2, generator=generator) * 30
    index = torch.tensor([0, 0, 0, 1, 1, 1])
    order = torch.tensor([4, 0, 5, 1, 2, 3])
    for boxes in (None, torch.cat([corner, corner + 20], 1)):
        prompts = PromptBatch(index, coords, labels, boxes)
        mixed = PromptBatch(
            index[order],
            coords[order],
            labels[order],
            None if boxes is None else boxes[order],
        )
        with torch.no_grad():
            found = model.decoder.decode(embedding, prompts)
            again = model.decoder.decode(embedding, mixed)
        torch.testing.assert_close(found.logits[order], again.logits)
        torch.testing.assert_close(found.iou[order], again.iou)


def test_depthwise_gradients_are_in_single_precision_under_autocast() -> None:
    """A CPU takes several times as long for those of bfloat16; the layers around them stay in bfloat16."""
    layer = nn.Conv2d(4, 4, 5, padding=2, groups=4)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = layer(x.float()).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise(layer, x)
        with torch.no_grad():
            rough = depthwise(layer, x)
    assert torch.equal(found, expected)
    assert rough.dtype == torch.bfloat16


class TestLite(FoundationContract):
    """The model keeps every rule."""

    image_size = 64

    @pytest.fixture
    def foundation(self) -> str:
        """Its name."""
        return "lite"
