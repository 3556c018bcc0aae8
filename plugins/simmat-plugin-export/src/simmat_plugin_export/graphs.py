"""The parts of a model as modules with plain tensors, for tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from simmat.data.pipeline import LEAST_SHARE
from simmat.foundation import ImageEmbedding, PromptBatch
from simmat.model import SimMAT
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.normalize import CLIP
from simmat.types import RGB_QUANTITY, Aspect, Channel

_LARGEST = torch.finfo(torch.float32).max


class Prepare(nn.Module):
    """The computation of `simmat.data.pipeline.Pipeline`: validity, the sensor's transform, z-score, resize, pad.

    Images are resized by two products with weight matrices, which works for any size; zero rows make the padding.

    Args:
        adapter: the sensor.
        sensor: the channels of the image, with their ranges.
        channels: the C channels for the network, with mean and std.
        size: S.
        aspect: see `simmat.types.Letterbox`.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor
    limit: Tensor

    def __init__(
        self,
        adapter: ModalityAdapter,
        sensor: Sequence[Channel],
        channels: Sequence[Channel],
        size: int,
        aspect: Aspect,
    ) -> None:
        super().__init__()
        self.adapter, self.sensor, self.size, self.aspect = (
            adapter,
            tuple(sensor),
            size,
            aspect,
        )
        bounds = [channel.valid_range or (-_LARGEST, _LARGEST) for channel in sensor]
        self._constant("low", [max(low, -_LARGEST) for low, _ in bounds])
        self._constant("high", [min(high, _LARGEST) for _, high in bounds])
        self._constant("mean", [cast(float, channel.mean) for channel in channels])
        self._constant("std", [cast(float, channel.std) for channel in channels])
        self._constant(
            "limit",
            [
                _LARGEST if channel.quantity == RGB_QUANTITY else CLIP
                for channel in channels
            ],
        )

    def _constant(self, name: str, values: Sequence[float]) -> None:
        self.register_buffer(
            name,
            torch.tensor(values, dtype=torch.float32)[:, None, None],
            persistent=False,
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to the input of the network.

        Args:
            image: (B, channels of the sensor, H, W) in the units of the sensor, NaN where missing.

        Returns:
            Planes (B, C, S, S), and content (B, S, S) bool, False on padding.
        """
        valid = (image >= self.low) & (image <= self.high)  # False for NaN
        values, valid = self.adapter.transform_arrays(
            torch.where(valid, image, 0.0), valid, self.sensor, torch
        )
        scaled = torch.minimum(
            torch.maximum((values - self.mean) / self.std, -self.limit), self.limit
        )
        planes = torch.where(valid, scaled, 0.0)
        height, width = (torch.as_tensor(image.shape[axis]) for axis in (2, 3))
        rows, columns = scaled_size(height, width, self.size, self.aspect)
        down, across = (
            _shrinking(height, rows, self.size),
            _shrinking(width, columns, self.size).T,
        )
        share = down @ valid.to(planes.dtype) @ across  # (B, C, S, S)
        planes = down @ planes @ across
        planes = torch.where(
            share >= LEAST_SHARE, planes / share.clamp(min=LEAST_SHARE), 0.0
        )
        places = torch.arange(self.size)
        content = (places[:, None] < rows) & (places < columns)  # (S, S)
        return planes, content.expand(image.shape[0], -1, -1)


def scaled_size(
    height: Tensor, width: Tensor, size: int, aspect: Aspect
) -> tuple[Tensor, Tensor]:
    """Compute `Letterbox.scaled_hw` for an image of dynamic size.

    In integers, because onnxruntime's WebAssembly for graphics processors has no double precision.
    """
    if aspect == "stretch":
        return torch.full_like(height, size), torch.full_like(width, size)
    longest = torch.maximum(height, width)
    rows, columns = (
        _rounded_quotient(side * size, longest).clamp(min=1) for side in (height, width)
    )
    return rows, columns


def _rounded_quotient(value: Tensor, by: Tensor) -> Tensor:
    """Return value / by, both positive, rounded to the nearest integer; halves up."""
    return torch.div(2 * value + by, 2 * by, rounding_mode="trunc")


def _shrinking(before: Tensor, after: Tensor, size: int) -> Tensor:
    """Return the (size, before) weights of antialiased bilinear resizing to `after` pixels; the remaining rows are 0.

    Computed in single precision and in the order of torch's kernel, for the same rounding.
    """
    scale = before.float() / after.float()
    wide = scale.clamp(min=1.0)
    place = torch.arange(size)[:, None]
    centre = scale * (place.float() + 0.5)  # (size, 1)
    first = torch.floor(centre - wide + 0.5).clamp(min=0.0)
    last = torch.minimum(torch.floor(centre + wide + 0.5), before.float())
    pixel = _numbers(before)[None]  # (1, before)
    weights = (1.0 - ((pixel - centre + 0.5) * (1.0 / wide)).abs()).clamp(min=0.0)
    weights = torch.where((pixel >= first) & (pixel < last), weights, 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    return torch.where(place < after, weights, 0.0)


def _enlarging(before: Tensor, after: Tensor, size: Tensor) -> Tensor:
    """Return the (after, size) weights of bilinear resizing of the first `before` of `size` pixels."""
    scale = before.float() / after.float()
    # (after, 1)
    place = (scale * (_numbers(after) + 0.5) - 0.5).clamp(min=0.0)[:, None]
    place = torch.minimum(place, before.float() - 1.0)
    weights: Tensor = (1.0 - (place - _numbers(size)).abs()).clamp(min=0.0)
    return weights


def _numbers(count: Tensor) -> Tensor:
    """Return 0, 1, … as (count,) float."""
    # a tensor, because a number would become a constant of the graph
    return torch.arange(cast(int, count)).float()


class EncoderGraph(nn.Module):
    """Transfer layer and backbone."""

    def __init__(self, model: SimMAT) -> None:
        super().__init__()
        self.model = model

    def forward(self, planes: Tensor, content: Tensor) -> tuple[Tensor, ...]:
        """Map planes (B, C, S, S) and content (B, S, S) to the levels of the embedding."""
        return tuple(
            level.float() for level in self.model.encode(planes, content).levels
        )


class Decode(nn.Module):
    """The prompt decoder, for prompts of one kind.

    Args:
        model: the network.
        strides: strides of the levels of the embedding.
        points: True if prompts have points.
        boxes: True if prompts have a box.
        masks: True if prompts have a mask.
    """

    def __init__(
        self,
        model: SimMAT,
        strides: tuple[float, ...],
        *,
        points: bool,
        boxes: bool,
        masks: bool,
    ) -> None:
        super().__init__()
        self.model, self.strides = model, strides
        self.points, self.boxes, self.masks = points, boxes, masks

    def forward(self, image_index: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        """Predict masks for K prompts: logits (K, M, h, w) and predicted IoU (K, M).

        Args:
            image_index: (K,).
            rest: point_coords (K, N, 2), point_labels (K, N), boxes (K, 4) and mask_input (K, 1, h, w) as far as
                prompts of this kind have them, followed by the levels.
        """
        given = list(rest)
        if self.points:
            coords, labels = given.pop(0), given.pop(0)
        else:
            count = image_index.shape[0]
            coords, labels = (
                torch.zeros(count, 0, 2),
                torch.zeros(count, 0, dtype=torch.int64),
            )
        boxes = given.pop(0) if self.boxes else None
        masks = given.pop(0) if self.masks else None
        embedding = ImageEmbedding(tuple(given), self.strides)
        answer = self.model.decode(
            embedding, PromptBatch(image_index, coords, labels, boxes, masks)
        )
        return answer.logits, answer.iou


class DenseHeadGraph(nn.Module):
    """The dense head."""

    def __init__(self, model: SimMAT, strides: tuple[float, ...]) -> None:
        super().__init__()
        self.model, self.strides = model, strides

    def forward(self, *levels: Tensor) -> tuple[Tensor, Tensor]:
        """Map levels to class logits (B, K, h, w) and distance logits (B, 1, h, w)."""
        assert self.model.dense is not None
        answer = self.model.dense(ImageEmbedding(levels, self.strides))
        return answer.class_logits, answer.distance


class Masks(nn.Module):
    """The computation of `simmat.data.pipeline.restore_logits`.

    Args:
        size: S.
        aspect: see `simmat.types.Letterbox`.
    """

    def __init__(self, size: int, aspect: Aspect) -> None:
        super().__init__()
        self.size, self.aspect = size, aspect

    def forward(self, logits: Tensor, original_hw: Tensor) -> Tensor:
        """Map logits (N, h, w) over the S×S input to the image of size `original_hw` (2,) int64: (N, H, W)."""
        height, width = original_hw[0], original_hw[1]
        rows, columns = scaled_size(height, width, self.size, self.aspect)
        whole = torch.as_tensor(self.size)
        low_rows, low_columns = (torch.as_tensor(logits.shape[axis]) for axis in (1, 2))
        # (H, h)
        down = _enlarging(rows, height, whole) @ _enlarging(low_rows, whole, low_rows)
        # (W, w)
        across = _enlarging(columns, width, whole) @ _enlarging(
            low_columns, whole, low_columns
        )
        masks: Tensor = down @ logits @ across.T
        return masks
