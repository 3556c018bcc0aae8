"""A foundation model as ONNX graphs, compared with torch; `simmat export` compares whole bundles in the same way."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from simmat_plugin_export.graphs import Decode, EncoderGraph
from simmat_plugin_export.tracing import trace
from torch import Tensor, nn

from simmat.foundation import FoundationModel
from simmat.model import SimMAT


class _ThreePlanes(nn.Module):
    """A transfer layer that changes nothing."""

    def forward(self, planes: Tensor) -> Tensor:
        return planes


@torch.no_grad()
def difference_of_graphs(model: FoundationModel, size: int) -> float:
    """Return the largest difference between onnxruntime and torch of a model's masks and scores for clicks.

    The graphs are made of two images with five prompts of three clicks, and run on three with four of two.

    Args:
        size: S.
    """
    network = SimMAT(_ThreePlanes(), model, "image").eval().requires_grad_(False)
    one, other = (
        _asked(network, size, images, count) for images, count in ((2, 5), (3, 4))
    )
    names = [f"level_{index}" for index in range(len(one["levels"]))]
    dynamic = {name: {0: "images"} for name in ("planes", "content", *names)}
    encoder = trace(
        EncoderGraph(network),
        one["images"],
        other["images"],
        names=["planes", "content"],
        outputs=names,
        dynamic=dynamic,
    )
    prompts = ["image_index", "point_coords", "point_labels"]
    axes: dict[str, dict[int, str]] = {
        name: {0: "images" if name in names else "prompts"}
        for name in (*prompts, *names, "logits", "iou")
    }
    axes |= {name: {0: "prompts", 1: "points"} for name in prompts[1:]}
    decoder = trace(
        Decode(network, one["strides"], points=True, boxes=False, masks=False),
        [*one["clicks"], *one["levels"]],
        [*other["clicks"], *other["levels"]],
        names=[*prompts, *names],
        outputs=["logits", "iou"],
        dynamic=axes,
    )
    levels = _run(encoder, ["planes", "content"], other["images"])
    masks = _run(
        decoder, [*prompts, *names], [*other["clicks"], *map(torch.from_numpy, levels)]
    )
    decode = Decode(network, one["strides"], points=True, boxes=False, masks=False)
    expected = decode(*other["clicks"], *other["levels"])
    return max(
        float(np.abs(found - truth.numpy()).max())
        for found, truth in zip(masks, expected, strict=True)
    )


def _asked(network: SimMAT, size: int, images: int, count: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(images)
    planes = (
        torch.randn(images, 3, size, size, generator=generator),
        torch.ones(images, size, size, dtype=torch.bool),
    )
    embedding = network.encode(*planes)
    coords = torch.rand(count, 5 - images, 2, generator=generator) * size
    labels = torch.arange(count * (5 - images)).reshape(count, -1) % 2
    clicks = torch.arange(count) % images, coords, labels
    return {
        "images": planes,
        "levels": embedding.levels,
        "strides": embedding.strides,
        "clicks": clicks,
    }


def _run(model: Any, names: list[str], inputs: Any) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    taken = {one.name for one in session.get_inputs()}
    feeds = {
        name: tensor.numpy()
        for name, tensor in zip(names, inputs, strict=True)
        if name in taken
    }
    return cast("list[np.ndarray]", session.run(None, feeds))
