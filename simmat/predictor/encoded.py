"""The embedding of one image: it answers prompts, and finds objects and classes without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from simmat.data.instances import FoundObject
from simmat.data.pipeline import PreparedImage, prompt_batch
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import DenseAnswer, classes_of
from simmat.nn.device import threads_for_load
from simmat.nn.resize import restore_logits
from simmat.predictor import everything
from simmat.predictor.everything import EverythingSettings
from simmat.predictor.reference import Reference, find_like
from simmat.types import FloatArray, Prompt


@threads_for_load()
@torch.inference_mode()
def embed(model: SimMAT, planes: Tensor, content: Tensor) -> ImageEmbedding:
    """Return the embedding of a batch of images: (B, C, S, S) planes and (B, S, S) content, see `PreparedImage`."""
    device = next(model.parameters()).device
    return model.encode(planes.to(device), content.to(device))


class EncodedImage:
    """The embedding of an image, or of a window of one, and what the network answers; no score is calibrated.

    Attributes:
        prepared: the network's input.
        embedding: of a batch of one image.
        warning: how its values differ from those of training, see `domain_shift_warning`; "" if they do not.
    """

    def __init__(
        self,
        model: SimMAT,
        prepared: PreparedImage,
        classes: DenseSpec | None = None,
        embedding: ImageEmbedding | None = None,
        warning: str = "",
    ) -> None:
        """Encode an image.

        Args:
            classes: what the network's dense head distinguishes.
            embedding: of a batch of this image; None encodes it.
        """
        self.prepared, self.warning = prepared, warning
        self._model, self._classes = model, classes
        self._device = next(model.parameters()).device
        self.embedding = embedding or embed(model, prepared.planes[None], prepared.content[None])

    @property
    def nbytes(self) -> int:
        """Bytes of the embedding and of the network's input."""
        return sum(part.nbytes for part in (*self.embedding.levels, self.prepared.planes, self.prepared.content))

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
        answer = self._model.decode(self.embedding, batch)
        given, size_hw = prompts[0].mask_input, tuple(answer.logits.shape[-2:])
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
            point_coords=torch.from_numpy(points[:, None]).to(self._device),
            point_labels=torch.ones(count, 1, dtype=torch.int64, device=self._device),
        )
        return self._model.decode(self.embedding, batch)

    @cached_property
    def _dense(self) -> DenseAnswer | None:
        with threads_for_load(), torch.inference_mode():
            return None if self._model.dense is None else self._model.dense(self.embedding)

    @threads_for_load()
    @torch.inference_mode()
    def class_map(self) -> FloatArray | None:
        """Return (K, H, W) class probabilities of the original image; None without a dense head."""
        if self._dense is None or self._classes is None:
            return None
        logits = restore_logits(self._dense.classes, self.prepared.letterbox)[0]
        probabilities: FloatArray = logits.softmax(0).cpu().numpy()
        return probabilities

    @threads_for_load()
    @torch.inference_mode()
    def class_probabilities(self, low_res_logits: FloatArray) -> Mapping[int, float] | None:
        """Return the probability of each class of objects for a mask; None without such classes, or a pixel.

        Args:
            low_res_logits: (h, w) logits of the mask at the decoder's own size.
        """
        spec = self._classes
        if spec is None or self._dense is None or not (low_res_logits > 0).any():
            return None
        (found,), _ = classes_of(low_res_logits[None] > 0, self._dense.classes[0].softmax(0), spec.background)
        return spec.by_class(found.tolist())

    @threads_for_load()
    @torch.inference_mode()
    def find_objects(self, settings: EverythingSettings, like: Reference | None = None) -> list[FoundObject]:
        """Find every object, best first, in pixels of the original image; see `simmat.predictor.everything`.

        Args:
            settings: how objects are found.
            like: what to look for, in place of what the model's dense head knows.
        """
        letterbox = self.prepared.letterbox
        if like is not None:
            return find_like(like, self.embedding, letterbox, self.decode, settings)
        return everything.find_objects(letterbox, self.decode_clicks, self._dense, self._classes, settings)
