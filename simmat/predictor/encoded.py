"""An image, or a window of one, as a network has encoded it: what the network answers to prompts, and without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from simmat.data.pipeline import PreparedImage, prompt_batch, restore_logits
from simmat.drawing.display import display_style
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import DenseAnswer, classes_of
from simmat.nn.device import threads_for_load
from simmat.sensors.normalize import CLIP
from simmat.types import RGB_QUANTITY, Channel, FloatArray, Prompt

_FAR = 0.99
_MAX_FAR_SHARE = 0.5
_FLAT = 0.02
"""Share of the clip value, share of the pixels, share of training's standard deviation."""
_SAMPLED_SIDE = 128
"""Pixels along each side that are enough to see it, evenly spaced."""


@threads_for_load()
@torch.inference_mode()
def embed(model: SimMAT, planes: Tensor, content: Tensor) -> ImageEmbedding:
    """Return the embedding of a batch of images: (B, C, S, S) planes and (B, S, S) content, see `PreparedImage`."""
    device = next(model.parameters()).device
    return model.encode(planes.to(device), content.to(device))


def encode_image(model: SimMAT, prepared: PreparedImage, classes: DenseSpec | None = None) -> EncodedImage:
    """Encode an image.

    Args:
        model: the network.
        prepared: its input.
        classes: what its dense head distinguishes.
    """
    embedding = embed(model, prepared.planes[None], prepared.content[None])
    return EncodedImage(model, prepared, embedding, classes)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """The embedding of an image, or of a window of one, and what the network answers; no score is calibrated.

    Attributes:
        model: the network.
        prepared: its input.
        embedding: of a batch of this image.
        dense_spec: what the dense head distinguishes; None without one.
        warning: how the values differ from those of training, see `domain_shift_warning`; "" if they do not.
    """

    model: SimMAT
    prepared: PreparedImage
    embedding: ImageEmbedding
    dense_spec: DenseSpec | None = None
    warning: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the embedding and of the network's input."""
        parts = (*self.embedding.levels, self.prepared.planes, self.prepared.content)
        return sum(part.nbytes for part in parts)

    @cached_property
    def dense(self) -> DenseAnswer | None:
        """The maps of the dense head; None without one."""
        if self.model.dense is None:
            return None
        with threads_for_load(), torch.inference_mode():
            answer: DenseAnswer = self.model.dense(self.embedding)
        return answer

    @threads_for_load()
    @torch.inference_mode()
    def decode(self, prompts: Sequence[Prompt], *, mask_input: Tensor | None = None) -> MaskPrediction:
        """Decode K prompts of one kind: all with as many points, and all with or without box and mask.

        Args:
            prompts: in pixels of the original image.
            mask_input: (K, 1, h, w) logits of earlier masks, in place of the prompts' own.

        Raises:
            ValueError: a mask of the prompts is not of the decoder's size.
        """
        batch = prompt_batch(prompts, self.prepared.letterbox, self._device)
        if mask_input is not None:
            batch = replace(batch, mask_input=mask_input)
        answer = self.model.decode(self.embedding, batch)
        given = prompts[0].mask_input
        size_hw = tuple(answer.logits.shape[-2:])
        if given is not None and given.shape != size_hw:
            raise ValueError(
                f"mask must be {size_hw} logits, the low_res_logits of an earlier prediction of this model, "
                f"got {given.shape}"
            )
        return answer

    @threads_for_load()
    @torch.inference_mode()
    def decode_clicks(self, points: FloatArray) -> MaskPrediction:
        """Answer K clicks, one each, at (K, 2) xy of the S×S input."""
        count = len(points)
        batch = PromptBatch(
            image_index=torch.zeros(count, dtype=torch.int64, device=self._device),
            point_coords=torch.from_numpy(points[:, None]).to(self._device),  # (K, 1, 2)
            point_labels=torch.ones(count, 1, dtype=torch.int64, device=self._device),
        )
        return self.model.decode(self.embedding, batch)

    @threads_for_load()
    @torch.inference_mode()
    def class_map(self) -> FloatArray | None:
        """Return (K, H, W) class probabilities of the original image; None without a dense head."""
        if self.dense is None or self.dense_spec is None:
            return None
        logits = restore_logits(self.dense.class_logits, self.prepared.letterbox)[0]
        probabilities: FloatArray = logits.softmax(0).cpu().numpy()
        return probabilities

    @threads_for_load()
    @torch.inference_mode()
    def class_probabilities(self, low_res_logits: FloatArray) -> Mapping[int, float] | None:
        """Return the probability of each class of objects for a mask; None without such classes, or a pixel.

        Args:
            low_res_logits: (h, w) logits of the mask at the decoder's own size.
        """
        inside = low_res_logits > 0
        if self.dense_spec is None or self.dense is None or not inside.any():
            return None
        probabilities = self.dense.class_logits[0].softmax(0)
        (found,), _ = classes_of(inside[None], probabilities, self.dense_spec.background)
        return self.dense_spec.by_class(found.tolist())

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def domain_shift_warning(prepared: PreparedImage, channels: Sequence[Channel]) -> str:
    """Return which channel's values are far from those of training, as in another unit or bit depth; "" if none is.

    RGB channels are scaled by the foundation model's statistics, which say nothing about the training images.
    """
    step = max(prepared.content.shape[0] // _SAMPLED_SIDE, 1)
    content = prepared.content[::step, ::step]
    for channel, plane in zip(channels, prepared.planes[:, ::step, ::step], strict=True):
        if channel.quantity == RGB_QUANTITY or channel.mean is None or channel.std is None:
            continue
        valid = plane[content & (plane != 0)]  # invalid pixels are 0
        if not valid.numel():
            continue
        style = display_style(channel)
        trained = f"{style.text(channel.mean, 4)} ± {style.factor * channel.std:.4g} {style.unit}"
        if float((valid.abs() >= _FAR * CLIP).float().mean()) > _MAX_FAR_SHARE:
            return f"most values of channel {channel.name!r} are far from those of training ({trained})"
        if valid.numel() > 1 and float(valid.std()) < _FLAT:
            return f"the values of channel {channel.name!r} vary much less than those of training ({trained})"
    return ""
